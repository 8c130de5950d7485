# SPDX-License-Identifier: GPL-2.0
"""Architectures: their rows, what differs for each, and that x86_64 stays as it was."""

import dataclasses
import itertools
import os
import shutil
from pathlib import Path

import pytest
from conftest import make

from lab import arch, base, deps, fragment
from lab.defect import Machine
from lab.errors import LabError
from lab.guest import qemu, selftest
from lab.judge import summary
from lab.kernel import kconfig
from lab.kernel.source import Source
from lab.paths import HOME

ROWS = [arch.load(name) for name in arch.names()]


@pytest.mark.parametrize("name", ["arm64", "aarch64"])
def test_a_row_has_the_names_that_others_give_it(name: str) -> None:
    assert arch.load(name).name == "arm64"
    assert arch.load("x86").name == "x86_64"


def test_an_unknown_architecture_is_one_line() -> None:
    with pytest.raises(LabError, match="no architecture z80: the lab knows .*arm64.*, x86_64") as \
            caught:
        arch.load("z80")
    assert "\n" not in str(caught.value)


def test_no_two_rows_answer_to_the_same_name() -> None:
    for names in ((row.name, row.machine_name, row.kernel_arch) for row in ROWS):
        for name in names:
            assert [row.name for row in ROWS if name in (
                row.name, row.machine_name, row.kernel_arch)] == [arch.load(name).name]


@pytest.mark.parametrize("host", [row.machine_name for row in ROWS])
def test_what_is_not_this_machines_is_cross_built(host: str, monkeypatch: pytest.MonkeyPatch
                                                  ) -> None:
    told = list(os.uname())
    told[4] = host
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(told))
    assert arch.load().machine_name == host
    for row in ROWS:
        native = row.machine_name == host
        assert row.compiler == ("gcc" if native else f"{row.triplet}-gcc")
        wanted = {need.package for need in deps.boot(row)}
        # Of its own architecture it is installed, else unpacked in the cache.
        assert ("busybox-static" in wanted, "libnuma-dev" in wanted) == (native, native)
        cross = {f"gcc-{row.triplet.replace('_', '-')}", f"libc6-dev-{row.debian}-cross"}
        assert cross & wanted == (set() if native else cross)
        assert row.qemu_package in wanted
        # The kernel's build has programs of its own for this machine.
        assert "gcc" in wanted
        assert not any("qemu" in need.package for need in deps.of(row, deps.SELFTESTS))


def test_the_lab_does_without_the_name_of_an_architecture() -> None:
    """What differs is in the row; a test for a name would be a second place.

    lab/binary/ reads images of any architecture, of which the lab need not build one.
    """
    for path in sorted((HOME / "lab").rglob("*.py")):
        if path.name != "arch.py" and path.parent.name != "binary":
            for number, line in enumerate(path.read_text().splitlines(), 1):
                code = line.partition("#")[0]
                assert not ("arch" in code and "==" in code and any(
                    f'"{row.name}"' in code for row in ROWS)), f"{path}:{number}"


@pytest.mark.parametrize("debug", [False, True])
def test_x86_64_is_asked_for_what_the_fragments_say(tmp_path: Path, debug: bool) -> None:
    """And in their order: the text is a part of the key of each of its kernels in the cache."""
    options: dict[str, str] = {}
    for name in ("base.config", "debug.config") if debug else ("base.config",):
        options |= fragment.parse((kconfig.CONFIGS / name).read_text(), name)
    # All debug options are known to this tree.
    (tmp_path / "Kconfig").write_text("".join(f"config {name}\n" for name in options))
    asked = kconfig.request(base.Base("0.1"), arch.load("x86_64"), tmp_path, debug)
    assert asked.text == "".join(
        f"{fragment.line(name, value)}\n" for name, value in options.items())


