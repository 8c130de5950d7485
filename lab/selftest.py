# SPDX-License-Identifier: GPL-2.0
"""Builds the selftests, static, with the kernel's own selftest Makefile.

They are built in the lab's copy of one tree for all bases: the harness of an older tree cannot
build them, and a static program runs on any kernel.
"""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

from lab import base, kconfig, source
from lab.arch import Arch
from lab.errors import LabError
from lab.paths import REPO, atomic_dir, cache_dir, locked
from lab.progress import Progress

# Has kselftest_harness.h with fixtures and variants, and Debian 12 has it.
BASE = "6.12"
FOLDER = Path("tools/testing/selftests/mm")
# The kernel's own that run_vmtests.sh runs together with them, and that needs no more than they do.
BESIDE = ("migration",)
# What they share with kernel code of the repository, as mm/hmm-tests.c does with lib/test_hmm.c.
SHARED = "lib/*_uapi.h"


def sources() -> list[Path]:
    """The repository's own selftest files."""
    return sorted(path for path in (REPO / FOLDER).glob("*.[ch]"))


def _is_test(path: Path) -> bool:
    return path.suffix == ".c" and bool(re.search(r"^TEST_HARNESS_MAIN\b|^int main\(",
                                                  path.read_text("utf-8"), re.MULTILINE))


def names() -> list[str]:
    """The names of all selftests: the C files that have a main function."""
    return [path.stem for path in sources() if _is_test(path)]


def build(arch: Arch, progress: Progress) -> dict[str, Path]:
    """All selftests by name, from the cache or built now; LabError with the compiler's error."""
    return _build(arch, tuple(names()), progress)


def beside(arch: Arch, progress: Progress) -> dict[str, Path]:
    """The same of BESIDE, which are built as they are in the tree."""
    return _build(arch, BESIDE, progress)


def _build(arch: Arch, tests: tuple[str, ...], progress: Progress) -> dict[str, Path]:
    home = source.from_base(base.load(BASE), progress)
    files = sources() if tests != BESIDE else []
    key = hashlib.sha256(f"{home.key} {arch.name} {' '.join(tests)}".encode())
    for path in [*files, *sorted(REPO.glob(SHARED))]:
        key.update(f"{path.name}\0".encode() + path.read_bytes())
    dest = cache_dir() / "selftests" / key.hexdigest()[:20]
    if not dest.is_dir():
        progress.step("building the selftests")
        with locked(home.tree.parent / "lock",
                    lambda: progress.note(f"another run works on {home.tree}: waiting for it")):
            if not dest.is_dir():
                with atomic_dir(dest) as new:
                    _make(arch, home.tree, files, tests, new)
        progress.done()
    return {name: dest / name for name in tests}


def _make(arch: Arch, tree: Path, files: list[Path], tests: tuple[str, ...], out: Path) -> None:
    # Beside the folder that they belong in, not there: the tree is the lab's own copy, but what it
    # is made of is to stay what it was, for patches that add these very files.
    folder = tree / FOLDER.parent / "lab-mm"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        shutil.copytree(tree / FOLDER, folder, symlinks=True)
        for path in files:
            shutil.copyfile(path, folder / path.name)
        _compile(arch, folder, files, tests, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _compile(arch: Arch, folder: Path, files: list[Path], tests: tuple[str, ...], out: Path
             ) -> None:
    helpers = " ".join(path.name for path in files
                       if path.suffix == ".c" and path.stem not in tests)
    programs = [str(out / name) for name in tests]
    log = cache_dir() / "logs" / "selftests.log"
    log.parent.mkdir(exist_ok=True)
    command = [
        "make", "-C", str(folder), f"OUTPUT={out}",
        # <lib/...> is to be found in the repository, and before the tree: that may be one that a
        # kernel with an older copy of these very files is built from.
        f"CC={arch.compiler} -I{REPO}", f"ARCH={arch.name}",
        # Full paths: lib.mk would prefix names itself, but not those from a command line.
        f"TEST_GEN_FILES={' '.join(programs)}", "TEST_PROGS=",
        # The second is what lib.mk of newer trees adds by itself.
        f"EXTRA_CFLAGS=-static -I{folder.parent}", "LDLIBS=-lnuma -lpthread",
        # What a line in the folder's Makefile does in a patched tree.
        f"--eval={' '.join(programs)}: {helpers}", *programs,
    ]
    with open(log, "w", encoding="utf-8") as output:
        output.write(f"+ {' '.join(command)}\n")
        output.flush()
        done = subprocess.run(command, env=kconfig.environment(), stdin=subprocess.DEVNULL,
                              stdout=output, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        text = log.read_text(encoding="utf-8", errors="replace").splitlines()
        first = next((line for line in text if "error:" in line or "undefined reference" in line),
                     text[-1])
        raise LabError(f"the selftests could not be built: {first.strip()}", str(log))
