#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0
"""Damages kernel images at random, and sees that each is read, or refused in one line.

    tests/fuzz_images.py [--minutes N] [--cases N] [--first N] [--whole] [--keep DIR]

Tiny kernels in every form that the audit of an image knows are damaged: bits turned, numbers made
large, parts cut out, doubled, moved, taken from another.  Half of the time it is the kernel that
is damaged before it is packed, for what is packed is checked by its checksum.  What comes of it has
to be an audit, or one line that says why there is none, in a few seconds and 1 GiB of memory.

A case is known by its number, which decides all of it: --first N --cases 1 makes that one again, if
zstd, lz4 and lzop are installed as they were.  One case in 8 is asked by all rules, with --whole
each.  With --keep, what broke is written there.  The exit status is 0 if nothing did.
"""

import argparse
import bz2
import lzma
import multiprocessing
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import kernels                                      # noqa: E402

from lab import decide, defect                      # noqa: E402
from lab.binary.code import Code                    # noqa: E402
from lab.binary.load import load                    # noqa: E402
from lab.errors import LabError                     # noqa: E402

KNOWN = [one for one in map(defect.load, defect.names()) if one.audit]
# Seconds of a processor for one tiny image, and bytes of memory for all that reads it.
SECONDS, MEMORY = 10, 1 << 30
# After so many cases a process is replaced: what one of them leaves behind is not the next's.
BATCH = 500
# So many cases have all done to them that the audit does.
WHOLE = 8
LAYOUTS = ("4.4", "4.9", "4.9 percpu", "4.20", "6.2", "6.4", "6.4 percpu", "6.18", "7.3")


@dataclass(frozen=True)
class Packed:
    """A bzImage that a program packs, as the kernel's build does; as it is where there is none."""

    program: str
    options: str

    def __call__(self, data: bytes) -> bytes:
        if not shutil.which(self.program):
            return kernels.bzimage(data)
        done = subprocess.run([self.program, self.options], input=data, stdout=subprocess.PIPE,
                              check=True)
        return kernels.bzimage(done.stdout + struct.pack("<I", len(data)))


INNER: tuple[Callable[[], bytes], ...] = (
    *(partial(kernels.vmlinux, layout) for layout in LAYOUTS),
    *(partial(kernels.raw_image, arch) for arch in ("arm64", "riscv64")))
OUTER: tuple[Callable[[bytes], bytes], ...] = (
    bytes, kernels.packed, kernels.deb, kernels.rpm,
    lambda data: kernels.bzimage(kernels.packed(data)),
    lambda data: kernels.bzimage(lzma.compress(data) + struct.pack("<I", len(data))),
    lambda data: kernels.bzimage(bz2.compress(data) + struct.pack("<I", len(data))),
    lambda data: kernels.bzimage(lzma.compress(data, lzma.FORMAT_ALONE)
                                 + struct.pack("<I", len(data))),
    lambda data: kernels.zboot(kernels.packed(data)),
    lambda data: kernels.android(kernels.packed(data), 0),
    lambda data: kernels.android(data, 4),
    lambda data: kernels.unified(kernels.bzimage(kernels.packed(data))),
    Packed("zstd", "-cq"), Packed("lz4", "-lcq"), Packed("lz4", "-cq"), Packed("lzop", "-cq"))
NUMBERS = (0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff,
           1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)


