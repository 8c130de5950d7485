# SPDX-License-Identifier: GPL-2.0
"""Runs the selftests on this machine, with the kernel's own runner and output.

They are laid out as `make -C tools/testing/selftests install` lays them out, with run_kselftest.sh
of the kernel source that they are built in.  run_vmtests.sh, which runs all tests of mm in a
patched tree, can be had beside them, with a program ksft_<category>.sh for each category that the
series adds to, as mainline has them.  What they say is passed on as it comes, but for two things.
Its first line names KTAP, not TAP.  And a program all of whose tests were skipped, which the
kernel's harness makes a success, is told to be skipped, and why.
"""

import ctypes
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from lab.arch import Arch
from lab.errors import LabError
from lab.guest import selftest
from lab.judge.ktap import Reader, Test
from lab.kernel.source import Source
from lab.paths import HOME, atomic_dir, cache_dir, copy, have, locked
from lab.progress import Progress

COLLECTION = "mm"
SCRIPT = "run_vmtests.sh"
# What a tree has of it: how to run all tests, and how long they may take.
SCRIPT_FILES = (SCRIPT, "settings")
# What it is to run: what the series adds to, and what takes memory offline.
CATEGORIES = ("migration", "hugetlb")
# A program a category.  Mainline's own take no argument, and so leave out what takes memory offline;
# and the runner cannot pass on one with a blank, as `-t "migration hugetlb"` is.
_CATEGORY = """\
#!/bin/sh
exec ./run_vmtests.sh -d -t {}
"""
# What the kernel's own tests are here that are not built: the script would call them failed.
_ABSENT = """\
#!/bin/sh
echo "{}: not built here, as it is one of the kernel's own"
exit 4
"""
_MINDER = HOME / "lab" / "minder.py"
_PR_SET_PDEATHSIG = 1


@dataclass
class Stream:
    """What a run says: pass each line on through line(), and ask afterwards."""

    planned: int | None = None
    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)   # with the reason
    # How many more there are than the runner knows of: a script that it runs is many.
    _within: int = 0
    _reader: Reader = field(default_factory=lambda: Reader(COLLECTION))

    def line(self, text: str) -> str:
        """The line as it is to be passed on."""
        if text.startswith("TAP version "):
            return "KTAP version 1"
        result = self._reader.line(text)
        if result is None:
            planned = self._reader.program.planned
            self.planned = None if planned is None else planned + self._within
            return text
        name = result.name.rpartition(" ")[2]
        if name in script_programs() and result.within:
            self._script(name, result)
        # A program that ran nothing proves nothing.
        elif self._take(name, result, idle=not _ran(result)) and result.outcome == "pass":
            return f"{text} # SKIP {self.skipped[name]}"
        return text

    def _take(self, name: str, result: Test, idle: bool) -> bool:
        """Count a program, which is `idle` if it ran no test; whether it counts as skipped."""
        if result.outcome in ("fail", "error"):
            self.failed.append(name)
        elif idle or result.outcome in ("skip", "inconclusive"):
            reasons = [test.reason for test in (*result.within, result) if test.reason]
            self.skipped[name] = (*reasons, "no test ran")[0]
            return True
        else:
            self.passed.append(name)
        return False

    def _script(self, name: str, result: Test) -> None:
        # It is skipped as a whole where one of its programs is.
        more = len(result.within) - 1
        for one in result.within:
            # Not all of them print results of their own.
            self._take(one.name, one, idle=bool(one.within) and not _ran(one))
        # A time limit, for one.
        if result.outcome in ("fail", "error") and not any(
                one.outcome in ("fail", "error") for one in result.within):
            more += 1
            self.failed.append(name)
        self._within += more
        self.planned = (self.planned or 0) + more

    def check(self, status: int | None) -> None:
        """LabError where there is no result of some program."""
        if self.planned is None or self.count() != self.planned:
            raise LabError(f"run_kselftest.sh ended early, with exit status {status}: there are "
                           f"results of {self.summary()}")

    def count(self) -> int:
        """How many programs there is a result of."""
        return len(self.passed) + len(self.failed) + len(self.skipped)

    def summary(self) -> str:
        """One line."""
        return (f"{self.count()} of {self.planned or 0} programs: {len(self.passed)} passed, "
                f"{len(self.failed)} failed, {len(self.skipped)} skipped")


def _ran(result: Test) -> bool:
    return any(one.outcome not in ("skip", "inconclusive") for one in result.within)


