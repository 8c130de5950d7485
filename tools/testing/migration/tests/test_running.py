# SPDX-License-Identifier: GPL-2.0
"""The image of the kernel that runs, and no other one."""

from pathlib import Path

import kernels
import pytest
from conftest import make, refused

from lab import defect
from lab.binary import running
from lab.errors import LabError
from lab.finding import BINARY, PROTECTED, UNKNOWN, Finding
from lab.tell.audited import Audited
from lab.verbs import audit


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("proc", "sys/kernel", "boot"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "proc/version").write_text(kernels.BANNER + "\n")
    (tmp_path / "proc/cmdline").write_text("BOOT_IMAGE=(hd0,gpt2)/vmlinuz-mine ro quiet\n")
    (tmp_path / "sys/kernel/notes").write_bytes(kernels.note(b"\x11" * 20))
    return tmp_path


def test_the_image_that_was_booted(root: Path) -> None:
    (root / "boot/vmlinuz-mine").write_bytes(kernels.bzimage(kernels.packed(kernels.vmlinux())))
    assert running.image(root).path == str(root / "boot/vmlinuz-mine")


def test_an_image_of_another_build_is_refused(root: Path) -> None:
    """The same name, the same banner: an update that has not been booted."""
    other = kernels.vmlinux(build_id=b"\x33" * 20)
    (root / "boot/vmlinuz-mine").write_bytes(kernels.bzimage(kernels.packed(other)))
    with pytest.raises(LabError, match="not the kernel that runs: its build id is 3333") as caught:
        running.image(root)
    assert "\n" not in str(caught.value)
    # What runs is beside it, under its release.
    (root / "boot/vmlinuz-6.1.0-9-test").write_bytes(kernels.vmlinux())
    assert running.image(root).path.endswith("vmlinuz-6.1.0-9-test")


def test_without_a_build_id_the_whole_banner_counts(root: Path) -> None:
    (root / "sys/kernel/notes").unlink()
    later = kernels.vmlinux(banner=kernels.BANNER.replace("6.1.9-1", "6.1.9-2"))
    (root / "boot/vmlinuz-mine").write_bytes(later)
    with pytest.raises(LabError, match="6.1.9-2"):
        running.image(root)
    (root / "boot/vmlinuz-mine").write_bytes(kernels.vmlinux())
    assert running.image(root).banner == kernels.BANNER


def test_no_image_and_a_damaged_one(root: Path) -> None:
    with pytest.raises(LabError, match="no file of it is in /boot"):
        running.image(root)
    (root / "boot/vmlinuz-mine").write_bytes(b"\x5a" * 100)
    with pytest.raises(LabError, match="no kernel image that is known"):
        running.image(root)


def test_livepatches(root: Path) -> None:
    assert running.livepatches(root) == []
    for patch, enabled in (("kpatch_1", "1\n"), ("kpatch_2", "0\n")):
        folder = root / "sys/kernel/livepatch" / patch
        (folder / "vmlinux/try_to_unmap_one,1").mkdir(parents=True)
        (folder / "enabled").write_text(enabled)
    assert [(one.module, one.object, one.function, one.enabled)
            for one in running.livepatches(root)] == [
        ("kpatch_1", "vmlinux", "try_to_unmap_one", True),
        ("kpatch_2", "vmlinux", "try_to_unmap_one", False)]


def test_what_a_livepatch_replaces_is_unknown() -> None:
    """Of each defect whose rules ask for it, and of no other."""
    one = Audited("/boot/vmlinuz", "6.1", [Finding(name, PROTECTED, "protected", (), (), BINARY)
                                           for name in defect.names()], tree=False)
    done = audit.patched(one, {"try_to_migrate_one": "livepatch_1"})
    asked = {name for name in defect.names()
             if "try_to_migrate_one" in " ".join(defect.load(name).binary.protected)}
    unknown = {found.defect for found in done.findings if found.status == UNKNOWN}
    assert asked and asked <= unknown < set(defect.names())
    assert done.also["livepatches"] == "livepatch_1"
    assert all("livepatch_1 replaces try_to_migrate_one()" in found.why
               for found in done.findings if found.defect in unknown)
    assert audit.patched(one, {}) == one


def test_the_verb_says_what_it_lacks() -> None:
    """This machine's own kernel, whatever that is: an answer, or one line."""
    done = make("audit", "RUNNING=1", "AUDIT=json")
    if done.returncode and "error:" in done.stderr:
        line, = (line for line in done.stderr.splitlines() if line.startswith("error: "))
        assert "IMAGE=" in line or "RUNNING" in line
    else:
        assert '"banner": "Linux version' in done.stdout
    assert "RUNNING=1 finds its image by itself" in refused("audit", "RUNNING=1", "IMAGE=/boot")
