#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0
"""Compares the audit of images with that of the sources that they were made from.

    LAB_CACHE=... tests/binary_truth.py [--trees DIR] [--debian DIR] [--pairs DIR] [--work DIR]
                                        [--mutants] [--rst]

The images are those of the lab's cache.  Each says which base it was made from and how: "as it is",
by so many patches of a queue, or by a rule.  Patches are taken from the repository's history.  For
bases of Debian's they are those whose diff has the hash that the image has on record: an image that
was made in another clone is left out.  For others they are those of when it was made.  A base that Debian has no source of is looked for in
--trees: DIR/4.14 and so on.  With --debian, also images of Debian's packages in that folder,
vmlinuz-6.1.0-56-amd64, with config-6.1.0-56-amd64 beside it, as debian_images.py fetches them:
their source is the base as it is, if it is of that version.  With --pairs, also those of others:
each folder DIR/NAME has an `image`, the tree `source` that it was made from, and its `config`.

With --break, each call that a form of `protected` asks for is taken out of the code, all those of
one function that would do at a time, and the form must not fit any more: that is what a mutant does.
Where it asks for one call before another, two of these also change places, the nearest ones: then a
lock is taken behind the call that needs it, or released before that.

Images of mutants that the cache has are looked at as well, and no others with --mutants.  That
fails if all rows that MUTANTS names of one are protected, if it does not know one, and if none
could be looked at.  Of which it names no row, no row is about.

It writes a table of how often each rule was right, unknown and wrong, one of how many images there
were of which release and architecture, and the same two of --pairs.  An image that was made
without what the defect is in is "not affected" whatever its source says; that counts as right
only if its .config says so, which the audit of an image does not read.  The exit status is 0 if
nothing was wrong.
"""

import argparse
import dataclasses
import fnmatch
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lab import base as bases, decide, defect as defects     # noqa: E402
from lab.binary import code, image, load, rules       # noqa: E402
from lab.defect import Defect                         # noqa: E402
from lab.errors import LabError, NoSource             # noqa: E402
from lab.finding import NOT_AFFECTED, PROTECTED, UNKNOWN      # noqa: E402
from lab.kernel import apt, kconfig, source, spatch, variant      # noqa: E402
from lab.kernel.source import kernel_version          # noqa: E402
from lab.paths import REPO, cache_dir                 # noqa: E402
from lab.progress import Progress                     # noqa: E402
from lab.verbs import audit                           # noqa: E402

KNOWN = [one for one in map(defects.load, defects.names()) if one.audit]
RIGHT, WITHOUT, BLIND, UNTOLD, WRONG = "right", "made without", "unknown", "source unknown", "wrong"
COLUMNS = (RIGHT, WITHOUT, BLIND, UNTOLD, WRONG)
# By the size of what they take the place of; those of x86_64 are of one byte.
_NOPS = {("arm64", 4): b"\x1f\x20\x03\xd5", ("riscv64", 4): b"\x13\0\0\0",
         ("riscv64", 2): b"\x01\0"}
