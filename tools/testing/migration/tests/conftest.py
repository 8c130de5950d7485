# SPDX-License-Identifier: GPL-2.0
"""What several tests need: Debian's trees and, from them, the kernels and the guest.

And how a run is told: a line a file with the seconds so far, and at its end how many proofs it set
out to make and how many it made.  One that made fewer has failed, whatever was skipped; so has one
in which a test got lost, as it may where a worker dies (workers.py).

Three lanes: all that CI runs; with FULL=1 also what takes hours; with FAST=1 only what needs
neither a kernel tree nor a boot.
"""

import atexit
import dataclasses
import functools
import io
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest
import workers

from lab import arch, base, defect
from lab.errors import NoSource
from lab.kernel import apt, source, variant
from lab.kernel.tree import File, Tree
from lab.paths import REPO, atomic_dir, locked
from lab.progress import Progress
from lab.trial import Trial, prepare
from lab.wanted import Wanted

# The architecture of the guests that are booted.
CHECK_ARCH = os.environ.get("CHECK_ARCH", "")
FULL, FAST = (os.environ.get(lane) == "1" for lane in ("FULL", "FAST"))
# Of Debian's sources, what tests look at, and what patches change.
PARTS = ("Makefile", "MAINTAINERS", "mm", "fs", "include", "kernel", "lib", "scripts", "arch/*/mm",
         "arch/*/include", "Documentation/*.rst")
Asked, Answer = TypeVar("Asked"), TypeVar("Answer")
NOT_FAST = "needs a kernel tree, or takes long: not with FAST=1"

# Who starts a job in the background of a script has it ignore Ctrl-C, and all that it starts; the
# tests of what Ctrl-C does start from there.
signal.signal(signal.SIGINT, signal.default_int_handler)


def outside_make() -> dict[str, str]:
    """The environment without what `make check` adds for a make below it, and without ARCH=, which
    who builds kernels may have there for good."""
    return {name: value for name, value in os.environ.items()
            if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "ARCH")}


