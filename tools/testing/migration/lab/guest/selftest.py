# SPDX-License-Identifier: GPL-2.0
"""Builds the selftests, static, with a kernel's own selftest Makefile and harness.

The harness is that of the tree that HARNESS= names, else of the tree under test where that one will
do, else of Debian's 6.12.  A static program runs on any kernel, so an old kernel is tested with a
newer kernel's harness.  Only what the build reads is copied from the tree, to a folder in the
cache, and the tree itself is left alone: it may be the user's.  Of a tree of the lab's own it is
what its repository has, so that nobody waits for a kernel that is built there.
"""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab import base, deps
from lab.arch import Arch
from lab.errors import LabError, NoSource
from lab.kernel import apt, kconfig, source
from lab.kernel.source import Source
from lab.kernel.tree import Tree
from lab.paths import REPO, atomic_dir, cache_dir, copy, disk_full, have, is_full, locked, \
    need_plain_cache, new_log
from lab.progress import Progress

# Debian 12 has it, and its harness will do.
BASE = "6.12"
SELFTESTS = Path("tools/testing/selftests")
FOLDER = SELFTESTS / "mm"
# The kernel's own that run_vmtests.sh runs together with them, and that needs no more than they do.
BESIDE = ("migration",)
# What they share with kernel code of the repository, as mm/hmm-tests.c does with lib/test_hmm.c.
SHARED = "lib/*_uapi.h"
# Where build() leaves the kernel's runner, laid out as an installed one.
RUNNER = "runner"

# What the build reads of a tree: of these folders all files, of the next only files of their own.
_DEEP = (SELFTESTS / "kselftest", FOLDER, Path("tools/include"), Path("tools/arch"))
_FLAT = (SELFTESTS, SELFTESTS / "x86")
_FILES = (Path("mm/gup_test.h"), Path("scripts/subarch.include"))
# A user may have built the selftests in the tree: what came of that is left out.
_SOURCE = re.compile(r"(?!local_config\.).*\.(c|h|sh|mk|S|pl|py)|Makefile|config|settings")
# What such a libnuma may ask for, by the names that the C library here has.
_NAMES = Path(__file__).with_name("libnuma.ld")
# A harness without it prints the skip of a fixture in another way (before 6.10).
_NEEDED = "FIXTURE_TEARDOWN_PARENT"


@dataclass(frozen=True)
class Built:
    """The selftests, and what they were built with."""

    programs: dict[str, Path]   # static program by name
    harness: str                # whose harness: the version of a kernel
    runner: Path                # folder with that kernel's run_kselftest.sh


class _Unfit(LabError):
    """A tree whose harness will not do."""


def sources() -> list[Path]:
    """The repository's own selftest files."""
    return sorted(path for path in (REPO / FOLDER).glob("*.[ch]"))


def used_by(tests: Iterable[str]) -> list[Path]:
    """The repository's files that the selftests `tests` are made of: what they include of it, and
    the C files beside those headers, which hold their functions."""
    there = {path.name: path for path in sources()}
    there |= {str(path.relative_to(REPO)): path for path in REPO.glob(SHARED)}
    found: set[str] = set()
    todo = [f"{name}.c" for name in tests]
    while todo:
        name = todo.pop()
        if name in found or name not in there:
            continue
        found.add(name)
        text = there[name].read_text("utf-8")
        todo += re.findall(r'^#include [<"]([^>"]+)[>"]', text, re.MULTILINE)
        if name.endswith(".h"):
            todo.append(f"{name.removesuffix('.h')}.c")
    return [path for name, path in sorted(there.items()) if name in found]


def _is_test(path: Path) -> bool:
    return path.suffix == ".c" and bool(re.search(r"^TEST_HARNESS_MAIN\b|^int main\(",
                                                  path.read_text("utf-8"), re.MULTILINE))


def names() -> list[str]:
    """The names of all selftests: the C files that have a main function."""
    return [path.stem for path in sources() if _is_test(path)]