# Of each mutant the rows that it may be seen in: one of them must not be protected any more.  "" is
# what no row is about: the audit asks whether a fix is there, and not whether all of it is right.
MUTANTS = {
    "batch-not-flushed": "",
    "continue-for-break": "",
    "demoted-not-flushed": "",
    "entry-after-flush": "",
    "file-lock-taken-again": "",
    "flush-leaves-cpus-out": "",
    "flush-one-page": "",
    "hole-zeroed-under-file-lock": "hugetlb-punch-poison",
    "join-without-table-lock": "",
    "kvm-not-told": "pmd-share-notifier",
    "kvm-of-one-sharer-told": "pmd-share-migrate pmd-share-notifier",
    "kvm-told-of-one-page": "pmd-share-notifier",
    "mapcount-dropped-for-every-sharer": "",
    "migrated-not-flushed": "",
    "mprotect-flushes-own-range": "pmd-share-flush",
    "moved-not-flushed": "pmd-share-flush",
    "no-cache-flush": "",
    "no-invalidate-before-copy": "",
    "no-tlb-flush": "pmd-share-migrate",
    "no-unshare": "pmd-share-migrate",
    "no-unshare-to-migrate": "pmd-share-migrate",
    "notifier-range-not-widened": "pmd-share-notifier",
    "pinned-page-migrated": "",
    "punch-not-flushed": "",
    "range-beyond-vma": "",
    "restored-for-one": "pmd-share-walkers",
    "seed-loop": "pmd-share-range",
    "sharers-asked-early": "",
    "sharers-flush-nothing": "pmd-share-migrate",
    "sharers-not-flushed": "pmd-share-migrate",
    "sharers-not-told": "pmd-share-notifier",
    # The rows of these have no form of protected.
    "fork-copies-to-shared": "",
    "size-not-looked-at": "",
    "truncation-does-not-wait": "",
    "uffd-size-not-looked-at": "",
    "start-cannot-sleep": "",
    "start-without-end": "pmd-share-notifier",
    "table-ref-dropped-twice": "",
    "table-ref-not-dropped": "pmd-share-count",
    "unshared-range-not-flushed": "pmd-share-flush",
    "uses-changed-address": "",
    "walk-stops-after-unshare": "",
    "widens-private-vma": "",
    "zap-flushes-own-range": "pmd-share-flush",
}
_MUTANT = re.compile(r", and mutants/([\w-]+)")
_ORDER = re.compile(r"\S+ calls (\S+) (?:then|before|held at|kept to) (\S+)(?: by (\S+))?.*")
_HOW = re.compile(r"queue/([\d.]+)(?:/(series[.\w]*))? \((.*)\)")


@dataclass(frozen=True)
class Made:
    """An image, and the source that it was made from."""

    image: Path
    config: str
    what: str                   # in words
    tree: Path                  # the files of it that the audit reads
    debian: bool = False        # the image tells which version it was made from
    other: bool = False         # it is one of --pairs


def git(*words: str) -> str:
    return subprocess.run(["git", "-C", str(REPO), *words], capture_output=True, text=True,
                          check=False).stdout


def series(commit: str, base: str, name: str) -> list[str]:
    lines = git("show", f"{commit}:queue/{base}/{name}").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def history(base: str, when: float) -> list[str]:
    """The commits that changed a queue, the last before `when` first, then those after it."""
    before, after = (git("log", "--format=%H", f"--{side}=@{int(when) + 60}", "--",
                         f"queue/{base}").split() for side in ("before", "after"))
    return before + after[::-1]


def patches(how: str, when: float) -> Iterator[list[str]]:
    """The patches that may make a variant, the likeliest first."""
    how = how.split(", and amplifier.cocci")[0]     # it makes a race wider, and takes nothing away
    if how == "as it is":
        yield []
    match = _HOW.fullmatch(how)
    if not match:
        return
    base, name, said = match[1], match[2] or "series", match[3]
    part = re.fullmatch(r"patches 1 to (\d+)", said)
    count = re.fullmatch(r"(?:without (\d+) of its )?(\d+) patch(?:es)?", said)
    for commit in history(base, when):
        names = series(commit, base, name)
        if part:
            names = names[:int(part[1])]
        elif not count or len(names) != int(count[2]):
            continue
        elif count[1] and (left := without(commit, names, int(count[1]))) is None:
            return
        elif count[1]:
            names = left or []
        yield [git("show", f"{commit}:queue/{base}/{one}") for one in names]


