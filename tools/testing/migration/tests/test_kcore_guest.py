# SPDX-License-Identifier: GPL-2.0
"""The code of the kernel that runs, out of its memory, says what its image says.

With FULL=1: it makes a Debian of its own, and boots it with the kernel of this machine's Debian.
In memory calls, jumps and alternatives are patched, which no file has.
"""

import json
import shutil
from pathlib import Path

import debian_guest
import debian_images
import pytest

from lab import arch, deps
from lab.binary.load import load
from lab.errors import LabError
from lab.finding import UNKNOWN
from lab.paths import HOME, REPO
from lab.progress import Progress
from lab.verbs import audit

pytestmark = pytest.mark.alone
SUITE = "bookworm-security"
# QEMU without KVM takes some 20 times as long as the 5 s of a machine.
LIMIT = 900.0
# These ask for all ways through do_mprotect_pkey().
KEYS = ("hugetlb-mprotect-pending", "thp-numa-pending")
AUDIT = f"/usr/bin/python3 -B /lab/{HOME.relative_to(REPO)}/migration.py audit RUNNING=1 AUDIT=json"


def add(root: Path) -> None:
    """The lab, and no image of the kernel: else that would be read."""
    shutil.copytree(REPO, root / "lab", symlinks=True, ignore=shutil.ignore_patterns(
        ".git", "out", "records", "tests", "__pycache__"))


def told(text: str) -> dict[str, str]:
    """What each row says, of code out of memory."""
    report = json.loads(text[text.index("{"):text.rindex("}") + 1])
    assert "error" not in report and "missing" not in report, report
    assert report["image"] == "/proc/kcore" and report["running"]
    return {row["defect"]: row["status"] for row in report["defects"]}


@pytest.mark.slow
def test_memory_says_what_the_image_says(tmp_path: Path) -> None:
    debian_guest.needed()
    try:
        debian_images.fetch(tmp_path, SUITE, arch.load(), "{}", Progress())
    except LabError as err:
        pytest.skip(f"no kernel of Debian's: {err}")
    image, = tmp_path.glob("vmlinuz-*")
    file_system = debian_guest.initrd(tmp_path, add, AUDIT, [one.package for one in deps.IMAGE])
    expected = {one.defect: one.status for one in audit.of_image(load(image)).findings}
    # On a CPU with protection keys nothing in memory says where one without them goes on.
    for cpu, other in (("kvm64", {}), ("max", dict.fromkeys(KEYS, UNKNOWN))):
        # A machine that is busy with other work may not have the timer in time for that check.
        text = debian_guest.said_of(image, file_system, tmp_path / cpu, LIMIT, ["no_timer_check"],
                                    cpu)
        assert told(text) == {**expected, **other}, cpu