def test_the_others_drop_what_x86_64_alone_has_and_add_their_own(tmp_path: Path) -> None:
    plain = kconfig.request(base.Base("0.1"), arch.load("x86_64"), tmp_path, False).options
    for row in ROWS:
        asked = kconfig.request(base.Base("0.1"), row, tmp_path, False).options
        own = fragment.parse("\n".join(fragment.lines(kconfig.CONFIGS / f"{row.name}.config")), "")
        lacks = row.lacks("0.1")
        assert set(lacks) & plain.keys() == plain.keys() - asked.keys()
        assert asked == {name: own.get(name, plain.get(name, ""))
                         for name in [*plain, *own] if name not in lacks}
        # A base may drop what the architecture does not have in any case.
        some = row.drop[0] if row.drop else "X86_MCE"
        again = kconfig.request(base.Base("0.1", drop=(f"CONFIG_{some}",)), row, tmp_path, False)
        assert some not in again.options


def test_a_row_that_drops_what_nobody_asks_for(tmp_path: Path) -> None:
    row = dataclasses.replace(arch.load("arm64"), drop=("TYPO",))
    with pytest.raises(LabError, match="arm64 drops what configs/base.config .* not ask for: TYPO"):
        kconfig.request(base.Base("0.1"), row, tmp_path, False)


def test_an_option_that_came_later_is_not_asked_of_older_kernels(tmp_path: Path) -> None:
    """Nor are those that others bring along."""
    row = dataclasses.replace(arch.load("x86_64"), later=(("MEMORY_HOTREMOVE", "6.11"),))
    for name, there in (("6.6", False), ("6.12", True), ("6.11", True)):
        asked = kconfig.request(base.Base(name), row, tmp_path, False)
        assert ("MEMORY_HOTREMOVE" in asked.options) is there
        assert ("MEMORY_HOTREMOVE" in row.lacks(name)) is not there
        lost = kconfig.missing(kconfig.Request({}, ()), "", "", row.lacks(name))
        assert ("CONFIG_MEMORY_HOTREMOVE=y" in lost) is there


def test_another_size_of_pages_is_no_usual_kernel() -> None:
    row = arch.load("arm64")
    for words, kind in (("", []), ("KCONFIG=NET", []), ("KCONFIG='CMA=y NET=y'", []),
                        ("KCONFIG=ARM64_4K_PAGES=y", []),
                        ("KCONFIG='ARM64_4K_PAGES=n ARM64_16K_PAGES=y' BOOTS=1", ["ARM64_16K_PAGES"]),
                        ("KCONFIG='ARM64_VA_BITS_48=n ARM64_VA_BITS_39=y'", ["ARM64_VA_BITS_39"]),
                        ("KCONFIG=ARM64_4K_PAGES=n", ["ARM64_4K_PAGES=n"]),
                        # It contradicts nothing by its name, and is no usual kernel.
                        ("KCONFIG=ARM64_64K_PAGES", ["ARM64_64K_PAGES"]),
                        ("KCONFIG='ARM64_64K_PAGES=n ARM64_VA_BITS_39=n'", []),
                        # The fragment has another value, and it is about something else.
                        ("KCONFIG=ARM64_SVE=y", [])):
        assert row.unusual(f"make prove ARCH=arm64 {words}") == kind
        assert arch.load("x86_64").unusual(f"make prove {words}") == []
    # A record has one name, however it was asked for.
    words = ["ARM64_4K_PAGES=n", "ARM64_16K_PAGES=y", "ARM64_VA_BITS_48=n", "ARM64_VA_BITS_47=y"]
    kinds = {tuple(row.unusual(f"make prove KCONFIG='{' '.join(order)}'"))
             for more in ([], ["CMA=y"], ["NR_CPUS=4", "ARM64_MTE=y"])
             for order in itertools.permutations([*words[:2], *more, *words[2:]])}
    assert kinds == {("ARM64_16K_PAGES", "ARM64_VA_BITS_47")}
    assert row.shares({"ARM64_16K_PAGES": "y"}) and not row.shares({"ARM64_64K_PAGES": "y"})
    assert row.room({"ARM64_64K_PAGES": "y"}) > 0 and row.room({"ARM64_64K_PAGES": "n"}) == 0