def build(arch: Arch, progress: Progress, given: Source | None = None,
          harness: Path | None = None, beside: bool = False, other: Path | None = None) -> Built:
    """The selftests, from the cache or built now; with `beside` those of BESIDE in their place, and
    with `other` that one program, a C file that may use what the selftests share.

    `harness` is a kernel tree to take the harness from; `given` the source under test.  LabError
    where `harness` will not do, where none of the trees will, and with the compiler's error.
    """
    need_plain_cache()
    if harness is not None:
        try:
            top = harness.expanduser().resolve(strict=True)
        except (OSError, RuntimeError) as err:
            raise LabError(f"no such folder: {harness} (HARNESS= names a kernel tree)") from err
        version = source.kernel_version(top, "HARNESS=")
        try:
            return _from(top, version, "", arch, progress, beside, other)
        except _Unfit as err:
            raise LabError(f"HARNESS={harness} cannot be used: {err}", err.log) from err
    if given is not None and not _lacks(given.tree):
        try:
            return _from(given.tree, given.version, given.pristine, arch, progress, beside, other)
        except _Unfit as err:
            progress.note(f"the harness of {given.version} cannot be used ({err}): another is used")
    try:
        home = source.from_base(base.load(BASE), progress)
    except NoSource as err:
        raise NoSource(
            "the selftests are built with the harness of a kernel of 6.10 or later: name such a "
            f"tree with HARNESS=/path/to/linux ({err})") from err
    try:
        return _from(home.tree, home.version, home.pristine, arch, progress, beside, other)
    except _Unfit as err:
        raise LabError(f"the selftests could not be built: {err}", err.log) from err


def _lacks(tree: Path) -> str:
    """What a tree lacks to build the selftests; "" where it may do."""
    for name in (SELFTESTS / "lib.mk", SELFTESTS / "kselftest_harness.h", FOLDER / "Makefile",
                 FOLDER / "vm_util.c", SELFTESTS / "run_kselftest.sh"):
        if not (tree / name).is_file():
            return f"it has no {name}"
    if _NEEDED not in (tree / SELFTESTS / "kselftest_harness.h").read_text("utf-8", "replace"):
        return f"its kselftest_harness.h is from before 6.10 and has no {_NEEDED}"
    return ""


def _from(tree: Path, version: str, state: str, arch: Arch, progress: Progress, beside: bool,
          other: Path | None) -> Built:
    """Build with the harness of `tree`: of a state of it, if it is the lab's own."""
    if lacks := _lacks(tree):
        raise _Unfit(lacks)
    tests = BESIDE if beside else tuple(names())
    files = [] if beside else sources()
    if other:
        tests = (other.stem,)
        files = [other, *(path for path in files if not _is_test(path))]
    home = cache_dir() / "selftests"
    stage = home / "stage"
    with locked(home / "lock", lambda: progress.note("another run builds selftests: waiting")):
        with atomic_dir(stage) as new:
            if state:
                # Not the files of tree/: another run may build a variant there, for minutes.
                kept = Tree(tree.parent)
                names_in = [Path(name) for name in kept.names(state, (*_DEEP, *_FLAT, *_FILES))]
                with kept.scratch(state) as scratch:
                    _copy(scratch.real(path for path in names_in if _is_read(path)), new)
            else:
                _copy(_read_of(tree), new)
            for path in files:
                shutil.copyfile(path, new / FOLDER / path.name)
            for path in REPO.glob(SHARED):
                copy(path, new / "lib" / path.name)
        try:
            dest = home / _key(stage, arch, tests)
            if not have(dest, (*tests, f"{RUNNER}/run_kselftest.sh")):
                libnuma = numa(arch, progress)
                progress.step("building the selftests")
                with atomic_dir(dest, (*tests, f"{RUNNER}/run_kselftest.sh")) as new:
                    _compile(arch, stage / FOLDER, files, tests, new, libnuma)
                    _runner(stage / SELFTESTS, new / RUNNER)
                progress.done(f"{len(tests)} programs, with the harness of {version}")
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    return Built({name: dest / name for name in tests}, version, dest / RUNNER)


def _copy(files: Mapping[Path, Path], stage: Path) -> None:
    """Copy files to their names."""
    for name, path in files.items():
        copy(path, stage / name)


def _is_read(name: Path) -> bool:
    """Whether the build reads a file of a tree."""
    return bool(name in _FILES or SELFTESTS / "kselftest" in name.parents or
                _SOURCE.fullmatch(name.name) and (
                    name.parent in _FLAT or any(folder in name.parents for folder in _DEEP)))