def script_programs() -> tuple[str, ...]:
    """The programs that run run_vmtests.sh, one for each of CATEGORIES."""
    return tuple(f"ksft_{category}.sh" for category in CATEGORIES)


def _beside_script(text: str, have: Collection[str]) -> dict[str, str]:
    """What has to lie beside a run_vmtests.sh: the programs that run it, and something in place of
    each test of CATEGORIES that there is not."""
    found = {name: _CATEGORY.format(category)
             for name, category in zip(script_programs(), CATEGORIES)}
    for name in re.findall(rf'(?m)^\s*CATEGORY="(?:{"|".join(CATEGORIES)})" run_test \./([\w.-]+)',
                           text):
        if name not in have:
            found[name] = _ABSENT.format(name)
    return found


def install(arch: Arch, progress: Progress, texts: dict[str, str] | None = None,
            given: Source | None = None, harness: Path | None = None) -> Path:
    """The folder with run_kselftest.sh and the selftests, from the cache or made now.

    `texts` are files of the collection, SCRIPT among them: what runs that is all that is on the list
    then.
    `given` and `harness` are as for selftest.build().
    """
    built = selftest.build(arch, progress, given, harness)
    programs = dict(built.programs)
    listed = list(programs)
    if texts:
        programs |= selftest.build(arch, progress, given, harness, beside=True).programs
        texts = {**texts, **_beside_script(texts[SCRIPT], programs)}
        listed = list(script_programs())
    files = {path.relative_to(built.runner): path for path in sorted(built.runner.rglob("*"))
             if path.is_file()}
    files |= {Path(COLLECTION, name): path for name, path in programs.items()}
    key = hashlib.sha256(json.dumps(texts or {}).encode())
    for name, path in files.items():
        key.update(f"{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    dest = cache_dir() / "kselftest" / key.hexdigest()[:20]
    with locked(cache_dir() / "kselftest" / "lock"):
        held = (*map(str, files), "kselftest-list.txt")
        if not have(dest, held):
            with atomic_dir(dest, held) as new:
                for name, path in files.items():
                    copy(path, new / name)
                for file, text in (texts or {}).items():
                    (new / COLLECTION / file).write_text(text, encoding="utf-8")
                    (new / COLLECTION / file).chmod(0o755)
                (new / "kselftest-list.txt").write_text(
                    "".join(f"{COLLECTION}:{name}\n" for name in listed), encoding="ascii")
    return dest


def chosen(names: tuple[str, ...]) -> list[str]:
    """The runner's arguments for the programs `names`; all of them for none."""
    if not names:
        return ["-c", COLLECTION]
    return [word for name in names for word in ("-t", f"{COLLECTION}:{name}")]


def command(folder: Path, names: tuple[str, ...]) -> list[str]:
    """The runner's command for the programs `names`; all of them for none."""
    return [str(folder / "run_kselftest.sh"), *chosen(names)]


def arguments(names: tuple[str, ...], tests: tuple[str, ...]) -> dict[str, str]:
    """The variables by which the runner passes arguments on to the programs."""
    return {f"KSELFTEST_{re.sub(r'[^A-Z0-9_]', '_', name.upper())}_ARGS": " ".join(tests)
            for name in names} if tests else {}


def run(words: list[str], environment: dict[str, str], tell: Callable[[str], None],
        stream: Stream | None = None) -> Stream:
    """Run the command, and pass each line of its output to `tell` as it comes.

    What is said is counted in `stream`, for who wants it even where this does not return.

    However this process ends, even by a SIGKILL, nothing goes on running but what puts the machine
    back.  On an exception that is waited for.  LabError where the runner gave up before it had run
    all.
    """
    stream = stream or Stream()
    # A session of its own: a Ctrl-C reaches this process, which ends the rest by closing the pipe.
    with subprocess.Popen(
            [sys.executable, "-B", str(_MINDER), *words], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env={**os.environ, **environment}, text=True,
            errors="replace", start_new_session=True) as process:
        assert process.stdin and process.stdout
        try:
            for line in process.stdout:
                tell(stream.line(line.rstrip("\n")))
        finally:
            # To wait for those who put the machine back is not to be interrupted.
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            process.stdin.close()
            process.stdout.close()
            process.wait()
            signal.signal(signal.SIGINT, before)
    stream.check(process.returncode)
    return stream


def die_with_parent() -> None:
    """Have the kernel end this process when the one that started it is gone: make, in most cases.

    make does not live to tell after a SIGKILL.
    """
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
