# SPDX-License-Identifier: GPL-2.0
"""Spreads jobs over hosts with GNU parallel, and brings back what they said.

Each kind of host gets a GNU parallel of its own, which knows all jobs that are for this kind.  It
copies the lab to each host as a bundle of git, gives each host as many jobs as fit, tries a job
that failed on another host, and copies the results back.  Nothing is believed because a job ended
well: what counts is which results are there, and what they were made of.

A group of hosts within one parallel (--hostgroups) would say the same, but with --retries a job
that failed on each host of its group is never run again and never given up: parallel 20221122
waits for ever.
"""

import contextlib
import json
import queue
import re
import secrets
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from lab import provenance
from lab.errors import LabError
from lab.matrix import gnuparallel, job
from lab.matrix.hosts import Host
from lab.matrix.live import Table
from lab.matrix.plan import Kind, Work
from lab.paths import REPO, remove

_START = Path(__file__).with_name("start.sh")
# Where files go on a host, from the folder that one logs in to.
_THERE = ".cache/pmd-share-matrix"
# What each host gets.
_FOR_ALL = ("bundle", "shallow", "start.sh")
# How often a job is tried, on other hosts of the same kind.
TRIES = 3
# Seconds that parallel gets to end its jobs.
_PATIENCE = 15


@dataclass
class Run:
    """One run of the matrix: what all its jobs get, and the folder that they are sent from."""

    folder: Path
    commit: str
    table: Table
    used: dict[str, Host] = field(default_factory=dict)
    # What went wrong with a job last, and where.
    trouble: dict[str, tuple[str, str]] = field(default_factory=dict)
    passes: int = 0

    @property
    def there(self) -> str:
        """The folder on a host."""
        return f"{_THERE}/{self.folder.name}"

    def put(self, name: str, unit: dict[str, Any]) -> None:
        """The file of a job."""
        (self.folder / "units" / f"{name}.json").write_text(json.dumps(unit), encoding="utf-8")

    def results(self, name: str) -> Path:
        """What came of a job."""
        return self.folder / "results" / name


@contextlib.contextmanager
def run(out: Path, commit: str, table: Table) -> Iterator[Run]:
    """A folder to send jobs from; afterwards nothing of it is left, here or on a host."""
    folder = out / f".matrix-{secrets.token_hex(8)}"
    made = Run(folder, commit, table)
    with _told_to_end():
        try:
            try:
                folder.mkdir(mode=0o700, parents=True)
            except OSError as err:
                raise LabError(f"cannot write to {out} ({err.strerror}): name another folder with "
                               "OUT=") from err
            (folder / "units").mkdir()
            (folder / "results").mkdir()
            shutil.copyfile(_START, folder / "start.sh")
            _pack(folder, commit)
            yield made
        finally:
            _clean(made)


