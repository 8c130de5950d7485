#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0
"""Runs in a guest with Debian and the package: is the machine as it was, however the tests end?

Ends pmd-share-test at several points with Ctrl-C or SIGKILL, runs two at once, and looks at the
machine before and after.  What it says is KTAP, in the frame of the lab's guests.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, "/usr/share/pmd-share/tools/testing/migration")

from lab.host import state      # noqa: E402  pylint: disable=wrong-import-position

COMMAND = ["pmd-share-test", "DEFECT=pmd-share-flush"]
POOL = Path("/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages")
SETTLE = 90.0


def now() -> dict[str, str]:
    """All that has to be as it was."""
    return state.read().kept()


def started() -> subprocess.Popen[str]:
    """The tests, in a session of their own, as from another terminal."""
    return subprocess.Popen(COMMAND, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            stdin=subprocess.DEVNULL, start_new_session=True,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None)


def wait(until, seconds: float) -> bool:        # type: ignore[no-untyped-def]
    """Whether it came to be."""
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def left() -> list[str]:
    """Processes of the tests that are still there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(b"hugetlb_pmd_" in word or b"pmd-share-test" in word for word in words[:3]) \
                and path.parent.name != str(os.getpid()):
            found.append(f"{path.parent.name} {b' '.join(words).decode()}")
    return found


def last(out: str) -> dict[str, str]:
    """The words of the last line."""
    lines = [line for line in out.splitlines() if line.startswith("pmd-share-test: ")]
    return dict(word.split("=", 1) for word in lines[-1].split()[1:]) if lines else {}


def restored(before: dict[str, str]) -> str:
    """"" if all is as it was, or comes to be, and no process is left."""
    if not wait(lambda: now() == before and not left(), SETTLE):
        changed = {name: (before.get(name), value) for name, value in now().items()
                   if before.get(name) != value}
        return f"changed: {changed}, left: {left()}"
    return ""


def whole(before: dict[str, str]) -> str:
    """Nobody ends it."""
    with started() as process:
        out, _nothing = process.communicate()
    said = last(out)
    if process.returncode != 0 or said.get("status") != "passed" or said["restored"] != "yes":
        return f"status {process.returncode}: {said or out[-500:]}"
    return restored(before)


def point(process: subprocess.Popen[str], before: dict[str, str], when: str) -> None:
    """Wait until the tests are there."""
    if when == "at once":
        time.sleep(0.3)
        return
    wait(lambda: now() != before or process.poll() is not None, SETTLE)
    if when == "later":
        time.sleep(3)


def ended(number: signal.Signals, when: str):       # type: ignore[no-untyped-def]
    """A case: the tests get a signal at some point."""
    def case(before: dict[str, str]) -> str:
        with started() as process:
            point(process, before, when)
            if process.poll() is not None:
                return f"it had ended before: {process.communicate()[0][-500:]}"
            if when != "at once" and now() == before:
                return "nothing of the machine had changed"
            os.kill(process.pid, number)
            out, _nothing = process.communicate()
        if number == signal.SIGINT:
            said = last(out)
            # At once: Python may not have come as far as to say anything.
            if when != "at once" and (process.returncode != 130
                                      or said.get("status") != "interrupted"):
                return f"status {process.returncode}: {said or out[-500:]}"
        elif process.returncode != -number:
            return f"status {process.returncode}"
        return restored(before)
    return case


def killed_test(before: dict[str, str]) -> str:
    """A test alone is killed: the others are told, and all is put back."""
    with started() as process:
        point(process, before, "changed")
        tests = [int(line.split()[0]) for line in left() if "./hugetlb_pmd_" in line]
        if not tests:
            return "no test runs"
        os.kill(min(tests), signal.SIGKILL)
        out, _nothing = process.communicate()
    if process.returncode != 1 or last(out).get("status") != "failed":
        return f"status {process.returncode}: {last(out) or out[-500:]}"
    return restored(before)


def two(before: dict[str, str]) -> str:
    """Two at once: neither takes what the other has changed for what was there."""
    with started() as one, started() as other:
        outs = [process.communicate()[0] for process in (one, other)]
    # One may find the pool in use by the other, and refuse; not both.
    words = [last(out).get("status", "?") for out in outs]
    if "passed" not in words or not set(words) <= {"passed", "refused", "skipped"}:
        return f"{words}: {outs[0][-300:]} {outs[1][-300:]}"
    print(f"# {words}")
    return restored(before)


CASES = {
    "whole": whole, "two": two, "killed_test": killed_test,
    **{f"{number.name}.{when.replace(' ', '_')}": ended(number, when)
       for number in (signal.SIGINT, signal.SIGKILL) for when in ("at once", "changed", "later")},
}


def main() -> None:
    """Run all of them."""
    print("lab: start hosttest", flush=True)
    print(f"1..{len(CASES)}", flush=True)
    failed = False
    before = now()
    print(f"# {before}")
    for number, (name, case) in enumerate(CASES.items(), 1):
        began = time.monotonic()
        try:
            wrong = case(before)
        except Exception as err:      # pylint: disable=broad-except
            wrong = repr(err)
        failed = failed or bool(wrong)
        said = " ".join(wrong.split())
        print(f"# {name} took {time.monotonic() - began:.0f} s")
        print(f"not ok {number} {name} # {said}" if wrong else f"ok {number} {name}", flush=True)
    print(f"lab: exit hosttest {int(failed)}\nlab: done", flush=True)


main()
