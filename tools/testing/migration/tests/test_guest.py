# SPDX-License-Identifier: GPL-2.0
"""The guest's file system."""

import gzip
import subprocess
from pathlib import Path

import pytest

from lab.guest import initramfs


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))


def program(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def listing(initrd: Path) -> str:
    return subprocess.run(["cpio", "-tv", "--quiet"], input=gzip.decompress(initrd.read_bytes()),
                          stdout=subprocess.PIPE, check=True).stdout.decode()


def test_it_has_what_init_needs(tmp_path: Path) -> None:
    names = listing(initramfs.initramfs({"one": program(tmp_path / "p", "#!/bin/sh\n")}))
    for name in ("init", "bin/busybox", "tests/one", "proc", "sys", "dev", "tmp"):
        assert any(line.split()[-1] == name for line in names.splitlines()), name
    init = next(line for line in names.splitlines() if line.endswith(" init"))
    assert init.startswith("-rwxr-xr-x") and "root" in init


def test_it_is_packed_once_for_the_same_content(tmp_path: Path) -> None:
    one = program(tmp_path / "p", "#!/bin/sh\n")
    first = initramfs.initramfs({"one": one})
    assert initramfs.initramfs({"one": one}) == first
    one.write_text("#!/bin/sh\ntrue\n")
    assert initramfs.initramfs({"one": one}) != first


def test_init_is_a_script_that_busybox_can_read() -> None:
    subprocess.run(["busybox", "sh", "-n", str(initramfs.INIT)], check=True)