def make(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make at the top, with these variables in the environment."""
    return subprocess.run(["make", "--no-print-directory", *words], cwd=REPO, text=True,
                          capture_output=True, check=False, env={**outside_make(), **environment})


def refused(*words: str, **environment: str) -> str:
    """The one line of an error with which make ends."""
    done = make(*words, **environment)
    errors = [line for line in done.stderr.splitlines() if not line.startswith("make:")]
    assert done.returncode != 0 and done.stdout == "", done.stdout
    assert len(errors) == 1 and errors[0].startswith("error: "), done.stderr
    return errors[0]


def debian_tarball(name: str) -> Path:
    """Debian's source of base `name`, packed; skips the test where it is not to be had."""
    if FAST:
        pytest.skip(NOT_FAST)
    try:
        return apt.source_package(base.load(name), Progress())[0]
    except NoSource as err:
        pytest.skip(f"no source of {name}: {err}")


def patched() -> list[str]:
    """The files of a kernel that any patch of this repository changes."""
    return sorted({path for patch in (REPO / "queue").rglob("*.patch")
                   for path in re.findall(r"(?m)^--- a/(\S+)$", patch.read_text(encoding="utf-8"))})


@functools.cache
def _unpacked() -> Path:
    """The folder of debian_files(), of all workers of a run."""
    folder = Path(tempfile.mkdtemp(prefix="lab-linux-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def _files_of(name: str, tarball: Path, unpacked: Path) -> Path:
    folder, top = unpacked / name, f"linux-source-{name}"
    more = [path for path in patched() if not path.startswith(tuple(f"{part}/" for part in PARTS))]
    with locked(unpacked / f"{name}.lock"):
        if not folder.exists():
            with atomic_dir(folder, ["mm/rmap.c"]) as new:
                # Not all versions have all of them: tar says so, and unpacks the others.
                subprocess.run(["tar", "-C", new, "-I", "xz -T0", "-xf", tarball, "--wildcards",
                                "--strip-components=1",
                                *(f"{top}/{part}" for part in (*PARTS, *more))],
                               capture_output=True, check=False)
    return folder


def debian_files(name: str) -> Path:
    """PARTS of the source of base `name`, as it is packed: not to be changed.

    Unpacked once a run, since to find one file takes as long as to find all.  To unpack all and
    keep it, as debian_tree() does, takes three times as long.
    """
    return _files_of(name, debian_tarball(name), OF_RUN.unpacked or _unpacked())


def debian_tree(name: str) -> source.Source:
    """The unpacked source of base `name`; skips the test where it is not to be had."""
    if FAST:
        pytest.skip(NOT_FAST)
    try:
        return source.from_base(base.load(name), Progress())
    except NoSource as err:
        pytest.skip(f"no source of {name}: {err}")


def taken(given: source.Source, work: Path | None = None, parts: Iterable[str] = ()
          ) -> source.Source:
    """The source with the files that are in its tree now as its pristine state, or `parts` of it.

    `work` is where the lab's copy of a tree is to be that is nobody's to change.
    """
    kept, quiet = Tree(work or given.tree.parent), Progress(io.StringIO())
    paths = [path for part in parts for top in given.tree.glob(part)
             for path in ([top] if top.is_file() else top.rglob("*")) if path.is_file()]
    files = {str(path.relative_to(given.tree)): File(str(path)) for path in paths
             if not path.is_symlink()}
    with kept.lock(quiet):
        kept.take(given.tree, files or None, quiet)
        kept.name(given.key)
    return dataclasses.replace(given, tree=kept.path, pristine=kept.pristine())


class Ahead(Generic[Asked, Answer]):
    """What a call answers, two at a time, as soon as the first of them is asked for.

    For what is one program with one thread, of which a test wants one each: there are two CPUs.
    `asked` are those of the tests that are to run.
    """

    def __init__(self, call: Callable[[Asked], Answer], asked: Iterable[Asked]) -> None:
        self._pool = ThreadPoolExecutor(max_workers=2)
        self._answers = [(one, self._pool.submit(call, one)) for one in asked]

    def __call__(self, asked: Asked) -> Answer:
        return next(answer for one, answer in self._answers if one == asked).result()

    def close(self) -> None:
        """Begin no more."""
        self._pool.shutdown(cancel_futures=True)


def asked_for(request: pytest.FixtureRequest, test: str, name: str) -> list[Any]:
    """The values of a parameter of those tests of a file that are to run, in their order."""
    return [item.callspec.params[name] for item in request.session.items
            if isinstance(item, pytest.Function) and item.path == request.path
            and item.originalname == test
            and not any(mark.args and mark.args[0] for mark in item.iter_markers("skipif"))]


def put(given: source.Source, one: variant.Variant) -> None:
    """Bring the tree of a source to a variant, under its lock."""
    with given.kept.lock(Progress(io.StringIO())):
        variant.put(given, one)


def wanted(out: Path, **changes: object) -> Wanted:
    """What `make prove` with no variables asks for."""
    values: dict[str, object] = {
        "defect": defect.load("pmd-share-migrate"), "base": "6.12", "kernel": None, "boots": 1,
        "accel": None, "debug": False, "timeout": None, "tests": (), "out": out,
        "command": "make prove"}
    return Wanted(**(values | changes))      # type: ignore[arg-type]


@pytest.fixture(scope="session")
def tree612() -> Path:
    return debian_tree("6.12").tree


@pytest.fixture(scope="session")
def fixed() -> Trial:
    """6.12, as it is, built or from the cache."""
    debian_tree("6.12")
    return prepare(wanted(REPO / "out"), arch.load(CHECK_ARCH), Progress())[-1]


# ---- what a run sets out to do, and what came of it ------------------------------------------

def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "proof(kernels): a proof, by booting so many kernels")
    config.addinivalue_line("markers", "first: runs before all others")
    config.addinivalue_line("markers", "alone: runs beside no other")
    config.addinivalue_line("markers", "slow: not with FAST=1")
    if workers.in_worker(config):
        OF_RUN.unpacked = Path(config.workerinput["unpacked"])
    config.pluginmanager.register(OF_RUN, "lab-run")
    config.pluginmanager.register(workers.Workers(), "lab-workers")


class _Run:
    """Counts the proofs of a run, tells how far it is, and misses what got lost."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.terminal: pytest.TerminalReporter | None = None
        self.unpacked: Path | None = None       # where debian_files() are, in a worker
        self.proofs: dict[str, int] = {}        # kernels to be booted, by test
        self.long: set[str] = set()             # told when they begin: some take minutes
        self.proved: set[str] = set()
        self.excused: set[str] = set()          # a tree that nobody else than the user has
        self.left: dict[str, set[str]] = {}     # by file: tests of which nothing is known yet
        self.whole = False                      # nobody ended it before
        self.seconds: Counter[str] = Counter()
        self.counts: dict[str, Counter[str]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: item.get_closest_marker("first") is None)
        for item in items:
            if FAST and (item.get_closest_marker("slow") or item.get_closest_marker("proof")
                         or {"tree612", "fixed"} & set(getattr(item, "fixturenames", ()))):
                item.add_marker(pytest.mark.skip(reason=NOT_FAST))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            mark = item.get_closest_marker("proof")
            lane = FAST or any(one.args and one.args[0] for one in item.iter_markers("skipif"))
            if mark and not lane:
                self.proofs[item.nodeid] = mark.args[0]
            if not lane and (mark or item.get_closest_marker("first")):
                self.long.add(item.nodeid)
            self.left.setdefault(_file(item.nodeid), set()).add(item.nodeid)

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self.terminal = session.config.pluginmanager.get_plugin("terminalreporter")

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["unpacked"] = str(_unpacked())

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        if error:
            self._line(f"worker {node.gateway.id} is gone: {error}")

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str) -> None:
        # It has failed, and that is its end.
        self.left[_file(crashitem)].discard(crashitem)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtestloop(self) -> Iterator[None]:
        ended = yield
        self.whole = ended.excinfo is None      # type: ignore[attr-defined]
        for file in self.counts.copy():
            self._end_file(file)

    @staticmethod
    def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
        # No dots: what passes is told by file, what fails by a line.
        if report.when == "call" and report.passed:
            return "passed", "", ""
        if report.skipped and not hasattr(report, "wasxfail"):
            return "skipped", "", ""
        if report.failed:
            return "failed" if report.when == "call" else "error", "", ""
        return None

    def _line(self, text: str) -> None:
        if self.terminal:
            seconds = int(time.monotonic() - self.began)
            self.terminal.ensure_newline()
            self.terminal.write_line(f"[{seconds // 60:2d}:{seconds % 60:02d}] {text}")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.counts.setdefault(_file(nodeid), Counter())
        if nodeid in self.long:
            self._line(f"{Path(_file(nodeid)).name}: {nodeid.partition('::')[2]} ...")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        file = _file(report.nodeid)
        self.seconds[file] += report.duration
        if report.when == "call" or report.outcome != "passed":
            self.counts.setdefault(file, Counter())[report.outcome] += 1
        if report.failed:
            self._line(f"FAILED {report.nodeid}")
        if report.nodeid in self.proofs and report.when == "call" and report.passed:
            self.proved.add(report.nodeid)
        if report.skipped and isinstance(report.longrepr, tuple) and \
                NO_TREES in report.longrepr[2]:
            self.excused.add(report.nodeid)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        left = self.left[_file(nodeid)]
        left.discard(nodeid)
        if not left:
            self._end_file(_file(nodeid))

    def _end_file(self, file: str) -> None:
        counts = self.counts.pop(file)
        said = ", ".join(f"{counts[word]} {word}" for word in ("passed", "failed", "skipped")
                         if counts[word])
        self._line(f"{Path(file).name}: {said or 'nothing ran'} ({self.seconds[file]:.0f} s)")

    @property
    def _set_out(self) -> dict[str, int]:
        return {name: kernels for name, kernels in self.proofs.items() if name not in self.excused}

    @property
    def _lost(self) -> list[str]:
        return sorted(set().union(*self.left.values())) if self.whole else []

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if session.exitstatus == 0 and not workers.in_worker(session.config) \
                and not session.config.option.collectonly \
                and (self._set_out.keys() - self.proved or self._lost):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self) -> None:
        if self.terminal is None:
            return
        if self._lost:
            self.terminal.write_line(f"{len(self._lost)} tests did not come to their end")
            for name in self._lost[:20]:
                self.terminal.write_line(f"  no end: {name}")
        if not self.proofs:
            return
        out = self._set_out
        made = {name: out[name] for name in out if name in self.proved}
        self.terminal.write_line(
            f"{sum(out.values())} kernels were to be booted, {sum(made.values())} were; "
            f"{len(out)} proofs were to be made, {len(made)} were")
        for name in sorted(out.keys() - made.keys()):
            self.terminal.write_line(f"  not proved: {name}")


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


OF_RUN = _Run()
# In the reason of a test that wants a tree which only the user can name.
NO_TREES = "name a folder with TREES="
# Selftests of what series.flush does: they fail without it, so no kernel gets them yet.
LATER = ("hugetlb_pmd_busy",)
# Of what series.flush could get wrong: it has nothing to say of a kernel without.
OF_FLUSH = ("hugetlb_pmd_join",)
# Of what is sent by itself, queue/unmapped.
APART = ("hugetlb_pmd_unmapped",)