def damaged(data: bytes, chance: random.Random, other: Callable[[], bytes]) -> bytes:
    """`data`, with some damage; most of it near the beginning, where the headers are."""
    held = bytearray(data)
    for _turn in range(chance.choice((1, 1, 2, 4, 16))):
        if not held:
            break
        near = chance.random() < .5
        at = chance.randrange(min(len(held), 512) if near else len(held))
        size = chance.choice((1, 2, 4, 8, 64, 4096, len(held) // 3))
        part = held[at:at + size]
        match chance.randrange(8):
            case 0:
                held[at] ^= 1 << chance.randrange(8)
            case 1 | 2:
                width = chance.choice((2, 4, 8))
                number = chance.choice(NUMBERS) + chance.randrange(-2, 3)
                value = (number & (1 << 8 * width) - 1).to_bytes(width, "little")
                held[at & ~1:(at & ~1) + width] = value[::chance.choice((1, -1))]
            case 3:
                del held[at:at + size]
            case 4:
                held[at:at] = part * chance.choice((1, 2, 50))
            case 5:
                held[at:at + size] = bytes(len(part))
            case 6:
                held[at:at + size] = chance.randbytes(len(part))
            case 7:
                donor = other()
                start = chance.randrange(len(donor))
                held[at:at + size] = donor[start:start + size]
    return bytes(held[:64 << 20])


def case(number: int) -> bytes:
    """The image of a case."""
    chance = random.Random(number)
    kernel, form = chance.choice(INNER)(), chance.choice(OUTER)

    def other() -> bytes:
        return chance.choice(OUTER)(chance.choice(INNER)())
    if chance.random() < .5:
        kernel = damaged(kernel, chance, other)
        if chance.random() < .8:
            return form(kernel)
    return damaged(form(kernel), chance, other)


def read(path: Path, whole: bool) -> str:
    """What an image comes to, in a word; to ask all rules of its code takes as long as the rest."""
    try:
        kernel = load(path)
        if not whole:
            return "read"
        code = Code(kernel)
        code.check()
        for one in KNOWN:
            decide.decide(code, one)
        return "read"
    except LabError as err:
        text = str(err)
        if "\n" in text or not text.isprintable() or len(text) > 400:
            raise ValueError(f"not one clear line: {text!r}") from err
        return "refused"


def work(first: int, count: int, folder: Path, whole: bool, tell: Connection) -> None:
    """Cases one after the other, in a process that has no more memory than it may have."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    path = folder / f"image-{first}"
    for number in range(first, first + count):
        path.write_bytes(case(number))
        tell.send((number, "begun", ""))
        before = time.process_time()
        try:
            said, why = read(path, whole or number % WHOLE == 0), ""
        # Whatever it is: that is what is looked for.
        except BaseException:
            said, why = "broke", traceback.format_exc()
        spent = time.process_time() - before
        if said != "broke" and spent > SECONDS:
            said, why = "broke", f"took {spent:.1f} s\n"
        tell.send((number, said, why))
    path.unlink()


def batch(first: int, count: int, folder: Path, whole: bool = False) -> list[tuple[int, str, str]]:
    """What came of some cases; of one in which the process died, that it did."""
    found: list[tuple[int, str, str]] = []
    while count > 0:
        here, there = multiprocessing.Pipe(False)
        process = multiprocessing.Process(target=work, args=(first, count, folder, whole, there))
        process.start()
        there.close()
        last = (first, "begun", "")
        try:
            while True:
                if not here.poll(SECONDS * 20):
                    process.kill()
                    raise EOFError
                last = here.recv()
                if last[1] != "begun":
                    found.append(last)
        except EOFError:
            process.join()
        if last[1] == "begun":
            found.append((last[0], "broke", f"the process ended with {process.exitcode}\n"))
        count -= last[0] + 1 - first
        first = last[0] + 1
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1, help="how long; default: 1")
    parser.add_argument("--cases", type=int, help="so many, however long it takes")
    parser.add_argument("--whole", action="store_true", help="ask all rules of each")
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--keep", type=Path, help="where to write what broke")
    args = parser.parse_args()
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        return run(args, Path(folder))


def run(args: argparse.Namespace, folder: Path) -> int:
    """Cases until the time is over, or as many as are wanted; 1 if something broke."""
    end = time.monotonic() + args.minutes * 60
    first, counts, broken = args.first, {"read": 0, "refused": 0, "broke": 0}, set()
    while True:
        count = BATCH if args.cases is None else min(BATCH, args.first + args.cases - first)
        for number, said, why in batch(first, count, folder, args.whole):
            counts[said] += 1
            if said == "broke":
                # Where it broke is what tells one from another.
                where = "".join(line for line in why.splitlines(True)[-3:])
                if where not in broken:
                    broken.add(where)
                    print(f"case {number}:\n{why}", flush=True)
                    if args.keep:
                        (args.keep / f"case-{number}").write_bytes(case(number))
        first += count
        if time.monotonic() >= end if args.cases is None else first >= args.first + args.cases:
            break
        print(f"{sum(counts.values())} cases: {counts}", file=sys.stderr, flush=True)
    print(f"{sum(counts.values())} cases: " + ", ".join(
        f"{number} {said}" for said, number in counts.items()))
    return counts["broke"] > 0


if __name__ == "__main__":
    sys.exit(main())