class Diffs:
    """Finds the patches that an image was made with."""

    def __init__(self) -> None:
        self._sources: dict[str, source.Source] = {}
        self._hashes: dict[tuple[str, ...], str] = {}

    def of(self, said: dict[str, str], when: float) -> list[str]:
        """Those of an image whose identity is `said`.  LabError where the history has none."""
        told = bases.load(said["base"]).package is not None and "amplifier" not in said["how"]
        for found in patches(said["how"], when):
            if not found or not told or self._hash(said["base"], found) == said["diff_sha256"]:
                return found
        raise LabError("its patches are not in the history")

    def _hash(self, base: str, texts: Sequence[str]) -> str:
        """That of the diff that patches make; "" where they do not apply."""
        key = (base, *texts)
        if key not in self._hashes:
            if base not in self._sources:
                self._sources[base] = source.from_base(bases.load(base), Progress(sys.stderr))
            with tempfile.TemporaryDirectory() as folder:
                files = [Path(folder, f"{number:04}.patch") for number in range(len(texts))]
                for file, text in zip(files, texts):
                    file.write_text(text, encoding="utf-8")
                try:
                    diff = variant.queue_diff(self._sources[base], files)
                except LabError:
                    diff = ""
            self._hashes[key] = diff and hashlib.sha256(
                diff.encode("utf-8", "surrogateescape")).hexdigest()
        return self._hashes[key]


def without(commit: str, names: list[str], less: int) -> list[str] | None:
    """A queue without the patches that a defect of that time leaves out; None for several."""
    found = set()
    for path in git("ls-tree", "--name-only", "-r", commit,
                    "tools/testing/migration/defects").split():
        match = re.search(r'(?m)^without = \[([^]]*)\]', git("show", f"{commit}:{path}")) \
            if path.endswith("defect.toml") else None
        if match:
            out = re.findall(r'"([^"]+)"', match[1])
            left = tuple(name for name in names if not any(one in name for one in out))
            if len(names) - len(left) == less:
                found.add(left)
    return list(found.pop()) if len(found) == 1 else None


def reverted(how: str, places: str, tree: Path) -> Defect | None:
    """The defect whose rule took its protection out of an image's source, a base in `tree`."""
    if not re.match(r"(?:revert|control)\.cocci", how):
        return None
    changed = re.findall(r"(\S+):(\d+) (\w+)", places)
    fits = [one for one in KNOWN if one.revert and all(
        name in {name for place in one.revert.places for name in place.split("|")}
        # What it took out stood there.
        and re.search(one.revert.removes, (tree / file).read_text(encoding="utf-8", errors="replace")
                      .splitlines()[int(line) - 1])
        for file, line, name in changed)]
    return fits[0] if len(fits) == 1 else None


class Sources:
    """Trees of which only what the audit reads is kept."""

    def __init__(self, work: Path, trees: Path | None) -> None:
        self._work, self._trees = work, trees
        self._files = sorted({file for one in KNOWN if one.audit for file in one.audit.files}
                             | {file for one in KNOWN if one.revert for file in one.revert.files}
                             | {"Makefile", *map(str, kconfig.KCONFIGS)})
        self._found: dict[Path, dict[str, str]] = {}
        self._packages: dict[str, tuple[Path, str]] = {}

    def pristine(self, base: str) -> Path:
        """The tree of a base.  NoSource where there is none."""
        row = bases.load(base)
        if row.package is None:
            if self._trees is None or not (self._trees / base).is_dir():
                raise NoSource(f"no tree of {base}: name a folder that has one with --trees")
            return self._trees / base
        if base not in self._packages:
            self._packages[base] = apt.source_package(row, Progress(sys.stderr))
        tarball, version = self._packages[base]
        tree = self._work / f"pristine-{base}-{version}"
        if not tree.is_dir():
            new = Path(tempfile.mkdtemp(dir=self._work))
            with tarfile.open(tarball) as packed:
                for member in packed:
                    member.name = member.name.partition("/")[2]
                    if member.isfile() and re.match(
                            r"(?:mm|fs|include|arch/\w+/(?:mm|include)|lib|kernel)/|Makefile$|"
                            r"(?:.*/)?Kconfig$", member.name):
                        packed.extract(member, new)
            new.rename(tree)
        return tree

    def made(self, base: str, diffs: Sequence[str], revert: Defect | None) -> Path:
        """A base with patches, or without a protection.  LabError where a patch does not apply."""
        key = hashlib.sha256("\0".join((base, *diffs, revert.name if revert else "")).encode())
        tree = self._work / key.hexdigest()[:12]
        if tree.is_dir():
            return tree
        pristine, new = self.pristine(base), Path(tempfile.mkdtemp(dir=self._work))
        touched = {name for one in diffs for name in re.findall(r"(?m)^(?:---|\+\+\+) [ab]/(\S+)",
                                                                one)}
        for name in {*self._files, *touched}:
            if (pristine / name).is_file():
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(pristine / name, new / name)
        for one in diffs:
            done = subprocess.run(["patch", "-sp1", "--fuzz=0"], cwd=new, input=one, text=True,
                                  capture_output=True, check=False)
            if done.returncode:
                raise LabError(f"a patch does not apply to {base}: {done.stdout.strip()}")
        if revert and revert.revert:
            spatch.patch(revert.revert.rule, new,
                         [file for file in revert.revert.files if (new / file).is_file()])
        new.rename(tree)
        return tree

    def findings(self, tree: Path) -> dict[str, str]:
        """What the audit says of a tree, and said of the same files before."""
        if tree not in self._found:
            version = kernel_version(tree)
            self._found[tree] = {one.name: self._finding(tree, version, one) for one in KNOWN}
        return self._found[tree]

    def _finding(self, tree: Path, version: str, defect: Defect) -> str:
        assert defect.audit
        key = hashlib.sha256((defect.name + version).encode())
        key.update(defect.audit.rule.read_bytes())
        for name in (*defect.audit.files, *map(str, kconfig.KCONFIGS)):
            key.update((tree / name).read_bytes() if (tree / name).is_file() else b"-")
            key.update(name.encode())
        kept = self._work / f"{key.hexdigest()}.status"
        if not kept.exists():
            kept.write_text(audit.look(tree, version, defect).status, encoding="utf-8")
        return kept.read_text(encoding="utf-8")


