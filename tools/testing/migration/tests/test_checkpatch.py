# SPDX-License-Identifier: GPL-2.0
"""All C of the project is as the kernel's checkpatch and kernel-doc want it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Ahead, asked_for

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


@pytest.fixture(scope="module")
def said(request: pytest.FixtureRequest, tree612: Path) -> Iterator[Ahead[Path, str]]:
    """Of each file."""
    made = Ahead(lambda path: complaints(tree612, path),
                 asked_for(request, "test_it_is_clean", "path"))
    yield made
    made.close()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPO)))
def test_it_is_clean(path: Path, said: Ahead[Path, str]) -> None:
    assert said(path) == ""


def test_the_check_would_see_something(tree612: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.c"
    bad.write_text("int f( int a ){\n  return a;\n}\n")
    assert "ERROR" in complaints(tree612, bad)


DESCRIBED = [path for path in FILES if "/**\n" in path.read_text(encoding="utf-8")]


def kernel_doc(tree: Path, path: Path) -> str:
    """What kernel-doc, with all its warnings, says of a file."""
    done = subprocess.run(["perl", tree / "scripts/kernel-doc", "-none", "-Wall", path], text=True,
                          capture_output=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize("path", DESCRIBED, ids=lambda path: str(path.relative_to(REPO)))
def test_what_it_describes_it_describes_in_full(tree612: Path, path: Path) -> None:
    assert kernel_doc(tree612, path) == ""


def test_what_is_not_described_would_be_seen(tree612: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.h"
    bad.write_text("/**\n * struct a - one\n * @b: some\n */\nstruct a {\n\tint b, c;\n};\n")
    assert "'c' not described" in kernel_doc(tree612, bad)
