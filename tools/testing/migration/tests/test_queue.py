# SPDX-License-Identifier: GPL-2.0
"""queue/: what the kernel's stable rules ask of a patch, and that each series fits its tree.

Released trees from before the fix are not on every machine: TREES=/dir names a folder that has them
as /dir/4.14 and so on.  What needs one is skipped where it is not there.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import NO_TREES, outside_make
from trees import apply, some

from lab.base import load
from lab.paths import REPO

# Beside them queue/{tests,unmapped,ltp}/: see test_testseries.py, test_unmapped.py, test_ltp.py.
FOLDERS = sorted(path for path in (REPO / "queue").iterdir()
                 if path.is_dir() and path.name not in ("tests", "unmapped", "ltp"))
PATCHES = [path for folder in FOLDERS for path in sorted(folder.glob("*.patch"))]


def series(folder: Path) -> list[str]:
    """The patches that a series file names, in its order."""
    text = (folder / "series").read_text(encoding="utf-8")
    return [line.partition("#")[0].strip() for line in text.splitlines()]


def for_stable(patch: Path) -> bool:
    """What is only in series.flush goes to mainline: it makes better what is not wrong."""
    form = patch.parent / "series.flush"
    return not form.exists() or patch.name in series(patch.parent)


def parts(patch: Path) -> tuple[str, str, str]:
    """Header, changelog and diff of a patch in `git am` form."""
    text = patch.read_text(encoding="utf-8")
    head, rest = text.split("\n\n", 1)
    log, diff = re.split(r"(?m)^(?=diff --git )", rest, maxsplit=1)
    return head, log, diff


def released_tree(base: str) -> Path:
    """The tree of `base` below $TREES; skips the test where there is none."""
    top = os.environ.get("TREES")
    if not top:
        pytest.skip(f"no trees from before the fix: {NO_TREES}")
    tree = Path(top) / base
    if not (tree / "Makefile").exists():
        pytest.skip(f"no tree in {tree}: {NO_TREES}")
    return tree


def patched(base: str, folder: Path) -> Path:
    """Those files of the released tree that its series touches, patched one by one without fuzz."""
    tree, queue = released_tree(base), REPO / "queue" / base
    names = {name for patch in series(queue)
             for name in re.findall(r"(?m)^--- a/(.+)$", parts(queue / patch)[2])}
    some(tree, folder, names)
    for patch in series(queue):
        said = apply(folder, "--verbose", queue / patch)
        assert "offset" not in said, f"{patch}: {said}"
    return folder


def test_there_are_series() -> None:
    assert {"4.4", "4.9", "4.14", "4.18"} <= {folder.name for folder in FOLDERS}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_series_names_just_what_is_there(folder: Path) -> None:
    names = series(folder)
    forms = sorted(path for path in folder.glob("series.*"))
    # Numbers are given once. Those of patches that are only in another form lie between those of a
    # series that has grown since.
    others = sorted({name for form in forms for name in form.read_text().split()} - set(names))
    assert sorted(path.name for path in folder.iterdir()) == \
        sorted([*names, *others, "series", *(form.name for form in forms)])
    assert sorted(name[:5] for name in [*names, *others]) == \
        [f"{number:04}-" for number in range(1, len(names) + len(others) + 1)]
    assert names == sorted(names)
    for form in forms:
        listed = form.read_text().split()
        assert len(listed) == len(set(listed)) and set(listed) != set(names)


@pytest.mark.parametrize("patch", PATCHES, ids=lambda path: f"{path.parent.name}/{path.name[:4]}")
class TestPatch:
    """One patch."""

    def test_it_is_a_mail(self, patch: Path) -> None:
        head, log, diff = parts(patch)
        assert re.match(r"From [0-9a-f]{40} Mon Sep 17 00:00:00 2001\nFrom: \S.* <\S+@\S+>\n", head)
        assert re.search(r"(?m)^Date: \w{3}, ", head)
        assert re.search(r"(?m)^Subject: \[PATCH\] \S", head)
        assert len(log.split()) > 20
        assert diff.endswith("\n")

    def test_it_is_short(self, patch: Path) -> None:
        """Documentation/process/stable-kernel-rules.rst: 100 lines, with context."""
        assert len(parts(patch)[2].splitlines()) <= (100 if for_stable(patch) else 150)

    def test_nobody_signed_off(self, patch: Path) -> None:
        assert not re.search(r"(?im)^\s*(signed-off|acked|reviewed|tested|co-developed)-by:",
                             patch.read_text(encoding="utf-8"))

    def test_it_says_where_it_comes_from(self, patch: Path) -> None:
        """`commit <hash> upstream.` is the first line or nowhere; what differs is in brackets."""
        log = parts(patch)[1]
        claims = [line for line in log.splitlines() if re.search(r"\bupstream\.\s*$", line, re.I)
                  and re.search(r"\bcommit\b", line, re.I)]
        if claims:
            assert claims == [log.splitlines()[0]]
            assert re.fullmatch(r"commit [0-9a-f]{40} upstream\.", claims[0])
        assert re.search(r"(?ms)^\[ .+ \]$", log)

    def test_it_says_what_it_mends_and_for_whom(self, patch: Path) -> None:
        log = parts(patch)[1]
        if not for_stable(patch):
            assert "stable@" not in log
            return
        # What prepares for a fix fixes nothing by itself.
        prepares = re.search(r"No change in what|Nothing calls it yet", log)
        assert bool(re.search(r'(?m)^Fixes: [0-9a-f]{12,40} \(".+"\)$', log)) != bool(prepares)
        assert re.search(r"(?m)^Cc: stable@vger\.kernel\.org # \d+\.\d+", log)

    def test_its_lines_are_not_too_long(self, patch: Path) -> None:
        for line in parts(patch)[1].splitlines():
            assert len(line) <= 75 or line.startswith(("Fixes: ", "Link: "))
        # checkpatch of 5.7 and later lets code go to 100.
        old = tuple(map(int, patch.parent.name.split(".")[:2])) < (6, 1)
        for line in parts(patch)[2].splitlines():
            if line.startswith("+"):
                assert len(line[1:].expandtabs(8)) <= (80 if old else 100), line


@pytest.mark.parametrize("base", [folder.name for folder in FOLDERS])
def test_a_series_fits_the_released_tree(base: str, tmp_path: Path) -> None:
    """Without fuzz, and without even an offset: these are the lines that it was made for."""
    patched(base, tmp_path)


def test_what_the_oldest_touches_compiles(tmp_path: Path) -> None:
    """2.6.34, of which a compiler of today does not make a whole kernel."""
    tree = released_tree("2.6.34")
    copy, out = tmp_path / "linux", tmp_path / "out"
    shutil.copytree(tree, copy, symlinks=True)
    out.mkdir()
    for patch in series(REPO / "queue" / "2.6.34"):
        apply(copy, REPO / "queue" / "2.6.34" / patch)
    make = ["make", "-C", copy, f"O={out}", "ARCH=x86", "HOSTCFLAGS=-O2 -fcommon -w",
            f"KCFLAGS={load('2.6.34').cflags} -Werror=implicit-function-declaration"]
    for targets in (["defconfig"], ["mm/rmap.o", "fs/exec.o"]):
        done = subprocess.run([*make, *targets], text=True, env=outside_make(),
                              stdin=subprocess.DEVNULL, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (out / "mm" / "rmap.o").stat().st_size > 0
    own = [line for line in done.stderr.splitlines()
           if re.search(r"(mm/rmap|fs/exec)\.c:\d+:\d+: (warning|error)", line)]
    assert own == []
