# SPDX-License-Identifier: GPL-2.0
"""Damaged images are read, or refused in one line: a few of them always, for long with FULL=1."""

import re
import shutil
import subprocess
import time
from pathlib import Path

import fuzz_images
import kernels
import pytest
from conftest import FULL

from lab.binary.load import load
from lab.errors import LabError


def fuzz(*words: str) -> str:
    done = subprocess.run([Path(fuzz_images.__file__), "--whole", *words], text=True, check=False,
                          capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(FULL, reason="the long one has more")
def test_some_damaged_images() -> None:
    found = re.fullmatch(r"80 cases: (\d+) read, (\d+) refused, 0 broke\n", fuzz("--cases", "80"))
    assert found and int(found[1]) > 1 and int(found[2]) > 1


@pytest.mark.skipif(not FULL, reason="takes ten minutes: only with FULL=1")
def test_many_damaged_images() -> None:
    """Other ones each time: what broke is told by its number, which makes it again."""
    assert ", 0 broke\n" in fuzz("--minutes", "10", "--first", str(int(time.time())))


@pytest.mark.parametrize("program", ("zstd", "lz4", "lzop"))
def test_what_pythons_library_does_not_unpack_is_damaged_too(program: str, tmp_path: Path) -> None:
    forms = [form for form in fuzz_images.OUTER if getattr(form, "program", "") == program]
    assert forms
    # Without it a form is as it is, and tests nothing.
    assert shutil.which(program), f"{program} is missing: apt install {program}"
    bare = fuzz_images.INNER[0]()
    for form in forms:
        packed = form(bare)
        assert packed != kernels.bzimage(bare)
        (tmp_path / "image").write_bytes(packed)
        assert load(tmp_path / "image").release == "6.1.0-9-test"


def test_what_breaks_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also an error of two lines."""
    def broken(_path: Path) -> None:
        raise LabError("two\nlines")
    monkeypatch.setattr(fuzz_images, "load", broken)
    assert [said for _number, said, _why in fuzz_images.batch(0, 2, tmp_path)] == ["broke"] * 2