def _read_of(tree: Path) -> dict[Path, Path]:
    """Where in a user's tree the files are that the build reads."""
    there = (*(path for folder in _DEEP for path in sorted((tree / folder).rglob("*"))),
             *(path for folder in _FLAT for path in sorted((tree / folder).glob("*"))),
             *(tree / name for name in _FILES))
    return {path.relative_to(tree): path for path in there
            if path.is_file() and _is_read(path.relative_to(tree))}


def _key(stage: Path, arch: Arch, tests: tuple[str, ...]) -> str:
    """A hash of all that decides what is built."""
    key = hashlib.sha256(f"{arch.name} {' '.join(tests)}".encode())
    if arch.suite:
        key.update(_NAMES.read_bytes())
    for path in sorted(stage.rglob("*")):
        if path.is_file():
            key.update(f"{path.relative_to(stage)}\0".encode() + path.read_bytes())
    return key.hexdigest()[:20]


def _runner(selftests: Path, dest: Path) -> None:
    """Lay out the runner as `make -C tools/testing/selftests install` does."""
    for path in [selftests / "run_kselftest.sh", *sorted((selftests / "kselftest").rglob("*")),
                 selftests / "mm" / "settings"]:
        if path.is_file():
            copy(path, dest / path.relative_to(selftests))


def numa(arch: Arch, progress: Progress) -> str:
    """What the compiler of another architecture has to be told to find libnuma."""
    if arch.native:
        return ""
    files = apt.unpacked("libnuma-dev", arch, progress) / "usr"
    return f" -I{files / 'include'} -L{files / 'lib' / arch.triplet}"


def _compile(arch: Arch, folder: Path, files: list[Path], tests: tuple[str, ...], out: Path,
             numa: str) -> None:
    # Compiled once, and not once for each program.
    helpers = " ".join(str(folder / f"{path.stem}.o") for path in files
                       if path.suffix == ".c" and path.stem not in tests)
    programs = [str(out / name) for name in tests]
    top = folder.parents[len(FOLDER.parts) - 1]
    # Where libnuma may be of a newer Debian than the C library.
    libraries = f"-lnuma {_NAMES if arch.suite else ''} -lpthread"
    log = new_log("selftests")
    command = [
        "make", "-C", str(folder), f"OUTPUT={out}", f"-j{os.cpu_count() or 1}",
        # <lib/...> is the repository's, copied there.
        f"CC={arch.compiler} -I{top}{numa}", f"ARCH={arch.name}",
        # Full paths: lib.mk would prefix names itself, but not those from a command line.
        f"TEST_GEN_FILES={' '.join(programs)}", "TEST_PROGS=",
        # The folder is new, so nothing is older than its headers; and where one that the Makefile
        # names is missing, lib.mk's rule does not apply, and make has "nothing to be done".
        "LOCAL_HDRS=",
        # The second is what lib.mk of newer trees adds by itself; the third is for headers in tools/
        # that need others from there, as that of KVM.
        f"EXTRA_CFLAGS=-static -I{folder.parent} -idirafter {top}/tools/include",
        f"LDLIBS={libraries}",
        # What a line in the folder's Makefile does in a patched tree.
        f"--eval={' '.join(programs)}: {helpers}",
        f"--eval={folder}/%.o: {folder}/%.c; $(CC) $(CFLAGS) $(CPPFLAGS) -c $< -o $@", *programs,
    ]
    with open(log, "w", encoding="utf-8") as output:
        output.write(f"+ {' '.join(command)}\n")
        output.flush()
        done = subprocess.run(["setpriv", "--pdeathsig", "TERM", *command],
                              env=kconfig.environment(folder), stdin=subprocess.DEVNULL, stdout=output,
                              stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        text = log.read_text(encoding="utf-8", errors="replace").splitlines()
        first = next((line for line in text if "error:" in line or "undefined reference" in line),
                     text[-1])
        if is_full(out):
            raise disk_full(out.parent)
        raise _Unfit(first.strip(), str(log))
    for program in programs:
        if not deps.is_static(Path(program)):
            raise LabError(f"make ended with success and made no static program {program}",
                           str(log))
