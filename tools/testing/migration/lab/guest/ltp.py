# SPDX-License-Identifier: GPL-2.0
"""Builds the tests of queue/ltp/, static, with the build system of a tree of LTP.

Nothing here fetches such a tree: the user names one.  What the build reads of it is copied to a
folder in the cache, and gets the patches there, if it has not got them yet.
"""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab import base as bases, deps
from lab.arch import Arch
from lab.errors import LabError
from lab.guest import selftest
from lab.kernel import kconfig, testseries
from lab.paths import REPO, atomic_dir, cache_dir, copy, disk_full, have, is_full, locked, \
    need_plain_cache, new_log
from lab.progress import Progress

# As HARNESS= and SERIES= say it, and where it is to be had.
NAME = "ltp"
HOME = "https://github.com/linux-test-project/ltp"
ROOM = REPO / "queue" / NAME
COVER = ROOM / "cover-letter"
FOLDER = Path("testcases/kernel/mem/migrate")

# What neither the build of these tests reads, nor configure.
_SKIP = re.compile(r"(testcases|doc|metadata|utils|lib/(newlib_)?tests|tools)/|\.git")
# Each has what the next one reads.
_AUTOTOOLS = ("aclocal", "autoconf", "autoheader", "automake")


def is_tree(path: Path) -> bool:
    """Whether a folder is a tree of LTP."""
    return (path / "include" / "tst_test.h").is_file() and (path / "configure.ac").is_file()


def find(named: Path | None) -> Path:
    """The tree that the user named.  LabError where there is none there."""
    if named is None:
        raise LabError(f"name LTP's source with LTP=/path/to/ltp: git clone {HOME}")
    try:
        tree = named.expanduser().resolve(strict=True)
    except (OSError, RuntimeError) as err:
        raise LabError(f"no such folder: {named} (LTP= names LTP's source, {HOME})") from err
    if not is_tree(tree):
        raise LabError(f"{named} is no source of LTP: it has no include/tst_test.h or no "
                       f"configure.ac (git clone {HOME})")
    return tree


def version(tree: Path) -> str:
    """Which LTP a tree is, in words."""
    done = subprocess.run(["git", "-C", str(tree), "describe", "--always", "--dirty"], text=True,
                          capture_output=True, check=False)
    said = done.stdout.strip() if done.returncode == 0 and (tree / ".git").exists() else ""
    file = tree / "VERSION"
    number = file.read_text("utf-8", "replace").strip() if file.is_file() else "?"
    return f"LTP {number}" + (f" ({said})" if said else "")


def names() -> list[str]:
    """The names of the tests."""
    return sorted(path.stem for path in (ROOM / "tree" / FOLDER).glob("*[0-9].c"))


def patches() -> list[tuple[str, str]]:
    """The patches, in order, as file name and whole mail."""
    return [(name, testseries.mail(ROOM / name, bases.names()[-1]))
            for name, _part in testseries.listed(ROOM)]


def sources() -> list[Path]:
    """The files of this repository that the tests are made of."""
    return sorted({path for name, _part in testseries.listed(ROOM)
                   for path in testseries.sources(ROOM / name)})


def check(tree: Path) -> None:
    """LabError where a patch does not apply to a tree: which, and where."""
    stage = cache_dir() / NAME / "check"
    with locked(cache_dir() / NAME / "lock"):
        try:
            with atomic_dir(stage) as new:
                for path in touched():
                    if (tree / path).is_file():
                        copy(tree / path, new / path)
                _apply(new, ())
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def build(tree: Path, arch: Arch, progress: Progress) -> dict[str, Path]:
    """The tests as static programs by name, from the cache or built now.

    LabError where a patch does not apply, and with the first error of the build.
    """
    need_plain_cache()
    home = cache_dir() / NAME
    stage = home / "stage"
    tests = names()
    with locked(home / "lock", lambda: progress.note("another run builds LTP: waiting")):
        try:
            with atomic_dir(stage) as new:
                there = (tree / FOLDER).is_dir()
                for path in _listed(tree):
                    if not _SKIP.match(str(path)) or path.is_relative_to(FOLDER):
                        copy(tree / path, new / path)
                if there:
                    progress.note(f"{tree} has {FOLDER} already: it is used as it is there")
                else:
                    _apply(new, (f"--include={FOLDER}/*",))
            dest = home / _key(stage, arch)
            if not have(dest, tests):
                numa = selftest.numa(arch, progress)
                progress.step("building LTP's tests")
                with atomic_dir(dest, tests) as made:
                    _compile(stage, arch, tests, numa)
                    for name in tests:
                        shutil.copyfile(stage / FOLDER / name, made / name)
                        (made / name).chmod(0o755)
                progress.done(f"{len(tests)} programs")
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    return {name: dest / name for name in tests}


