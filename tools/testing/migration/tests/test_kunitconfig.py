# SPDX-License-Identifier: GPL-2.0
"""mm/tests/.kunitconfig is one that kunit.py can run, on x86_64; and not on User Mode Linux.

It configures there, and stops, as it names each option that was lost.
"""

import re
import subprocess
from pathlib import Path

import pytest
from conftest import FULL, debian_tree
from test_warnings import wanted
from trees import apply, released

from lab.kernel import kconfig, testseries
from lab.verbs import mailing

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.skipif(
    not FULL, reason="configures four kernels: minutes, with FULL=1")]
# What User Mode Linux has not, and what needs that.
LACKS = {"CONFIG_HUGETLBFS", "CONFIG_HUGETLB_PMD_PAGE_TABLE_SHARING", "CONFIG_MEM_SOFT_DIRTY",
         "CONFIG_HUGETLB_PMD_SHARE_KUNIT_TEST"}
# It got several CPUs after 6.18.
LACKED = {"6.12": {"CONFIG_SMP", "CONFIG_NR_CPUS"}}


@pytest.fixture(scope="module", params=testseries.names())
def patched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with the KUnit tests."""
    base = request.param
    tree = released(debian_tree(base), tmp_path_factory.mktemp(base) / "linux",
                    lambda path: wanted(path) or path.startswith("arch/um/"))
    for _name, mail in mailing.patches(base, "kunit"):
        apply(tree, "--whitespace=nowarn", "-", diff=mail)
    return tree


def configure(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    obj = tree.parent / f"obj{''.join(words)}"
    obj.mkdir()
    return subprocess.run(["python3", "-B", "tools/testing/kunit/kunit.py", "config", *words,
                           "--kunitconfig=mm/tests", f"--build_dir={obj}"], cwd=tree, text=True,
                          capture_output=True, check=False, env=kconfig.environment(obj))


def test_x86_64_has_all_of_it(patched: Path) -> None:
    done = configure(patched, "--arch=x86_64")
    assert done.returncode == 0, done.stdout + done.stderr
    text = (patched.parent / "obj--arch=x86_64/.config").read_text(encoding="utf-8")
    assert "\nCONFIG_HUGETLB_PMD_SHARE_KUNIT_TEST=y\n" in text


def test_user_mode_linux_says_what_it_lacks(patched: Path, request: pytest.FixtureRequest) -> None:
    done = configure(patched)
    assert done.returncode != 0
    found = re.search(r"Missing: (.+)", done.stdout + done.stderr)
    base = request.node.callspec.params["patched"]
    assert found and set(re.findall(r"CONFIG_\w+", found[1])) == LACKS | LACKED.get(base, set())