def of_cache(sources: Sources) -> Iterator[Made]:
    """The images of the lab's cache.  What cannot be made again is said on stderr."""
    seen, diffs = set(), Diffs()
    for file in sorted(cache_dir().glob("images/*/identity.json")):
        said = json.loads(file.read_text(encoding="utf-8"))
        what = f"{said['version']} {said['how']}"
        try:
            revert = reverted(said["how"], said["places"], sources.pristine(said["base"]))
            found = [] if revert else diffs.of(said, file.stat().st_mtime)
            tree = sources.made(said["base"], found, revert)
        except LabError as err:
            print(f"left out: {file.parent.name} {what}: {err}", file=sys.stderr)
            continue
        config = (file.parent / "config").read_text(encoding="utf-8")
        if (tree, config) not in seen:
            seen.add((tree, config))
            yield Made(file.parent / "image", config, what, tree)


def of_debian(folder: Path, sources: Sources) -> Iterator[Made]:
    """Images of Debian's packages."""
    for file in sorted(folder.glob("vmlinu*-*")):
        release = file.name.partition("-")[2]
        config = folder / f"config-{release}"
        try:
            tree = sources.made(bases.for_version(release).name, [], None)
        except LabError as err:
            print(f"left out: {file}: {err}", file=sys.stderr)
            continue
        yield Made(file, config.read_text(encoding="utf-8") if config.exists() else "", release,
                   tree, debian=True)


def of_others(folder: Path) -> Iterator[Made]:
    """Images with the trees that they were made from."""
    for tree in sorted(folder.glob("*/source")):
        config = tree.with_name("config")
        yield Made(tree.with_name("image"),
                   config.read_text(encoding="utf-8") if config.exists() else "",
                   tree.parent.name, tree, other=True)


def judged(status: str, source: str, defect: Defect, config: str, arch: str) -> str:
    """Which column a row of an image is counted in."""
    if status == source:
        return RIGHT
    if status == UNKNOWN:
        return BLIND
    if status == NOT_AFFECTED and made_without(defect, config, arch):
        return WITHOUT
    return UNTOLD if source == UNKNOWN else WRONG


