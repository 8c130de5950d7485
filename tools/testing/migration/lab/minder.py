# SPDX-License-Identifier: GPL-2.0
"""Runs a command, and sees to it that nothing which came of it goes on running by itself.

	minder.py command...

Standard input is a lifeline: whoever started this holds the other end of a pipe.  When the command
is done, or when nobody holds that end any more, however that came about, all descendants are told
to end, and this waits for the last of them.  A process that ignores SIGTERM is let alone until it
is through: so do the guardians of the selftests, which put the machine back
(tools/testing/selftests/mm/migrate_guard.c).

The exit status is that of the command, 130 where it was ended.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
# Seconds after which what does not heed SIGTERM, but does not ignore it either, is killed.
_PATIENCE = 2.0
_TICK = 0.05


def main(command: list[str]) -> int:
    """Run `command`; returns its exit status."""
    # Orphans become this process's children, so that none is lost from sight.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    # Handlers, which a program that is started does not inherit, instead of SIG_IGN, which it
    # would: then all would look like guardians.  A Ctrl-C comes by the lifeline.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: None)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        # The last reader or writer of the pipe must be somebody else.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        while process.poll() is None and not _cut():
            # Orphans too: who looks whether one is gone would still find it.
            _reap(process)
        ended = process.poll() is None
        _end_all(process)
    return 130 if ended else process.returncode


def _cut() -> bool:
    """Whether the lifeline is cut; waits a moment for that."""
    ready, _, _ = select.select([0], [], [], _TICK)
    return bool(ready) and os.read(0, 1) == b""


def _end_all(process: "subprocess.Popen[bytes]") -> None:
    told: dict[int, float] = {}
    while True:
        _reap(process)
        left = _descendants(os.getpid())
        if not left:
            return
        for pid in left:
            if _ignores_sigterm(pid):
                continue
            now = time.monotonic()
            number = signal.SIGTERM
            if now - told.setdefault(pid, now) > _PATIENCE:
                number = signal.SIGKILL
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        time.sleep(_TICK)


def _reap(process: "subprocess.Popen[bytes]") -> None:
    """Wait for all children that are dead; `process` by its own method, which keeps its status."""
    try:
        while dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if dead.si_pid == process.pid:
                process.poll()
            else:
                os.waitpid(dead.si_pid, os.WNOHANG)
    except ChildProcessError:
        pass


def _children() -> dict[int, list[int]]:
    """The children of each process of the machine."""
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                # The name may have blanks and brackets in it.
                parent = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
            except (OSError, IndexError):
                continue
            found.setdefault(parent, []).append(int(entry.name))
    return found


def _descendants(top: int) -> list[int]:
    """All processes below `top`, parents first: who starts others is not to start more."""
    children = _children()
    found = list(children.get(top, []))
    for pid in found:
        found += children.get(pid, [])
    return found


def _ignores_sigterm(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/status").read_text("utf-8", "replace")
    except OSError:
        return False
    mask = next((line.split()[1] for line in text.splitlines() if line.startswith("SigIgn:")), "0")
    return bool(int(mask, 16) >> (signal.SIGTERM - 1) & 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