def test_an_old_kernel_is_told_of_the_compiler_of_this_machine(tmp_path: Path) -> None:
    """arm64's, for its device tree compiler; those of x86_64 are made as before."""
    def host(name: str, version: str) -> list[str]:
        source = Source(base.Base("0.1"), version, {}, "k", tmp_path)
        return [word for word in kconfig.make_command(source, arch.load(name), tmp_path)
                if word.startswith("HOST")]
    assert host("arm64", "4.18.0") == host("arm64", "4.4.155") == ["HOSTCC=gcc -fcommon"]
    assert host("arm64", "5.10.262") == host("x86_64", "4.4.155") == []


def test_an_older_version() -> None:
    for version, than in (("6.1.192", "6.11"), ("5.18-rc1", "6.11"), ("6.10", "6.11")):
        assert arch.older(version, than) and not arch.older(than, version)
    assert not arch.older("6.11", "6.11") and not arch.older("6.11.3", "6.11")


def words_of(row: arch.Arch, machine: Machine = Machine()) -> list[str]:
    return qemu.command(qemu.Guest(row, "tcg", Path("image"), Path("initrd"), "x", machine),
                        "console.log", "ktap.log")


def test_lines_that_a_machine_does_not_have_are_devices() -> None:
    row = arch.load("arm64")
    words = words_of(row, Machine(virtio_mem=256))
    at = words.index("-serial")
    assert words[at + 1] == "file:console.log" and "-serial" not in words[at + 1:]
    assert [word for word in words if word.startswith("pci-serial,")] == [
        "pci-serial,chardev=ktap", "pci-serial,chardev=line"]
    assert "file,id=ktap,path=ktap.log" in words
    firmware = dataclasses.replace(row, firmware="/some.fd")
    assert "-bios" not in words
    words = words_of(firmware, Machine(virtio_mem=256))
    assert words[words.index("-bios") + 1] == "/some.fd"
    append = words[words.index("-append") + 1]
    assert "console=ttyAMA0" in append and "lab.tty=ttyS0" in append


def test_a_machine_without_dimms_has_all_memory_from_the_start() -> None:
    row = dataclasses.replace(arch.load("x86_64"), dimms=False)
    words = words_of(row, Machine(nodes=(256, 512), dimms=(1024, 512)))
    assert words[words.index("-m") + 1] == "2304M"
    assert [word for word in words if word.startswith("memory-backend-ram,")] == [
        "memory-backend-ram,id=node0,size=1280M", "memory-backend-ram,id=node1,size=1024M"]
    assert not [word for word in words if word.startswith("pc-dimm")]
    # And nothing that could be ejected.
    machine = Machine(eject=256)
    assert words_of(row, machine) == words_of(row) and qemu.monitor_env(row, machine) == []


def test_a_feature_of_the_cpu_is_asked_for_where_there_is_such_a_thing() -> None:
    machine = Machine(cpu="+pdpe1gb")
    for row in ROWS:
        words = words_of(row, machine)
        assert words[words.index("-cpu") + 1] == row.cpu_tcg + (
            ",+pdpe1gb" if row.name == "x86_64" else "")


def test_what_goes_without_saying_is_not_said() -> None:
    assert [arch.tag(row.name) for row in (arch.load("x86_64"), arch.load("arm64"))] == ["", "-arm64"]
    assert summary.special("x86_64", False) == []
    assert summary.special("arm64", True) == ["arm64", "DEBUG=1"]


@pytest.mark.parametrize("name", [row for row in arch.names() if not arch.load(row).native])
def test_the_selftests_build_for_others(tree612: Path, name: str, tmp_path: Path) -> None:
    """riscv64, for one, has no exchange of a byte, and gcc makes a call of it."""
    compiler = arch.load(name).compiler
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not here")
    done = make("selftests", f"HARNESS={tree612}", f"ARCH={name}", f"DEST={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in tmp_path.iterdir() if os.access(path, os.X_OK)} \
        >= set(selftest.names())