def made_without(defect: Defect, config: str, arch: str) -> bool:
    """Whether a .config, or the architecture, says that a kernel cannot have a defect."""
    assert defect.binary
    on = set(re.findall(r"(?m)^CONFIG_(\w+)=[ym]$", config))
    forms = [*defect.binary.unaffected,
             *(form for form, _why in decide.NO_SHARING if defect.shares_tables)]
    return any((match := re.fullmatch(r"the config has none of ([\w|]+)", form)) and on
               and not on & set(match[1].split("|"))
               or (match := re.fullmatch(r"it is not for (\w+)", form)) and arch != match[1]
               for form in forms)


def broken(kernel: image.Image, read: code.Code) -> Iterator[tuple[str, str, bool]]:
    """Each call that a form of `protected` asks for and finds, and whether it fits without.

    Where one of several calls is enough for it, all of them are taken out.
    """
    for defect in KNOWN:
        assert defect.binary
        for form in defect.binary.protected:
            if not rules.fits(form, read, defect.binary.names).true:
                continue
            for condition in rules.parse(form, defect.binary.names):
                for place in condition.look(read).places:
                    match = re.fullmatch(r"(\w+)\+0x[0-9a-f]+ calls (\w+)", place)
                    if match:
                        asked = [one.partition("@")[0] for word in condition.text.split()
                                 for one in word.split("|") if fits_one(match[2], word)]
                        spared = code.Code(without_calls(kernel, read, match[1], asked))
                        yield defect.name, place, rules.fits(form, spared,
                                                             defect.binary.names).true


def exchanged(kernel: image.Image, read: code.Code) -> Iterator[tuple[str, str, bool]]:
    """Each order that a form of `protected` asks for and finds, and whether it fits in another."""
    for defect in KNOWN:
        assert defect.binary
        for form in defect.binary.protected:
            if not rules.fits(form, read, defect.binary.names).true:
                continue
            for condition in rules.parse(form, defect.binary.names):
                match = _ORDER.fullmatch(condition.text)
                place = next(iter(condition.look(read).places), "")
                if not match or "+" not in place:
                    continue
                first, second, end = match.groups()
                for one, other in ((first, second), (second, end)):
                    spared = with_each_other(kernel, read, place.partition("+")[0], one, other) \
                        if other else None
                    if spared:
                        yield (defect.name, f"{place}: {one} and {other}",
                               rules.fits(form, code.Code(spared), defect.binary.names).true)


def with_each_other(kernel: image.Image, read: code.Code, caller: str, one: str, other: str
                    ) -> image.Image | None:
    """The same code, but a function calls `other` where it called `one`, and the other way round.

    It does so with the two calls that are nearest to each other, of those that may come in that
    order: if all change places, they may be right in their new ones.  None where there are none, or
    none that are called by what is known here, or where what is called is told by its argument.
    """
    sections, moved = list(kernel.sections), []
    for function in read.functions(caller):
        places = [rules.calls_of(read, function, words) for words in (one, other)]
        if not all(places) or set(places[0]) & set(places[1]):
            return None
        pairs = [(abs(first - second), first, second) for first in places[0]
                 for second in sorted(function.later([first], traps_end=True) & set(places[1]))]
        if not pairs:
            return None
        pair = min(pairs)[1:]
        moved.append(pair)
        for at, by in zip(pair, pair[::-1]):
            to = function.code[by].target
            assert to is not None
            made = retargeted(kernel.arch, read_bytes(sections, at, function.code[at].size),
                              to - at)
            if made is None:
                return None
            write_bytes(sections, at, made)
    swapped = dataclasses.replace(kernel, sections=tuple(sections))
    # The arguments stay where they are: of a lock it must not be another one.
    for function, pair in zip(code.Code(swapped).functions(caller), moved):
        if any(at not in rules.calls_of(read, function, words)
               for at, words in zip(pair, (other, one))):
            return None
    return swapped