def _pack(folder: Path, commit: str) -> None:
    """The lab, as hosts get it."""
    done = subprocess.run(
        ["git", "-C", REPO, "bundle", "create", "-q", folder / "bundle", "HEAD"],
        stdin=subprocess.DEVNULL, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise LabError(f"git cannot pack {commit[:12]}: {done.stderr.strip()}")
    # Where history ends, in a clone that does not have all of it.
    shallow = REPO / (provenance.git("rev-parse", "--git-path", "shallow") or "")
    (folder / "shallow").write_bytes(shallow.read_bytes() if shallow.is_file() else b"")


@contextlib.contextmanager
def _told_to_end() -> Iterator[None]:
    """Who is told to end by another way than Ctrl-C cleans up, too."""
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _clean(made: Run) -> None:
    """Remove all that this run left, here and there.  Ctrl-C waits until that is done."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        far = [login for login, one in made.used.items() if not one.here]
        if far:
            # What is ended there may write for another moment.
            there = made.there
            _said, errors = gnuparallel.on_all(far, f"cd && for try in 1 2 3 4 5 6 7 8 9; do "
                                               f"rm -rf {there}; test -e {there} || break; sleep 1;"
                                               f" done 2> /dev/null; rmdir {_THERE} 2> /dev/null; "
                                               f"test ! -e {there}")
            for login in far:
                if errors.get(login):
                    made.table.note(f"{made.used[login].shown} cannot be reached: ~/{there} may be "
                                    "left there")
        remove(made.folder)
    finally:
        signal.signal(signal.SIGINT, before)


def go(made: Run, shares: dict[Kind, list[Work]], done: Callable[[str], None]) -> None:
    """Run all jobs, each kind of host its own, until none is left.

    `done` is called with the name of each as soon as it is over and its results are here.
    """
    made.passes += 1
    events: queue.Queue[tuple[Kind, str]] = queue.Queue()
    running: dict[str, subprocess.Popen[str]] = {}
    threads: list[threading.Thread] = []
    over: set[str] = set()
    try:
        for number, (kind, units) in enumerate(shares.items()):
            made.used.update({one.login: one for one in kind.hosts})
            name = f"{made.passes}-{number}"
            running[name] = _start(made, kind, units, name)
            threads.append(threading.Thread(target=_read, args=(running[name], kind, events),
                                            daemon=True))
            threads[-1].start()
        while any(one.is_alive() for one in threads) or not events.empty():
            try:
                _hear(made, *events.get(timeout=0.2))
            except queue.Empty:
                pass
            if events.empty():
                _look(made, running, over, done)
            made.table.show()
    finally:
        for process in running.values():
            _end(process)
        _look(made, running, over, done)
    for units in shares.values():
        for one in units:
            if one.name not in over:
                done(one.name)


def _look(made: Run, running: Iterable[str], over: set[str], done: Callable[[str], None]) -> None:
    """What parallel says is over, after its last try and with its results."""
    for name in running:
        for line in _lines(made.folder / f"joblog-{name}"):
            _seq, login, _began, _took, _sent, _got, status, number, command = line.split("\t", 8)
            unit = command.split()[2]
            if unit in over:
                continue
            over.add(unit)
            if status != "0" or number != "0":
                where = made.used[login].shown if login in made.used else login
                why = _said(made, name, unit) or (
                    f"it was ended by signal {number}" if number != "0" else
                    "the host was lost" if status == "255" else
                    f"its job ended with status {status}")
                made.trouble.setdefault(unit, (where, why))
            done(unit)


def _said(made: Run, name: str, unit: str) -> str:
    """The last that came of a job as an error."""
    path = made.folder / f"errors-{name}"
    lines = [line.partition("\t")[2].strip() for line in
             (path.read_text("utf-8", "replace").splitlines() if path.exists() else [])
             if line.startswith(f"{unit}\t")]
    return re.sub(r"^(error|fatal): ", "", next((line for line in reversed(lines) if line), ""))


def _lines(path: Path) -> list[str]:
    """The whole lines of a log of jobs, without its head."""
    text = path.read_text("utf-8", "replace") if path.exists() else ""
    return text[:text.rfind("\n") + 1].splitlines()[1:]


def _start(made: Run, kind: Kind, units: Sequence[Work], name: str) -> "subprocess.Popen[str]":
    logins = made.folder / f"hosts-{name}"
    logins.write_text("".join(f"{one.line()}\n" for one in kind.hosts), encoding="utf-8")
    for private in ("tmp", "home"):
        (made.folder / private).mkdir(exist_ok=True)
    # On this machine jobs run in the folder itself, and nothing has to be copied.
    far = [] if kind.here else [
        "--workdir", made.there,
        *(word for name in _FOR_ALL for word in ("--basefile", f"./{name}")),
        "--transferfile", "units/{1}.json", "--return", "results/{1}", "--cleanup"]
    return gnuparallel.minded(
        ["--sshloginfile", logins.name, "-j100%", *far, "--joblog", f"joblog-{name}",
         "--retries", str(min(TRIES, len(kind.hosts))), "--line-buffer", "--tagstring", "{1}",
         "--tmpdir", str(made.folder / "tmp"),
         f"sh start.sh {{1}} {made.commit}", ":::", *(one.name for one in units)],
        made.folder, made.folder / f"errors-{name}", made.folder / "home")


def _read(process: "subprocess.Popen[str]", kind: Kind, events: "queue.Queue[tuple[Kind, str]]"
          ) -> None:
    assert process.stdout
    for line in process.stdout:
        events.put((kind, line))


def _end(process: "subprocess.Popen[str]") -> None:
    assert process.stdin
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _hear(made: Run, kind: Kind, line: str) -> None:
    """What a job says of itself."""
    name, _tab, text = line.partition("\t")
    row = made.table.rows.get(name)
    if row is None or not text.startswith(job.MARK):
        return
    try:
        told = json.loads(text.removeprefix(job.MARK))
        if "login" in told:
            # What another host said of it before is of no interest any more.
            made.trouble.pop(name, None)
            shown = {one.login: one.shown for one in kind.hosts}
            made.table.begins(name, shown.get(str(told["login"]).strip(), str(told["host"])))
        elif "begins" in told:
            made.table.proves(name, str(told["begins"]))
        elif "defect" in told:
            word = str({"none": "nothing to prove", "failed": "failed"}.get(
                told["said"], told.get("verdict")))
            made.table.said(name, str(told["defect"]), word, str(told.get("why", "")))
        elif "failed" in told:
            made.trouble[name] = (row.where, str(told["failed"]))
            made.table.note(f"{name}: {row.where} refuses: {told['failed']}")
    except (ValueError, LookupError, TypeError, AttributeError):
        # Half a line, of a host that went.
        pass
