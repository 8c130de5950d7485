# SPDX-License-Identifier: GPL-2.0
"""adjust_range_if_pmd_sharing_possible() does what it must, for every alignment.

The function's own text, out of the queue's patches and out of trees, is compiled in user space
and compared with a definition that goes PUD by PUD (adjust_range_main.c).
"""

import functools
import re
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import debian_files
from test_queue import patched, series

from lab.paths import HOME, REPO

NAME = "adjust_range_if_pmd_sharing_possible"
# PUD_SHIFT, and how many bits an address has there: x86 and riscv64, and arm64 with pages of 4 KiB;
# of 16 KiB; of 64 KiB, where nothing is shared.  64: as far as the type goes.
WORLDS = {30: (64, 39, 47, 48, 52, 56), 36: (47, 48, 52), 42: (64, 42, 48, 52)}
BASES = sorted(path.name for path in (REPO / "queue").iterdir()
               if path.is_dir() and any(f"\n+void {NAME}(" in patch.read_text(encoding="utf-8")
                                        for patch in path.glob("*.patch")))

# As it was first proposed: from the start of the range in steps of a PUD, and each PUD on the way
# widens what it can.  Where the start is inside a PUD, the steps can jump over the last one; and at
# the end of the address space they never end.
FIRST_PROPOSAL = f"""\
void {NAME}(struct vm_area_struct *vma, unsigned long *start, unsigned long *end)
{{
	unsigned long at, low;

	if (!(vma->vm_flags & VM_MAYSHARE))
		return;
	for (at = *start; at < *end; at += PUD_SIZE) {{
		low = at & PUD_MASK;
		if (!range_in_vma(vma, low, low + PUD_SIZE))
			continue;
		*start = low < *start ? low : *start;
		*end = low + PUD_SIZE > *end ? low + PUD_SIZE : *end;
	}}
}}
"""


def function(source: str) -> str:
    """The definition that does something; the one for kernels without sharing is empty."""
    found = re.findall(rf"(?ms)^void {NAME}\([^;{{]*\)\n\{{\n.*?^\}}\n", source)
    real = [text for text in found if "VM_MAYSHARE" in text]
    assert len(real) == 1, f"{len(real)} of {len(found)} definitions are the real one"
    return str(real[0])


def added(base: str) -> str:
    """All lines that the patches of queue/<base> add."""
    folder = REPO / "queue" / base
    return "".join(line[1:] for name in series(folder)
                   for line in (folder / name).read_text(encoding="utf-8").splitlines(True)
                   if line.startswith("+") and not line.startswith("+++"))


World = tuple[int, list[str]]


def worlds() -> list[World]:
    """PUD_SHIFT, and arguments of the program."""
    # Every alignment in a world with PUDs of four pages, then random ones.
    found: list[World] = [(2, [])]
    for shift, widths in WORLDS.items():
        for bits in widths:
            found.append((shift, ["1", "200000", str(bits)]))
            if bits == 64:
                found.append((shift, ["20181005", "1000000", str(bits)]))
    return found


def complaints(text: str, folder: Path, *options: str, some: Sequence[World] = ()) -> str:
    """What is wrong with the function `text`; nothing where it is right, in `some` worlds or all.

    -DANYWHERE: also for ranges that are not inside the VMA.  No caller has one, and what upstream's
    own does with them is not settled.
    """
    (folder / "adjust_range.inc").write_text(text, encoding="utf-8")
    some = some or worlds()
    said = []

    def build(shift: int) -> None:
        words: list[str | Path] = [
            "gcc", "-O2", "-Wall", "-Werror", "-fsanitize=undefined", "-fno-sanitize-recover=all",
            *options, f"-DPUD_SHIFT={shift}", f"-I{folder}", "-o",
            folder / f"adjust_range-{shift}",
            HOME / "tests" / "adjust_range_main.c"]
        done = subprocess.run(words, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr

    def run(world: World) -> "subprocess.CompletedProcess[str]":
        program = folder / f"adjust_range-{world[0]}"
        return subprocess.run([program, *world[1]], text=True, capture_output=True, check=False,
                              timeout=300)

    # Each has one thread.
    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(build, {shift for shift, _arguments in some}))
        ran = list(pool.map(run, some))
    for done in ran:
        cases = re.search(r"^(\d+) cases, (\d+) wrong$", done.stdout, re.M)
        assert cases, done.stdout + done.stderr
        assert int(cases[1]) > 25_000
        assert (done.returncode != 0) == (cases[2] != "0")
        if cases[2] != "0":
            said.append(done.stdout)
    return "\n".join(said)


def test_the_queues_own(tmp_path: Path) -> None:
    assert len(BASES) >= 4
    [text] = {function(added(base)) for base in BASES}
    assert complaints(text, tmp_path, "-DANYWHERE") == ""


@pytest.mark.parametrize("base", BASES)
def test_a_patched_tree_has_it(base: str, tmp_path: Path) -> None:
    source = (patched(base, tmp_path) / "mm" / "hugetlb.c").read_text(encoding="utf-8")
    assert function(source) == function(added(base))


@functools.cache
def released(text: str) -> str:
    """What is wrong with a function that several kernels may have."""
    with tempfile.TemporaryDirectory(prefix="lab-adjust-range-") as folder:
        return complaints(text, Path(folder))


@pytest.mark.parametrize("version", ["5.10", "6.1", "6.12"])
def test_debians(version: str) -> None:
    source = (debian_files(version) / "mm/hugetlb.c").read_text(encoding="utf-8")
    assert released(function(source)) == ""


def test_the_first_proposal_is_wrong(tmp_path: Path) -> None:
    said = complaints(FIRST_PROPOSAL, tmp_path, "-DNOT_AT_END")
    # A PUD is four pages: a range from the last page of one to the first of the next.
    assert "vma 0-0x8 shared range 0x1-0x5: 0-0x5, not 0-0x8" in said
    # And in all others, but where there is no more than one PUD.
    assert said.count(" cases, ") == len(worlds()) - 1


@pytest.mark.parametrize("old, new", [
    ("*end = round_up(*end, PUD_SIZE);", "{ }"),
    ("*start = round_down(*start, PUD_SIZE);", "{ }"),
    ("if (*end < last)", "if (*end)"),
    ("if (*start > first)", "if (*end)"),
    (" || *start >= last", ""),
    ("*end <= first || ", ""),
    ("!(vma->vm_flags & VM_MAYSHARE) || ", ""),
    (" || last <= vma->vm_start", ""),
    ("round_up(vma->vm_start, PUD_SIZE)", "round_down(vma->vm_start, PUD_SIZE)"),
    ("round_down(vma->vm_end, PUD_SIZE)", "round_up(vma->vm_end, PUD_SIZE)"),
])
@pytest.mark.slow
def test_each_part_of_it_is_needed(old: str, new: str, tmp_path: Path) -> None:
    text = function(added("4.14"))
    assert text.count(old) == 1
    # One world is enough, and most are seen in the first.
    assert any(complaints(text.replace(old, new), tmp_path, "-DANYWHERE", some=[world])
               for world in worlds())
