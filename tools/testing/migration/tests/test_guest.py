# SPDX-License-Identifier: GPL-2.0
"""The guest's file system."""

import dataclasses
import gzip
import io
import subprocess
from pathlib import Path

import pytest

from lab import arch
from lab.errors import LabError
from lab.guest import initramfs
from lab.kernel import apt
from lab.progress import Progress

ROW = arch.load()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))


def program(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def pack(programs: dict[str, Path], row: arch.Arch = ROW, bash: bool = False) -> Path:
    return initramfs.initramfs(programs, row, Progress(io.StringIO()), bash=bash)


def listing(initrd: Path) -> str:
    return subprocess.run(["cpio", "-tv", "--quiet"], input=gzip.decompress(initrd.read_bytes()),
                          stdout=subprocess.PIPE, check=True).stdout.decode()


def test_it_has_what_init_needs(tmp_path: Path) -> None:
    names = listing(pack({"one": program(tmp_path / "p", "#!/bin/sh\n")}))
    for name in ("init", "bin/busybox", "tests/one", "proc", "sys", "dev", "tmp"):
        assert any(line.split()[-1] == name for line in names.splitlines()), name
    init = next(line for line in names.splitlines() if line.endswith(" init"))
    assert init.startswith("-rwxr-xr-x") and "root" in init


def test_it_is_packed_once_for_the_same_content(tmp_path: Path) -> None:
    one = program(tmp_path / "p", "#!/bin/sh\n")
    first = pack({"one": one})
    assert pack({"one": one}) == first
    one.write_text("#!/bin/sh\ntrue\n")
    assert pack({"one": one}) != first


@pytest.mark.parametrize("folder", ["bin", "usr/bin"])
def test_the_programs_of_another_architecture_are_those_of_its_packages(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    asked = []

    def unpacked(package: str, row: arch.Arch, _progress: Progress) -> Path:
        asked.append((package, row.debian))
        files = tmp_path / "files" / package
        (files / folder).mkdir(parents=True, exist_ok=True)
        for name in ("busybox", "bash-static"):
            program(files / folder / name, f"{name} of {package}\n")
        return files

    monkeypatch.setattr(apt, "unpacked", unpacked)
    row = dataclasses.replace(ROW, machine_name="z80", debian="z80")
    initrd = pack({}, row, bash=True)
    assert asked == [("busybox-static", "z80"), ("bash-static", "z80")]
    packed = gzip.decompress(initrd.read_bytes())
    assert b"busybox of busybox-static\n" in packed and b"bash-static of bash-static\n" in packed


def test_a_program_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LabError, match="no busybox for the guest: apt install busybox-static"):
        pack({})


def test_init_is_a_script_that_busybox_can_read() -> None:
    subprocess.run(["busybox", "sh", "-n", str(initramfs.INIT)], check=True)
