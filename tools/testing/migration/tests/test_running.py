# SPDX-License-Identifier: GPL-2.0
"""The image of the kernel that runs, and no other one."""

import gzip
import struct
from pathlib import Path

import kernels
import pytest
from conftest import make, refused

from lab import decide, defect
from lab.binary import code, core, running
from lab.errors import LabError
from lab.finding import BINARY, NOT_AFFECTED, PROTECTED, UNKNOWN, Finding
from lab.tell import audited
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


@pytest.mark.parametrize("function, name", (
    # Asked for by a pattern, in a rule or behind a name of it; and a piece of one.
    ("flush_tlb_range", "pmd-share-migrate"), ("huge_pmd_unshare", "pmd-share-flush"),
    ("__hugetlb_vma_unlock_write_put", "pmd-share-fault"),
    ("try_to_migrate_one.isra.0", "pmd-share-migrate"),
    # What says of each of those with shared tables that it is not affected.
    ("huge_pmd_share", "pmd-share-arm64-flush"), ("hugetlb_fault", "pmd-share-arm64-flush")))
def test_what_a_rule_asks_for_by_a_pattern_is_asked_for(function: str, name: str) -> None:
    one = Audited("/boot/vmlinuz", "6.1", [Finding(name, NOT_AFFECTED, "", (), (), BINARY)],
                  tree=False)
    found, = audit.patched(one, {function: "livepatch_1"}).findings
    assert found.status == UNKNOWN and f"livepatch_1 replaces {function}()" in found.why
    for other in ("config_write", "xfs_flush", "x_huge_pmd", "try_to_migrate_one_more"):
        assert audit.patched(one, {other: "livepatch_1"}).findings == [*one.findings]


def test_the_verb_says_what_it_lacks() -> None:
    """This machine's own kernel, whatever that is: an answer, or one line."""
    done = make("audit", "RUNNING=1", "AUDIT=json")
    if done.returncode and "error:" in done.stderr:
        line, = (line for line in done.stderr.splitlines() if line.startswith("error: "))
        assert "IMAGE=" in line or "RUNNING" in line
    else:
        assert '"banner": "Linux version' in done.stdout
    assert "RUNNING=1 finds its image by itself" in refused("audit", "RUNNING=1", "IMAGE=/boot")


TEXT = kernels.TEXT
NAMES = f"""\
0000000000000000 A fixed_percpu_data
{TEXT:016x} T _stext
{TEXT + 0x10:016x} T handle_mm_fault
{TEXT + 0x20:016x} t huge_pmd_share
{TEXT + 0x30:016x} t hugetlb_fault
{TEXT + 0x100:016x} T _etext
{TEXT + 0x800000:016x} D __start___jump_table
{TEXT + 0x800010:016x} D __stop___jump_table
{TEXT + 0x800010:016x} D __start___ex_table
{TEXT + 0x80001c:016x} D __stop___ex_table
ffffffffc0000000 t handle_mm_fault\t[other]
"""
CONFIG = "CONFIG_SMP=y\nCONFIG_ARCH_WANT_HUGE_PMD_SHARE=y\n"