def _listed(tree: Path) -> list[Path]:
    """The files of a tree: what git has of it, or all but what a build left."""
    done = subprocess.run(["git", "-C", str(tree), "ls-files", "-z", "--cached", "--others",
                           "--exclude-standard"], capture_output=True, check=False)
    if done.returncode == 0 and (tree / ".git").exists():
        found = [Path(os.fsdecode(name)) for name in done.stdout.split(b"\0") if name]
    else:
        found = [path.relative_to(tree) for path in tree.rglob("*")
                 if path.suffix not in (".o", ".a")]
    return sorted(path for path in found if (tree / path).is_file()
                  and not (tree / path).is_symlink())


def touched() -> list[str]:
    """The files that the patches change or add."""
    return sorted({name for _name, text in patches()
                   for name in re.findall(r"(?m)^diff --git a/(\S+) ", text)})


def _apply(tree: Path, how: Sequence[str]) -> None:
    for name, text in patches():
        done = subprocess.run(
            ["git", "apply", *how, "-"], input=text, text=True, encoding="utf-8", cwd=tree,
            capture_output=True, check=False,
            env={**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.parent)})
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or ["git apply failed"]
            raise LabError(f"queue/{NAME}/{name} does not apply to this LTP: {said[0]}")


def _key(stage: Path, arch: Arch) -> str:
    """A hash of all that decides what is built."""
    key = hashlib.sha256(arch.name.encode())
    for path in sorted(stage.rglob("*")):
        if path.is_file():
            key.update(f"{path.relative_to(stage)}\0".encode() + path.read_bytes())
    return key.hexdigest()[:20]


def _compile(stage: Path, arch: Arch, tests: Sequence[str], numa: str) -> None:
    """Build the tests where they are."""
    log = new_log(NAME)
    host = [] if arch.native else [f"--host={arch.triplet}"]
    jobs = f"-j{os.cpu_count() or 1}"
    environment = {**kconfig.environment(stage), "LDFLAGS": f"-static{numa}",
                   "CPPFLAGS": numa.strip(), "CC": arch.compiler}
    for words in (
            # Not the target autotools of the top, which wants other parts of LTP as well.
            ["make", "-f", "include/mk/automake.mk", *_AUTOTOOLS],
            ["./configure", *host, "--without-open-posix-testsuite", "--without-tirpc",
             "--without-realtime-testsuite", "--disable-metadata"],
            # It builds LTP's library first.
            ["make", "-C", str(FOLDER), jobs, *tests]):
        with open(log, "a", encoding="utf-8") as output:
            output.write(f"+ {' '.join(words)}\n")
            output.flush()
            done = subprocess.run(["setpriv", "--pdeathsig", "TERM", *words], cwd=stage,
                                  env=environment, stdin=subprocess.DEVNULL, stdout=output,
                                  stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0:
            if is_full(stage):
                raise disk_full(stage.parent)
            said = log.read_text(encoding="utf-8", errors="replace").splitlines()
            first = next((line for line in said if re.search(r"\berror: |undefined reference",
                                                             line)), said[-1])
            raise LabError(f"LTP could not be built: {first.strip()}", str(log))
    for name in tests:
        program = stage / FOLDER / name
        if not program.is_file() or not deps.is_static(program):
            raise LabError(f"LTP's make ended with success and made no static {program.name}",
                           str(log))
