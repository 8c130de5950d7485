# SPDX-License-Identifier: GPL-2.0
"""Runs the selftests on this machine, with the kernel's own runner and output.

They are laid out as `make -C tools/testing/selftests install` lays them out, with run_kselftest.sh
of the kernel source that they are built in.  run_vmtests.sh, the one program that all tests of mm
are in a patched tree, can be had beside them.  What they say is passed on as it comes, but for two
things.  Its first line names KTAP, not TAP.  And a program all of whose tests were skipped, which
the kernel's harness makes a success, is told to be skipped, and why.
"""

import ctypes
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lab.arch import Arch
from lab.errors import LabError
from lab.guest import selftest
from lab.kernel.source import Source
from lab.paths import HOME, atomic_dir, cache_dir, have, locked
from lab.progress import Progress

COLLECTION = "mm"
SCRIPT = "run_vmtests.sh"
# What a tree has of it: how to run all tests, and how long they may take.
SCRIPT_FILES = (SCRIPT, "settings")
# What it is to run: what the series adds there, and what takes memory offline.
SCRIPT_ARGUMENTS = ("-d", "-t", "migration")
_MINDER = HOME / "lab" / "minder.py"
_PR_SET_PDEATHSIG = 1

_PLAN = re.compile(r"1\.\.(\d+)")
_RESULT = re.compile(r"(not )?ok \d+ selftests: \S+ (\S+)(.*)")
_NESTED = re.compile(r"# (not )?ok \d+ (?P<name>\S+).*?(?: # SKIP\b ?(.*))?")
# A test of a program that SCRIPT runs.
_NESTED_TWICE = re.compile(r"# # (not )?ok \d+ .*?(?: # SKIP\b ?(.*))?")


@dataclass
class Stream:
    """What a run says: pass each line on through line(), and ask afterwards."""

    planned: int | None = None
    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)   # with the reason
    _ran: int = 0
    _reasons: list[str] = field(default_factory=list)
    # The programs that SCRIPT ran, should it be that: name, whether it failed, why it was skipped.
    _inner: list[tuple[str, bool, str | None]] = field(default_factory=list)
    _inner_ran: int = 0
    _inner_reasons: list[str] = field(default_factory=list)

    def line(self, text: str) -> str:
        """The line as it is to be passed on."""
        if text.startswith("TAP version "):
            return "KTAP version 1"
        if plan := _PLAN.fullmatch(text):
            self.planned = int(plan[1])
        elif nested := _NESTED.fullmatch(text):
            skip: str | None = nested[3]
            if self._inner_reasons and not self._inner_ran or skip == "":
                # A program all of whose tests were skipped may count as passed, or not say why.
                skip = (*self._inner_reasons, "it does not say why")[0]
            self._inner.append((nested["name"], bool(nested[1]), skip))
            self._inner_ran, self._inner_reasons = 0, []
            if nested[1] or skip is None:
                self._ran += 1
            else:
                self._reasons.append(skip)
        elif deeper := _NESTED_TWICE.fullmatch(text):
            if deeper[1] or deeper[2] is None:
                self._inner_ran += 1
            else:
                self._inner_reasons.append(deeper[2])
        elif result := _RESULT.fullmatch(text):
            return self._result(text, bool(result[1]), result[2], result[3])
        return text

    def _result(self, text: str, failed: bool, name: str, rest: str) -> str:
        # A program that ran nothing proves nothing.
        nothing = not self._ran
        reason = self._reasons[0] if self._reasons else "no test ran"
        inner = self._inner
        self._ran, self._reasons, self._inner = 0, [], []
        self._inner_ran, self._inner_reasons = 0, []
        if name == SCRIPT and inner:
            self._script(failed, inner)
        elif failed:
            self.failed.append(name)
        elif "# SKIP" in rest:
            self.skipped[name] = reason
        elif nothing:
            self.skipped[name] = reason
            return f"{text} # SKIP {reason}"
        else:
            self.passed.append(name)
        return text

    def _script(self, failed: bool, inner: list[tuple[str, bool, str | None]]) -> None:
        # It is skipped as a whole where one of its programs is.
        self.planned = (self.planned or 0) + len(inner) - 1
        for name, bad, reason in inner:
            if bad:
                self.failed.append(name)
            elif reason is not None:
                self.skipped[name] = reason
            else:
                self.passed.append(name)
        # A time limit, for one.
        if failed and not any(bad for _name, bad, _reason in inner):
            self.planned += 1
            self.failed.append(SCRIPT)

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


def install(arch: Arch, progress: Progress, texts: dict[str, str] | None = None,
            given: Source | None = None, harness: Path | None = None) -> Path:
    """The folder with run_kselftest.sh and the selftests, from the cache or made now.

    `texts` are files of the collection, SCRIPT among them: it is the one program on the list then.
    `given` and `harness` are as for selftest.build().
    """
    built = selftest.build(arch, progress, given, harness)
    programs = dict(built.programs)
    listed = list(programs)
    if texts:
        programs |= selftest.build(arch, progress, given, harness, beside=True).programs
        listed = [SCRIPT]
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
                    (new / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, new / name)
                    # Whoever made the cache may have a umask that keeps others out.
                    (new / name).chmod(0o755 if os.access(path, os.X_OK) else 0o644)
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


def run(words: list[str], environment: dict[str, str], tell: Callable[[str], None]) -> Stream:
    """Run the command, and pass each line of its output to `tell` as it comes.

    However this process ends, even by a SIGKILL, nothing goes on running but what puts the machine
    back.  On an exception that is waited for.  LabError where the runner gave up before it had run
    all.
    """
    stream = Stream()
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