def memory(parts: list[tuple[int, bytes]]) -> bytes:
    """A core file of memory, as /proc/kcore is."""
    at = 64 + 56 * (len(parts) + 1)
    heads = struct.pack("<IIQQQQQQ", 4, 0, 64, 0, 0, 0, 0, 0)
    for address, data in parts:
        heads += struct.pack("<IIQQQQQQ", 1, 7, at, address, 0, len(data), len(data), 4096)
        at += len(data)
    return b"\x7fELF\2\1\1" + bytes(9) + struct.pack(
        "<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, len(parts) + 1, 0, 0, 0) \
        + heads + b"".join(data for _address, data in parts)


@pytest.fixture
def live(root: Path) -> Path:
    (root / "proc/kallsyms").write_text(NAMES)
    (root / "proc/kcore").write_bytes(memory([
        (0xffff888000000000, b"x" * 64), (TEXT - 0x20, b"\xcc" * 0x20 + b"\x90" * 0x300),
        (TEXT + 0x800000, b"\1" * 32)]))
    (root / "proc/config.gz").write_bytes(gzip.compress(CONFIG.encode()))
    return root


def test_what_runs_is_read_out_of_memory(live: Path) -> None:
    image = running.image(live)
    assert image.path.endswith("proc/kcore") and image.banner == kernels.BANNER
    assert (image.build_id, image.config, image.missing) == ("11" * 20, CONFIG, "")
    assert image.live
    text, table, faults = image.sections
    assert (text.address, text.data, text.executable) == (TEXT, b"\x90" * 0x100, True)
    assert (table.data, table.executable) == (b"\1" * 16, False)
    assert (faults.data, faults.executable) == (b"\1" * 12, False)
    # What a module calls so is none of the kernel.
    assert [one.address for one in image.by_name["handle_mm_fault"]] == [TEXT + 0x10]


@pytest.mark.parametrize("data, said", [
    (None, "no /proc/kcore"), (b"", "no core file"), (b"\x7fELF\2\1" + bytes(90), "not have"),
    (memory([(TEXT, b"\x90" * 0x80)]), "not have"),
], ids=("none", "empty", "no memory", "cut short"))
def test_where_the_code_cannot_be_read_names_and_config_say_something(
        data: bytes | None, said: str, live: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("capstone")
    (live / "proc/kcore").unlink()
    if data is not None:
        (live / "proc/kcore").write_bytes(data)
    monkeypatch.setattr(core.os, "uname", lambda: type("", (), {"machine": "x86_64"}))
    image = running.image(live)
    assert said in image.missing and "IMAGE=" in image.missing and image.sections == ()
    found = {name: decide.decide(code.Code(image), defect.load(name)) for name in defect.names()}
    assert {one.status for one in found.values()} == {NOT_AFFECTED, UNKNOWN}
    # It has no CONFIG_MIGRATION, and can share PMD tables.
    assert found["pmd-share-migrate"].status == NOT_AFFECTED
    assert found["pmd-share-flush"].status == UNKNOWN
    assert all("cannot be read" in one.why for one in found.values() if one.status == UNKNOWN)
    # Once for all of them, with what there is to do about it, and their names in a row.
    done = audit.of_image(image)
    told = audited.summary(done, 80)
    assert " ".join(told.split()).count(said) == 1 and not done.safe
    assert told.count("its code cannot be read") == 1 and len(told.splitlines()) < 60
    assert max(map(len, told.splitlines())) <= 80
    assert "\n  apt download linux-image-6.1.0-9-test " in told
    assert "make audit IMAGE=FILE, with vmlinuz-6.1.0-9-test\n" in told
    assert ("sudo make audit RUNNING=1" in told) == ("be root" in image.missing)
    assert said in str(audited.report(done)["missing"])


@pytest.mark.parametrize("names, said", [
    (NAMES, "be root"), ("", "not there"), (None, "not there"),
])
def test_names_that_are_hidden(names: str | None, said: str, live: Path) -> None:
    (live / "proc/kallsyms").unlink()
    if names is not None:
        (live / "proc/kallsyms").write_text("".join(
            "0" * 16 + line[16:] + "\n" for line in names.splitlines()))
    with pytest.raises(LabError, match=said) as caught:
        running.image(live)
    assert "\n" not in str(caught.value)


def test_a_kernel_in_an_efi_program(root: Path) -> None:
    folder = root / "boot/efi/EFI/Linux"
    folder.mkdir(parents=True)
    (folder / "any-name.efi").write_bytes(kernels.unified(kernels.bzimage(kernels.packed(
        kernels.vmlinux()))))
    assert running.image(root).path == str(folder / "any-name.efi")