def retargeted(arch: str, old: bytes, far: int) -> bytes | None:
    """A call, or a jump, that leads so far from itself; None where it is of another kind."""
    if arch == "x86_64" and len(old) == 5 and old[0] in (0xe8, 0xe9):
        return old[:1] + (far - 5).to_bytes(4, "little", signed=True)
    if arch == "arm64" and old[3] & 0x7c == 0x14:
        word = int.from_bytes(old, "little") & 0xfc000000 | far >> 2 & 0x3ffffff
        return word.to_bytes(4, "little")
    return None


def read_bytes(sections: Sequence[image.Section], at: int, size: int) -> bytes:
    section = next(one for one in sections if one.address <= at < one.address + len(one.data))
    return section.data[at - section.address:at - section.address + size]


def write_bytes(sections: list[image.Section], at: int, new: bytes) -> None:
    number = next(number for number, one in enumerate(sections)
                  if one.address <= at < one.address + len(one.data))
    data = bytearray(sections[number].data)
    start = at - sections[number].address
    data[start:start + len(new)] = new
    sections[number] = dataclasses.replace(sections[number], data=bytes(data))


def fits_one(name: str, word: str) -> bool:
    """Whether a word of a condition, "f|g*|h@k", means a function."""
    return any(fnmatch.fnmatchcase(name, one.partition("@")[0]) for one in word.split("|"))


def without_calls(kernel: image.Image, read: code.Code, caller: str, asked: Sequence[str]
                  ) -> image.Image:
    """The same code, with nothing where a function calls one of those that are asked for."""
    sections = list(kernel.sections)
    for function in read.functions(caller):
        for address, call in function.calls.items():
            if not any(fits_one(name, "|".join(asked)) for name in call.names):
                continue
            size = function.code[address].size
            write_bytes(sections, address, _NOPS[kernel.arch, size] if kernel.arch != "x86_64"
                        else b"\x90" * size)
    return dataclasses.replace(kernel, sections=tuple(sections))


