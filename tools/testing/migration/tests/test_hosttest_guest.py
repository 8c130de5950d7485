# SPDX-License-Identifier: GPL-2.0
"""pmd-share-test, as the package has it, in a guest that is a small Debian.

With FULL=1: it makes a Debian of its own, and boots it with the fixed kernel.
"""

import shutil
from pathlib import Path

import debian_guest
import pytest
from conftest import debian_tree, make

from lab.judge import ktap
from lab.trial import Trial

pytestmark = pytest.mark.alone
HERE = Path(__file__).resolve().parent
LIMIT = 900.0


def file_system(folder: Path) -> Path:
    """An initrd of Debian with the package."""
    done = make("package", f"O={folder}/package")
    assert done.returncode == 0, done.stderr
    [package] = (folder / "package").glob("*.deb")

    def add(root: Path) -> None:
        shutil.copy(package, root / "one.deb")
        # Coccinelle is for the audit alone.
        debian_guest.chroot(root, "dpkg", "--force-depends", "-i", "/one.deb")
        (root / "one.deb").unlink()
        shutil.copy(HERE / "hosttest_guest.py", root)
    return debian_guest.initrd(folder, add, "/usr/bin/python3 -B /hosttest_guest.py")


@pytest.mark.slow
def test_the_machine_is_as_it_was_however_it_ends(request: pytest.FixtureRequest, tmp_path: Path
                                                  ) -> None:
    debian_guest.needed()
    debian_tree("6.12")
    fixed: Trial = request.getfixturevalue("fixed")
    text = debian_guest.said(fixed, file_system(tmp_path), tmp_path, LIMIT)
    said = ktap.read(text)
    assert said.done, text[-2000:]
    assert said.problems() == []
    assert {test.name: test.reason for test in said.tests() if test.outcome != "pass"} == {}
    assert len(said.tests()) == 9
