# SPDX-License-Identifier: GPL-2.0
"""All C of the project is as the kernel's checkpatch wants it, with --strict."""

import subprocess
from pathlib import Path

import pytest

from lab.paths import REPO

FILES = sorted(path for folder in ("tools", "mm", "include", "lib")
               for path in (REPO / folder).rglob("*.[ch]"))


def complaints(tree: Path, path: Path) -> str:
    # Kernel code of ours goes into kernels of ten years as it is, and has to ask which it is in.
    but = ["--ignore", "LINUX_VERSION_CODE"] if REPO / "lib" in path.parents else []
    done = subprocess.run(["perl", tree / "scripts/checkpatch.pl", "--no-tree", "--strict", *but,
                           "--terse", "--no-summary", "--file", path], text=True,
                          capture_output=True, check=False)
    return done.stdout + done.stderr


def test_there_is_something_to_check() -> None:
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPO)))
def test_it_is_clean(tree612: Path, path: Path) -> None:
    assert complaints(tree612, path) == ""


def test_the_check_would_see_something(tree612: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.c"
    bad.write_text("int f( int a ){\n  return a;\n}\n")
    assert "ERROR" in complaints(tree612, bad)