def mutants_told() -> tuple[list[str], list[str], int]:
    """What the cache's images of mutants are said to be, a line each; what of it is wrong; and of
    how many something was decided."""
    lines, wrong, decided = [], [], 0
    for file in sorted(cache_dir().glob("images/*/identity.json")):
        said = json.loads(file.read_text(encoding="utf-8"))
        match = _MUTANT.search(said["how"])
        if not match:
            continue
        what = f"{said['version']} {said['arch']} {match[1]}"
        if match[1] not in MUTANTS:
            lines.append(f"{what}: MUTANTS has no such mutant")
            wrong.append(lines[-1])
            continue
        rows = MUTANTS[match[1]].split()
        if not rows:
            lines.append(f"{what}: no row is about it")
            continue
        try:
            read = code.Code(load.load(file.with_name("image")))
        except LabError as err:
            lines.append(f"{what}: left out: {err}")
            continue
        told = {one.name: decide.decide(read, one).status for one in KNOWN if one.name in rows}
        decided += 1
        lines.append(f"{what}: {', '.join(f'{name} {status}' for name, status in told.items())}")
        if all(status == PROTECTED for status in told.values()):
            wrong.append(lines[-1])
    return lines, wrong, decided


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("trees", "debian", "pairs", "work"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--break", action="store_true", dest="spoil",
                        help="also take calls out, of the first image of each release")
    parser.add_argument("--mutants", action="store_true",
                        help="nothing but the images of mutants that the cache has")
    parser.add_argument("--rst", action="store_true", help="the table as reStructuredText")
    args = parser.parse_args()
    mutated, wrong, decided = mutants_told()
    print("\n".join(mutated or ["the cache has no image of a mutant"]))
    if args.mutants:
        for line in wrong:
            print(f"WRONG {line}", file=sys.stderr)
        if not decided:
            print("no image of a mutant was looked at", file=sys.stderr)
        return 1 if wrong or not decided else 0
    work = args.work or Path(tempfile.mkdtemp(prefix="lab-truth-"))
    work.mkdir(parents=True, exist_ok=True)
    sources = Sources(work.resolve(), args.trees)
    # Those of --pairs apart: other compilers made them.
    counts: dict[bool, Counter[tuple[str, str]]] = {False: Counter(), True: Counter()}
    kernels: dict[bool, Counter[tuple[str, str]]] = {False: Counter(), True: Counter()}
    spoilt, swapped, releases = {False: 0, True: 0}, {False: 0, True: 0}, set()
    every = [*of_cache(sources), *(of_debian(args.debian, sources) if args.debian else ()),
             *(of_others(args.pairs) if args.pairs else ())]
    for number, made in enumerate(every, 1):
        print(f"{number} of {len(every)}: {made.image}", file=sys.stderr)
        try:
            kernel = load.load(made.image)
            read = code.Code(kernel)
            version = kernel_version(made.tree)
            if made.debian and not re.search(rf"Debian {re.escape(version)}[-~+]", kernel.banner):
                raise LabError(f"its source is at hand for {version} alone")
        except LabError as err:
            print(f"left out: {made.image}: {err}", file=sys.stderr)
            continue
        truth = sources.findings(made.tree)
        kernels[made.other][".".join(version.split(".")[:2]), kernel.arch] += 1
        # One of each release: the others differ from it in a few functions.
        spoil = args.spoil and (kernel.release, kernel.arch) not in releases
        releases.add((kernel.release, kernel.arch))
        for name, place, fits in broken(kernel, read) if spoil else ():
            spoilt[fits] += 1
            if fits:
                wrong.append(f"{name}: {made.image} ({made.what}): a form fits without {place}")
        for name, place, fits in exchanged(kernel, read) if spoil else ():
            swapped[fits] += 1
            if fits:
                wrong.append(f"{name}: {made.image} ({made.what}): a form fits with two calls "
                             f"exchanged: {place}")
        for defect in KNOWN:
            said = decide.decide(read, defect)
            column = judged(said.status, truth[defect.name], defect, made.config, kernel.arch)
            counts[made.other][defect.name, column] += 1
            if column == WRONG:
                wrong.append(f"{defect.name}: {made.image} ({made.what}) is {said.status}, its "
                             f"source {truth[defect.name]}: {said.why} {'; '.join(said.places)}")
    for other, known in kernels.items():
        if known:
            print("\n".join([*table(counts[other], args.rst), "", *releases_of(known, args.rst), ""]))
    if args.spoil:
        print(f"{sum(spoilt.values())} times calls were taken out, and {spoilt[True]} times the "
              f"form of protected fitted all the same; {sum(swapped.values())} times two kinds "
              f"changed places, and {swapped[True]} times it did")
    for line in wrong:
        print(f"WRONG {line}", file=sys.stderr)
    return 1 if wrong or not any(kernels.values()) else 0


def releases_of(kernels: Counter[tuple[str, str]], rst: bool) -> list[str]:
    """A table of how many images there were, a line a release and a column an architecture."""
    arches = sorted({arch for _release, arch in kernels})
    releases = sorted({release for release, _arch in kernels},
                      key=lambda release: [int(part) for part in re.findall(r"\d+", release)])
    lines = [f"{release:8} " + " ".join(f"{kernels[release, arch]:>8}" for arch in arches)
             for release in releases]
    lines.append(f"{'all':8} " + " ".join(
        f"{sum(number for key, number in kernels.items() if key[1] == arch):>8}"
        for arch in arches))
    head = f"{'release':8} " + " ".join(f"{arch:>8}" for arch in arches)
    rule = " ".join(("=" * 8, *("=" * 8 for _arch in arches)))
    return [rule, head, rule, *lines, rule] if rst else [head, *lines]


def table(counts: Counter[tuple[str, str]], rst: bool) -> list[str]:
    lines = [f"{one.name:26} " + " ".join(f"{counts[one.name, column]:>14}" for column in COLUMNS)
             for one in KNOWN]
    head = f"{'':26} " + " ".join(f"{column:>14}" for column in COLUMNS)
    rule = " ".join(("=" * 26, *("=" * 14 for _column in COLUMNS)))
    if rst:
        head = f"{'defect':26} " + head[27:]
        return [rule, head, rule, *lines, rule]
    return [head, *lines]


if __name__ == "__main__":
    sys.exit(main())
