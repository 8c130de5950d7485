# SPDX-License-Identifier: GPL-2.0
"""make matrix: what is missing, what it costs, and hosts that do not do as they should.

The hosts are sshd's on loopback (machines.py), and a proof is one of a moment (quick_prove.py): the
lab that asks, and that each host gets a clone of, is a repository made here.
"""

import dataclasses
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import FULL, outside_make
from machines import ROOT, SSHD, Machine, Machines
from runs import boot, run, told
from trees import git

from lab import arch, base, cli, defect, deps, options, provenance
from lab.errors import LabError
from lab.guest import qemu
from lab.judge.summary import Provenance, Summary
from lab.matrix import gnuparallel, hosts, job, live, plan, results
from lab.matrix.hosts import Host
from lab.matrix.results import Asked
from lab.paths import HOME, REPO
from lab.progress import Progress
from lab.tell import cells, chart, page, record, result
from lab.tell.cells import Cell, Note
from lab.verbs import matrix

# Ports, and jobs that are lost if they take too long.
pytestmark = pytest.mark.alone

needs_hosts = pytest.mark.skipif(
    not (SSHD and shutil.which("parallel") and shutil.which("rsync")),
    reason="there is no sshd, parallel or rsync: apt install openssh-server parallel rsync")
# What takes a minute with all of this, and is left to the long run.
LONG = pytest.mark.skipif(not FULL, reason="takes long: make check FULL=1 runs it")
HERE = arch.host()
# A busy machine is no failure.
LIMIT = 900
TWO = "pmd-share-migrate,pmd-share-flush"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lab(tmp_path_factory.mktemp("lab") / "repo")


def make_lab(top: Path) -> Path:
    """A repository with this lab, in which a proof takes no time."""
    for name in ("queue", "lib", "mm", "include", "tools/testing/selftests", "Makefile",
                 "tools/testing/migration"):
        if (REPO / name).is_dir():
            shutil.copytree(REPO / name, top / name, ignore=shutil.ignore_patterns(
                "__pycache__", *(["tests", "records"] if name.endswith("migration") else [])))
        else:
            shutil.copy(REPO / name, top / name)
    home = top / HOME.relative_to(REPO)
    shutil.copy(HOME / "tests/quick_prove.py", home / "lab/verbs/prove.py")
    made = run([boot("vulnerable")], [boot("fixed")])
    assert made.verdict == "PROVED"
    (home / "stand-in.json").write_text(json.dumps(told(made)))
    shutil.copy(REPO / ".gitignore", top)
    git(top.parent, "init", "-q", top.name)
    git(top, "add", ".")
    git(top, "commit", "-qm", "one")
    return top


class Front:
    """Who asks."""

    def __init__(self, lab: Path, out: Path) -> None:
        self.lab, self.out = lab, out
        self.records = lab / HOME.relative_to(REPO) / "records"

    def start(self, *words: str, **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-B", self.lab / HOME.relative_to(REPO) / "migration.py", "matrix",
             f"OUT={self.out}", f"ARCH={HERE}", *words], text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True,
            env={**outside_make(), "LAB_CACHE": str(self.out.parent / "cache"), **environment})

    def ask(self, *words: str, **environment: str) -> tuple[int, str, str]:
        """Exit status, standard output, and errors."""
        return self.finish(self.start(*words, **environment))

    @staticmethod
    def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
        """What it says until it ends."""
        try:
            said, errors = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            process.terminate()
            said, errors = process.communicate()
            pytest.fail(f"not done within {LIMIT} s:\n{said}{errors}")
        return process.returncode, said, errors

    def recorded(self) -> list[str]:
        return sorted(f"{path.parent.name}/{path.name}" for path in self.records.glob("*/*.json"))

    def notes(self) -> dict[str, Any]:
        return {path.stem: json.loads(path.read_text())["notes"]
                for path in (self.out / "matrix").glob("*.json")}


@pytest.fixture
def front(lab: Path, tmp_path: Path) -> Iterator[Front]:
    made = Front(lab, tmp_path / "out")
    yield made
    # What it proved is for the next to prove again.
    shutil.rmtree(made.records, ignore_errors=True)
    assert git(lab, "status", "--porcelain") == ""
    assert not list(made.out.glob(".matrix-*")), "a folder of a run is left"


@pytest.fixture
def machines() -> Iterator[Machines]:
    made = Machines()
    yield made
    made.close()


# ---- hosts -----------------------------------------------------------------------------------


@LONG
def test_on_this_machine(front: Front) -> None:
    """What is proved is recorded, and is green until a selftest changes."""
    scope = (f"DEFECT={TWO},exec-temp-stack", "BASE=6.12", "BOOTS=2")
    status, said, errors = front.ask(*scope)
    assert status == 0 and said.endswith(
        "GREEN: all that can be proved is proved, by the selftests and patches of today\n"), said
    assert "3 cells: 2 PROVED, 0 stale, 0 missing, 1 nothing to prove\n" in said
    tag = arch.tag(HERE)
    assert front.recorded() == [f"pmd-share-flush/6.12.1{tag}.json",
                                f"pmd-share-migrate/6.12.1{tag}.json"]
    notes = front.notes()[f"6.12-{HERE}"]
    assert {name: note["said"] for name, note in notes.items()} == {
        "pmd-share-flush": "done", "pmd-share-migrate": "done", "exec-temp-stack": "none"}
    home = front.out / notes["pmd-share-flush"]["folder"]
    assert json.loads((home / "verdict.json").read_text())["provenance"]["dirty"] is False
    assert (home / "make-prove.log").read_text() and (home / "fixed").is_dir()
    assert not list(home.rglob("image"))
    # Nothing is left to do, and the records alone say so.
    status, said, errors = front.ask(*scope)
    assert status == 0 and "begins" not in said
    assert all("looking at what is proved" in line for line in errors.splitlines())
    shutil.rmtree(front.out)
    assert front.ask(f"DEFECT={TWO}", "BASE=6.12", "BOOTS=2", "PLAN=check")[0] == 0
    # More boots are asked for than there were, and then for other tests.
    status, said, _errors = front.ask(f"DEFECT={TWO}", "BASE=6.12", "BOOTS=3", "PLAN=check")
    assert status == 1 and "2 stale, 0 missing" in said
    assert "stale (proved with fewer than 3 boots): pmd-share-migrate 6.12" in said
    test = front.lab / "tools/testing/selftests/mm/hugetlb_pmd_flush.c"
    text = test.read_text()
    test.write_text(text + "int more;\n")
    try:
        status, said, _errors = front.ask(f"DEFECT={TWO}", "BASE=6.12", "PLAN=check")
        assert status == 1 and "stale (the selftests have changed since): pmd-share-flush" in said
        assert "2 cells: 1 PROVED, 1 stale, 0 missing" in said and "NOT GREEN" in said
        status, said, errors = front.ask(f"DEFECT={TWO}", "BASE=6.12")
        assert (status, errors.splitlines()[-1]) == (
            2, f"error: {test.relative_to(front.lab)} is in no commit, and a commit is what hosts "
               "get: commit it, or put it away")
    finally:
        test.write_text(text)


WRONG = """\
#!/bin/sh
/usr/bin/git "$@" || exit
case "$*" in
*checkout*) /usr/bin/git -C "$2" -c user.name=a -c user.email=a@invalid commit -q --allow-empty -m b
esac
"""


def test_two_at_once(front: Front) -> None:
    """Two of one folder, and of one base: what each has proved is kept."""
    names = TWO.split(",")
    both = [front.start(f"DEFECT={name}", "BASE=6.12", "BOOTS=2") for name in names]
    for name, process in zip(names, both):
        status, said, errors = front.finish(process)
        assert status == 0 and "1 cell: 1 PROVED" in said, (name, said, errors)
    assert sorted(front.notes()[f"6.12-{HERE}"]) == sorted(names)
    assert len(front.recorded()) == 2


def test_two_keep_what_they_know_of_one_unit(tmp_path: Path) -> None:
    """Between reading and writing is no time for another."""
    asked = Asked("0", 1, False)

    def some(who: int) -> None:
        for number in range(40):
            results.keep("6.12", HERE, asked, {f"{who}-{number}": Note("failed", "why")}, tmp_path)

    threads = [threading.Thread(target=some, args=(who,)) for who in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    [unit] = cells.read(tmp_path)
    assert len(unit.notes) == 160


@needs_hosts
def test_hosts_that_do_not_do_as_they_should(front: Front, machines: Machines) -> None:
    """One refuses the key, one has another commit, one has no room, one is not there: what they
    were given is done by the one that is left."""
    good = machines.add("good")
    machines.add("refuses", keyed=False)
    (machines.top / "bin").mkdir()
    (machines.top / "bin/git").write_text(WRONG)
    (machines.top / "bin/git").chmod(0o755)
    others = [machines.add("strays", path=str(machines.top / "bin"))]
    if ROOT:
        others.append(machines.add("full", full=True))
    file = machines.file("127.0.0.1:1")
    if ROOT:
        subprocess.run(["nsenter", "-t", str(machines.all["full"].sshd.pid), "-m", "touch",
                        machines.all["full"].home / "fill"], check=True)
    status, said, errors = front.ask("DEFECT=pmd-share-migrate", "BASE=6.12,6.1,5.10",
                                     f"HOSTS={file}")
    assert status == 0, said + errors
    assert "refuses is left out: it refuses the key: run ssh-copy-id" in errors
    assert "127.0.0.1:1 is left out: it cannot be reached" in errors
    assert len(front.recorded()) == 3 and "3 PROVED" in said
    for notes in front.notes().values():
        assert {note["host"] for note in notes.values()} == {"good"}
    assert re.search(r"strays refuses: the lab there is of commit \w{12}, not \w{12}", said)
    if ROOT:
        # It may be that nothing was left for it.
        assert "failed: the disk is full at " in said or "begins on full" not in said
    for one in (good, *others):
        assert one.processes("stands-in") == [] and not list(one.home.rglob("pmd-share-matrix"))


@LONG
@needs_hosts
def test_a_host_that_is_killed(front: Front, machines: Machines) -> None:
    """Its job is done by the other; where there is no other, it is missing, and nothing green."""
    doomed, other = machines.add("doomed"), machines.add("other")
    doomed.put("slow", "300")
    other.put("slow", "1")
    process = front.start(f"DEFECT={TWO}", "BASE=6.12,6.1", f"HOSTS={machines.file()}")
    assert _wait(lambda: doomed.processes("stands-in-for-qemu"))
    doomed.kill()
    status, said, errors = front.finish(process)
    assert status == 0 and "4 PROVED" in said, said + errors
    assert "doomed cannot be reached" in said and len(front.recorded()) == 4
    assert {note["host"] for notes in front.notes().values() for note in notes.values()} == {
        "other"}
    other.put("slow", "300")
    (machines.top / "hosts").write_text(other.line + "\n")
    process = front.start("DEFECT=pmd-share-migrate", "BASE=5.10", f"HOSTS={machines.top}/hosts")
    assert _wait(lambda: other.processes("stands-in-for-qemu"))
    other.kill()
    status, said, _errors = front.finish(process)
    assert status == 1 and "1 missing" in said and "NOT GREEN" in said
    assert re.search(r"missing \(other: .*\): pmd-share-migrate 5\.10", " ".join(said.split()))


@LONG
@needs_hosts
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_front_is_ended(front: Front, machines: Machines, number: int) -> None:
    """Ctrl-C ends all and leaves nothing; a kill leaves files, and nothing that runs."""
    one = machines.add("one")
    one.put("slow", "300")
    process = front.start(f"DEFECT={TWO}", "BASE=6.12", f"HOSTS={machines.file()}")
    assert _wait(lambda: one.processes("stands-in-for-qemu"))
    os.kill(process.pid, number)
    _status, said, errors = front.finish(process)
    assert _wait(lambda: not one.processes("stands-in-for-qemu"))
    if number == signal.SIGINT:
        assert process.returncode == 130 and errors.splitlines()[-1] == "interrupted"
        assert "what was not done is missing, and make matrix goes on with it" in said
        assert not (one.home / ".cache/pmd-share-matrix").exists()
        assert one.processes("matrix") == []
    else:
        for folder in front.out.glob(".matrix-*"):
            assert _wait(lambda: not _running(folder.name))
            shutil.rmtree(folder)
    assert front.recorded() == []


@LONG
def test_ctrl_c_keeps_what_was_proved_here(front: Front, tmp_path: Path) -> None:
    """The first of two proofs is done when Ctrl-C comes, and is not made again."""
    (tmp_path / "slow").write_text(f"300 {TWO.rpartition(',')[2]}")
    process = front.start(f"DEFECT={TWO}", "BASE=6.12", HOME=str(tmp_path))
    assert _wait(lambda: _running("stands-in-for-qemu"))
    os.kill(process.pid, signal.SIGINT)
    _status, said, errors = front.finish(process)
    assert process.returncode == 130 and errors.splitlines()[-1] == "interrupted", said + errors
    assert _wait(lambda: not _running("stands-in-for-qemu"))
    first = f"{TWO.partition(',')[0]}/6.12.1{arch.tag(HERE)}.json"
    assert front.recorded() == [first]
    proved = (front.records / first).read_text()
    assert [note["said"] for note in front.notes()[f"6.12-{HERE}"].values()] == ["done"]
    (tmp_path / "slow").unlink()
    status, said, _errors = front.ask(f"DEFECT={TWO}", "BASE=6.12", HOME=str(tmp_path))
    assert status == 0 and "2 PROVED" in said
    assert (front.records / first).read_text() == proved, "proved twice"


@LONG
@needs_hosts
def test_what_the_spread_costs(front: Front, machines: Machines) -> None:
    """CPU time of all but the proofs, both sides together, against the two cores of a host that is
    at work for five minutes, as for a first proof."""
    one = machines.add("one")
    spent = []
    for number, seconds in enumerate((0.0, 60.0)):
        # What runs here costs what it does where nothing else than the lab is at work.
        one.put("slow", str(seconds / 2))
        before = _cpu(one)
        status, said, errors = front.ask(f"DEFECT={TWO}", f"BASE={('6.12', '6.1')[number]}",
                                         f"HOSTS={machines.file()}")
        assert status == 0, said + errors
        spent.append(_cpu(one) - before)
    # The proofs themselves, which are of a moment here, are a part of it.
    once, rate = spent[0], max(0.0, spent[1] - spent[0]) / 60
    share = (once + rate * 303) / (2 * 303)
    print(f"{once:.1f} s of CPU time a job, and {rate * 1000:.1f} ms each second that it runs: "
          f"{100 * share:.2f} % of two cores for 303 s")
    assert share < 0.02


def _cpu(one: Machine) -> float:
    """Seconds of CPU time so far: of what this process started and is done, and the same of an
    sshd."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    fields = Path(f"/proc/{one.sshd.pid}/stat").read_text().rpartition(")")[2].split()
    return used.ru_utime + used.ru_stime + sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _wait(true: Callable[[], object]) -> bool:
    until = time.monotonic() + LIMIT
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


def _running(word: str) -> list[str]:
    return [path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline")
            if word.encode() in _read(path)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


# ---- what is put in wrong --------------------------------------------------------------------


@pytest.mark.parametrize(("words", "says"), [
    (("HOSTS=/nonexistent",), "HOSTS=/nonexistent: No such file or directory: name a file"),
    (("HOSTS={empty}",), "names no host: write one a line, such as 2/me@server"),
    (("HOSTS={none}",), "line 2: @x/y: [JOBS/][USER@]HOST[:PORT] is wanted"),
    (("HOSTS={twice}",), "names a@b twice: leave one out"),
    (("ARCH=z80",), f"no architecture z80: the lab knows {', '.join(arch.names())}"),
    (("BASE=3.0",), "no base 3.0: there are"),
    (("DEFECT=nonesuch",), "no defect nonesuch: there are"),
    (("TREES=/nonexistent",), "TREES=/nonexistent: there is no such folder"),
    (("PLAN=yes",), "PLAN=yes: one of 0, 1, json, check is wanted"),
    (("BOOTS=0",), "BOOTS=0: a whole number"),
])
def test_bad_input_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                               capsys: pytest.CaptureFixture[str], words: tuple[str, ...],
                               says: str) -> None:
    def never(*_: object) -> None:
        pytest.fail("it went on")
    monkeypatch.setattr(matrix, "_look", never)
    texts = {"empty": "# nothing\n\n", "none": "a\n@x/y\n", "twice": "a@b\n2/a@b\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    words = tuple(word.format(**{name: tmp_path / name for name in texts}) for word in words)
    assert cli.main(["matrix", "BASE=6.12", f"OUT={tmp_path}/out", *words]) == 2
    told_ = capsys.readouterr()
    assert told_.out == "" and told_.err.startswith("error: ") and told_.err.count("\n") == 1
    assert says in told_.err and not (tmp_path / "out").exists()


@needs_hosts
def test_no_host_is_left(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("127.0.0.1:1\n")
    with pytest.raises(LabError, match="no host can take a job: 127.0.0.1:1 is left out: it"):
        hosts.ask(tmp_path / "hosts", Progress(io.StringIO()))


def test_another_parallel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "parallel").write_text("#!/bin/sh\necho moreutils\n")
    (tmp_path / "parallel").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match="is not GNU parallel: install Debian's package parallel"):
        gnuparallel.check()
    (tmp_path / "parallel").unlink()
    with pytest.raises(LabError, match="there is no parallel: install Debian's package parallel"):
        gnuparallel.check()
    assert "parallel" in deps.missing(deps.MATRIX)


@pytest.mark.parametrize(("line", "login", "jobs"), [
    ("server", "server", 0), ("8/me@server:2222  # fast", "me@server:2222", 8), (":", ":", 0),
    ("2/ssh -p 22 server", f"ssh {' '.join(gnuparallel.SSH)} -p 22 server", 2),
])
def test_a_line_of_hosts(tmp_path: Path, line: str, login: str, jobs: int) -> None:
    (tmp_path / "hosts").write_text(f"# mine\n\n{line}\n")
    [one] = hosts.read(tmp_path / "hosts")
    assert (one.login, one.jobs) == (login, jobs)


# ---- what a host says of itself ----------------------------------------------------------------

FACTS = {"machine": "x86_64", "cores": "8", "mib": "32000", "disk": "90000", "cached": "0",
         "kvm": "1", "seen": "", "treeless": "", "lacks": ""}


def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str = "one",
          trees: Sequence[Path] = (), **facts: str) -> tuple[list[Host], str]:
    """The hosts that are left of one that says this of itself, and what is told."""
    said = "pmd-share-host " + " ".join(f"{name}={text}" for name, text in (FACTS | facts).items())
    monkeypatch.setattr(gnuparallel, "on_all", lambda logins, _script: (
        {login: said + "\n" for login in logins}, {}))
    (tmp_path / "hosts").write_text(f"{line}\n:\n")
    told_ = io.StringIO()
    return hosts.ask(tmp_path / "hosts", Progress(told_), trees), told_.getvalue()


def test_a_host_is_asked_what_it_has(tmp_path: Path) -> None:
    """By a shell, with nothing that Debian's base system lacks."""
    (tmp_path / "trees/4.19").mkdir(parents=True)
    (tmp_path / "trees/4.19/Makefile").write_text("")
    script = hosts._ASK.format(trees=f"{tmp_path}/trees/4.19 '{tmp_path}/a b/4.4'")
    known = qemu._kvm_known(dataclasses.replace(arch.load(), qemu=f"qemu-system-{os.uname().machine}"))
    for seen in ("", "no", "yes"):
        cache = tmp_path / f"cache{seen}"
        if seen:
            (cache / "kvm").mkdir(parents=True)
            (cache / "images").mkdir()
            (cache / "kvm" / known.name).write_text(f"{seen}\n")
        done = subprocess.run(["sh", "-c", script], text=True, capture_output=True, check=True,
                              env={**os.environ, "LAB_CACHE": str(cache)})
        facts = dict(hosts._FACT.findall(done.stdout))
        assert facts.keys() == FACTS.keys() and done.stderr == "" and done.stdout.count("\n") == 1
        assert (facts["seen"], facts["cached"]) == (seen, "1" if seen else "0")
        assert facts["treeless"] == "4.4," and facts["machine"] == os.uname().machine
        assert all(int(facts[name]) > 0 for name in ("cores", "mib", "disk"))


@pytest.mark.parametrize(("kvm", "seen", "words"), [
    ("0", "", "without KVM"), ("1", "", "with a /dev/kvm that was not tried"),
    ("1", "yes", "with KVM"), ("1", "no", "without KVM"), ("0", "yes", "without KVM")])
def test_a_dev_kvm_alone_says_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kvm: str,
                                     seen: str, words: str) -> None:
    [one, mine], _told = asked(tmp_path, monkeypatch, kvm=kvm, seen=seen)
    assert one.kvm is (words != "without KVM") and f", {words}, " in one.told()
    # And the same of this machine.
    monkeypatch.setattr(hosts.os, "access", lambda *_words: kvm == "1")
    monkeypatch.setattr(qemu, "kvm_seen", lambda _arch: {"yes": True, "no": False}.get(seen))
    assert f", {words}, " in hosts.here().told() and hosts.here().kvm is one.kvm
    assert mine.here


@pytest.mark.parametrize(("facts", "says"), [
    ({"mib": "1000"}, "it has 1000 MiB of memory, and a job takes 4096 MiB or more"),
    ({"disk": "5000"}, "its disk has 5000 MiB free for the cache, and a job takes 6144 MiB"),
    ({"disk": "900", "cached": "1"}, "its disk has 900 MiB free"), ({"disk": "5000", "cached": "1"}, ""),
    ({"mib": "8000"}, ""), ({"disk": "x"}, "it says: it did not answer")])
def test_a_host_that_no_job_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                 facts: dict[str, str], says: str) -> None:
    found, said = asked(tmp_path, monkeypatch, **facts)
    assert len(found) == (1 if says else 2)
    assert f"one is left out: {says}" in said if says else "left out" not in said
    # Who says how many jobs it is to have is believed.
    if "x" not in facts.values():
        assert len(asked(tmp_path, monkeypatch, "1/one", **facts)[0]) == 2


def test_a_host_without_a_tree_gets_other_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                               ) -> None:
    (tmp_path / "4.14").mkdir()
    (tmp_path / "4.14/Makefile").write_text("")
    trees = [tmp_path / "4.14", tmp_path / "4.4"]
    found, _said = asked(tmp_path, monkeypatch, "9/one", trees, treeless="4.14,")
    assert [one.without for one in found] == [("4.14",), ("4.4",)]
    assert found[0].told().endswith("; no tree of 4.14")
    units = [plan.Work(base, HERE, ("d",), 9.0, 9.0, 0) for base in ("4.14", "4.4", "4.9")]
    shares, _last = plan.share(units, plan.kinds(found))
    where = {one.base: kind.here for kind, some in shares.items() for one in some}
    assert where["4.14"] is True and where["4.4"] is False
    # Where nobody has it a job says so.
    assert matrix._shares({"x": plan.Work("4.4", HERE, ("d",), 9.0, 9.0, 0)}, found[1:], {"x": set()})
    only = plan.able(units[0], plan.kinds(found))
    assert [kind.here for kind in only] == [True]
    assert matrix._shares({"x": units[0]}, found, {"x": set(only)}) == {}


# ---- what comes back -------------------------------------------------------------------------

COMMIT = "c0ffee" * 6 + "abcd"
ASKED = Asked(COMMIT, 2, False)


def test_a_job_builds_its_kernels_with_the_same_options() -> None:
    """Nearly all of a kernel is compiled anew for other options: what any of them needs, all get."""
    plain, split, poison = "pmd-share-migrate", "pmd-share-split", "pmd-share-uffd-poison"
    assert job.alike([plain]) == job.alike([split]) == []
    assert job.alike([split, "pmd-share-range"]) == []      # they ask for the same
    words = job.alike([plain, split, poison])
    assert words == job.alike([poison, plain, split]) == [
        "KCONFIG=DEBUG_ATOMIC_SLEEP=y DEBUG_KERNEL=y USERFAULTFD=y"]
    made = {cli._wanted(options.parse(["prove", f"DEFECT={one}", *words])).defect.kernel.options
            for one in (plain, split, poison)}
    assert made == {("CONFIG_DEBUG_ATOMIC_SLEEP=y", "CONFIG_DEBUG_KERNEL=y", "CONFIG_USERFAULTFD=y")}


def test_defects_that_want_different_values_get_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    real = defect.load

    def load(name: str) -> defect.Defect:
        return defect.asking(real("pmd-share-migrate"), [f"CONFIG_NR_CPUS={name}"])
    monkeypatch.setattr(job.defect, "load", load)
    assert job.alike(["8", "8"]) == job.alike(["8", "16"]) == []


@pytest.mark.parametrize("lost", [True, False])
def test_where_an_option_does_not_stick_each_gets_its_own(
        monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lost: bool) -> None:
    tried: list[tuple[str, bool]] = []

    def prove(_asked: dict[str, Any], name: str, more: list[str], _out: Path, _dest: Path
              ) -> dict[str, str]:
        tried.append((name, bool(more)))
        why = "1 option did not stick in the configuration of 4.4: X" if lost and more else "no"
        return {"said": "failed", "why": why}
    monkeypatch.setattr(job, "_prove", prove)
    monkeypatch.setattr(job, "_other", lambda _asked: "")
    names = ["pmd-share-migrate", "pmd-share-split"]
    job.main({"name": "6.12-x86_64", "defects": names, "commit": COMMIT}, tmp_path, tmp_path)
    first, second = names
    assert tried == ([(first, True), (first, False), (second, False)] if lost else
                     [(first, True), (second, True)])


def brought(folder: Path, how: str = "") -> tuple[Summary, dict[str, Any]]:
    """What a job of pmd-share-migrate on 6.12 left in `folder`, and what it was asked."""
    one = defect.load("pmd-share-migrate")
    unit = job.unit(COMMIT, "6.12-x86_64", "6.12", "x86_64", (one.name,), False, (), "")
    origin = provenance.of_run(arch.load(), one.show.selftests, ["as it is"],
                               provenance.rules_of(one))
    origin = dataclasses.replace(origin, lab=COMMIT, dirty=False)
    origin = {"commit": dataclasses.replace(origin, lab="0" * 40),
              "changes": dataclasses.replace(origin, dirty=True),
              "selftests": dataclasses.replace(origin, selftests="0"),
              "queue": dataclasses.replace(origin, queue="0")}.get(how, origin)
    boots = 1 if how == "boots" else 2
    made = run([boot("vulnerable", number) for number in range(1, boots + 1)],
               [boot("fixed", number) for number in range(1, boots + 1)], boots, provenance=origin,
               arch="arm64" if how == "arch" else "x86_64")
    (folder / "home").mkdir(parents=True)
    result.write(dataclasses.replace(made, command="/there/out/x"), folder / "home")
    said = {one.name: {"said": "done", "folder": "home", "was": "/there/out/x"}}
    text = json.dumps({"commit": "0" * 40 if how == "job" else COMMIT, "host": "h", "said": said})
    if how != "nothing":
        (folder / job.FILE).write_text("{" if how == "broken" else text)
    return made, unit


@pytest.mark.parametrize(("how", "why"), [
    ("commit", "its result is of commit 000000000000, not c0ffeec0ffee"),
    ("changes", "with changes, not c0ffee"), ("selftests", "its result is of other selftests"),
    ("queue", "of other selftests or patches: the patches or rules have changed"),
    ("boots", "its result is of fewer than 2 boots"), ("arch", "its result is of something else"),
    ("job", "its results are of commit 000000000000"), ("nothing", "the host was lost"),
    ("broken", "its job.json cannot be read"),
])
def test_a_result_of_something_else_does_not_count(tmp_path: Path, how: str, why: str) -> None:
    _made, unit = brought(tmp_path / "in", how)
    trouble = "the host was lost" if how == "nothing" else ""
    notes = results.take(tmp_path / "in", ASKED, unit, "h", trouble, tmp_path / "out")
    [note] = notes.values()
    assert note.said == "failed" and why in note.why and note.host == "h"
    assert not (tmp_path / "out").exists()


def test_a_result_that_counts(tmp_path: Path) -> None:
    _made, unit = brought(tmp_path / "in")
    [note] = results.take(tmp_path / "in", ASKED, unit, "h", "", tmp_path / "out").values()
    assert note == Note("done", folder="home", host="h")
    back = record.load(tmp_path / "out/home/verdict.json")
    assert back.command == str(tmp_path / "out/home") and back.verdict == "PROVED"


def test_a_record_of_another_form_is_not_in_the_way(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is newer, and of other patches: what was proved is recorded beside it."""
    made = run([boot("vulnerable")], [boot("fixed")], started="2026-01-01")
    other = dataclasses.replace(made, started="2026-02-01", command=f"{made.command} FORM=flush")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/verdict.json").write_text(json.dumps(told(made)))
    cells.write(cells.Unit("6.12", made.arch, False, "c", {made.defect: Note("done", folder="home")}),
                tmp_path)
    monkeypatch.setattr(record, "stale", lambda _run: "")
    monkeypatch.setattr(record, "keep", lambda run: Path(run.name()))
    for known, new in ([other], 1), ([dataclasses.replace(other, command=made.command)], 0):
        monkeypatch.setattr(record, "proofs", lambda known=known: known)
        assert len(results.write(tmp_path)) == new


# ---- the plan --------------------------------------------------------------------------------


def cell(known: list[Cell], name: str, base: str, machine: str = "x86_64") -> Cell:
    return next(one for one in known if (one.defect, one.base, one.arch) == (name, base, machine))


def survey(*said: tuple[Summary, str], names: Sequence[str] = (), **more: Any) -> list[Cell]:
    return cells.survey([defect.load(name) for name in names or defect.names()],
                        ["4.14.325", "4.18", "6.1", "6.12"], ["x86_64", "arm64"], said,
                        **more)


def test_a_cell_is_proved_by_what_is_of_today_alone() -> None:
    made = run([boot("vulnerable")], [boot("fixed")], started="2026-01-01")
    newer = dataclasses.replace(made, started="2026-02-01")
    missed = dataclasses.replace(newer, verdict="MISSED", why="w")
    at = ("pmd-share-migrate", "6.12")
    assert cell(survey(names=at[:1]), *at).state == cells.MISSING
    for said, state in (
            ([(made, "")], "PROVED"), ([(made, "old")], cells.STALE),
            ([(made, ""), (newer, "old")], "PROVED"), ([(made, ""), (missed, "")], "MISSED"),
            ([(dataclasses.replace(made, debug=True), "")], cells.MISSING),
            ([(dataclasses.replace(made, command="make prove TESTS=x"), "")], cells.MISSING),
            ([(dataclasses.replace(made, command="make prove FORM=x"), "")], cells.MISSING),
            ([(dataclasses.replace(made, provenance=Provenance(dirty=True)), "")],
             cells.MISSING),
            # An old record has no base.
            ([(dataclasses.replace(made, base=None), "")], "PROVED")):
        known = survey(*said, names=at[:1])
        assert cell(known, *at).state == state
        assert cell(known, *at, "arm64").state == cells.MISSING
        assert not plan.green([cell(known, *at, "arm64")])
        assert plan.green([cell(known, *at)]) is (state == "PROVED")
    few = cell(survey((made, ""), names=at[:1], boots=2), *at)
    assert (few.state, few.why) == (cells.STALE, "proved with fewer than 2 boots")


def test_an_architecture_that_hides_it_misses_nothing() -> None:
    """A boot that did not show it says no more, and one that did counts."""
    at = ("pmd-share-gup", "6.12")
    made = run([boot("vulnerable")], [boot("fixed")], defect=at[0])
    missed = dataclasses.replace(made, verdict="MISSED", why="w")
    for said, state in (([], cells.NONE), ([(missed, "")], cells.NONE), ([(made, "")], "PROVED")):
        assert cell(survey(*said, names=at[:1]), *at).state == state
    assert "its flush is an interrupt" in cell(survey(names=at[:1]), *at).why
    arm = dataclasses.replace(missed, arch="arm64")
    assert cell(survey((arm, ""), names=at[:1]), *at, "arm64").state == "MISSED"


def test_where_there_is_nothing_to_prove_it_is_said() -> None:
    known = survey()
    for name, on, why in (("pmd-share-arm64-flush", "6.12", "no selftest shows it"),
                          ("hugetlb-mremap-hang", "4.18", "it came with 6.1"),
                          ("thp-numa-notifier", "6.12", "its code went with 5.13"),
                          ("pmd-share-count", "6.12", "nothing takes a fix out of 6.12")):
        assert cell(known, name, on).state == cells.NONE
        assert cell(known, name, on).why.startswith(why)
    # The other form of the fix brings it there.
    assert cell(known, "pmd-share-walkers", "4.18").state == cells.MISSING
    # So may what a stable branch took after its first release.
    assert cell(known, "pmd-share-walkers", "4.14.325").state == cells.MISSING
    assert cells.nothing(defect.load("pmd-share-walkers"), "4.9.1", "x86_64") == \
        "nothing takes a fix out of 4.9.1, and queue/4.9.1 puts none in"
    # What a job said of the tree counts as long as the rules and the queue are the same.
    one = defect.load("exec-temp-stack")
    for ground, state in ((cells.ground(one, "6.12"), cells.NONE), ("other", cells.MISSING)):
        unit = cells.Unit("6.12", "x86_64", False, COMMIT, {
            one.name: Note("none", "nothing to compare", ground=ground)})
        known = survey(names=[one.name], units=[unit])
        assert cell(known, one.name, "6.12").state == state


def test_what_a_kernel_cannot_show_there_is_not_missing() -> None:
    """No job is made for it: one that can only fail would leave the matrix red for ever."""
    all_of_it = cells.survey([defect.load(name) for name in defect.names()], base.names(),
                             cells.archs(), ())
    for one in all_of_it:
        row = arch.load(one.arch)
        if row.since and base.numbers(one.base) < base.numbers(row.since):
            assert one.state == cells.NONE, one
    for name, on, machine, why in (
            ("hugetlb-subpool", "6.6", "riscv64", "before 6.11 a kernel cannot take memory offline"),
            ("hugetlb-subpool", "4.19", "arm64", "arm64 has ARCH_ENABLE_HUGEPAGE_MIGRATION in 5.4 and"),
            ("hugetlb-subpool", "2.6.34", "x86_64", "nothing is proved of 2.6.34: no compiler of "),
            ("hugetlb-poison-read", "6.12", "riscv64", "riscv64 has no MEMORY_FAILURE, and it")):
        one = cell(all_of_it, name, on, machine)
        assert one.state == cells.NONE and one.why.startswith(why), one
    for name, on, machine in (("hugetlb-subpool", "5.10", "arm64"),
                              ("hugetlb-subpool", "6.12", "riscv64"),
                              ("hugetlb-subpool", "4.4", "x86_64"),
                              ("pmd-share-count", "4.19", "arm64"),
                              ("hugetlb-poison-read", "4.19", "arm64")):
        assert cell(all_of_it, name, on, machine).state == cells.MISSING, (name, on, machine)
    # Who has seen it all the same is believed.
    made = run([boot("vulnerable")], [boot("fixed")], defect="hugetlb-poison-read", arch="riscv64")
    assert cell(survey_of(made, "riscv64"), made.defect, "6.12", "riscv64").state == "PROVED"


def survey_of(made: Summary, machine: str) -> list[Cell]:
    return cells.survey([defect.load(made.defect)], ["6.12"], [machine], [(made, "")])


def test_what_it_costs_comes_from_records() -> None:
    def took(seconds: float, **changes: Any) -> Summary:
        made = run([boot("vulnerable", seconds=seconds)], [boot("fixed", seconds=seconds)])
        return dataclasses.replace(made, **changes)

    wanted = [Cell("pmd-share-migrate", base, "x86_64", cells.MISSING) for base in ("6.1", "6.12")]
    wanted.append(Cell("pmd-share-flush", "6.1", "x86_64", cells.STALE))
    first, second = plan.work(wanted, [took(30.0), took(1.0, debug=True)], 10, False)
    assert (first.name, first.defects) == ("6.1-x86_64", ("pmd-share-migrate", "pmd-share-flush"))
    assert second.seconds == plan.FIRST + 2 * plan.NEXT + 10 * 2 * 30.0
    assert (first.known, second.known) == (0, 1)
    # Of one base another is a guess, and of a defect without any record there is another.
    assert first.seconds == second.seconds + 2 * plan.NEXT + 10 * 2 * plan.BOOT


def host(name: str, machine: str, kvm: bool = False, jobs: int = 1) -> Host:
    return Host(name, name, machine, kvm, 4, jobs)


def test_a_host_is_given_what_fits() -> None:
    """The longest first; to KVM first, as long as it does not wait; to others only where there is
    none of its own architecture."""
    units = [plan.Work(f"b{number}", "arm64", ("d",), seconds, seconds, 0)
             for number, seconds in enumerate((100.0, 90.0, 80.0, 10.0))]
    mixed = [host("a", "x86_64", True), host("b", "arm64"), host("c", "arm64", True)]
    shares, last = plan.share(units, plan.kinds(mixed))
    where = {kind.hosts[0].login: [one.base for one in some] for kind, some in shares.items()}
    assert where == {"c": ["b0", "b2", "b3"], "b": ["b1"]} and last == 95.0
    shares, _last = plan.share(units, plan.kinds([host("a", "x86_64"), host("c", "arm64", True)]))
    assert [kind.hosts[0].login for kind in shares] == ["c"]
    shares, last = plan.share(units, plan.kinds([host("a", "x86_64", jobs=2)]))
    assert [kind.hosts[0].login for kind in shares] == ["a"] and last == 340.0
    assert shares[next(iter(shares))] == units


def test_what_is_left_goes_to_another_kind() -> None:
    """Until each kind has tried it."""
    one = plan.Work("6.12", "x86_64", ("d",), 9.0, 9.0, 0)
    among, tried = [host("a", "x86_64"), host("b", "arm64"), host("c", "x86_64", True)], set()
    for login in ("c", "a", "b"):
        [kind] = matrix._shares({one.name: one}, among, {one.name: tried})
        assert kind.hosts[0].login == login
        tried.add(kind)
    assert matrix._shares({one.name: one}, among, {one.name: tried}) == {}


@pytest.mark.parametrize(("state", "wanted", "forced"), [
    (cells.MISSING, True, True), (cells.STALE, True, True), ("MISSED", False, True),
    ("PROVED", False, False), (cells.NONE, False, False)])
def test_a_verdict_is_not_asked_for_twice(state: str, wanted: bool, forced: bool) -> None:
    scope = matrix.Scope((), (), (), Path("out"), None, None, 5, 0, False, False, (), ())
    one = Cell("d", "6.12", "x86_64", state)
    assert matrix._wants(one, scope) is wanted
    assert matrix._wants(one, dataclasses.replace(scope, again=True)) is forced


def test_the_plan(front: Front) -> None:
    """For people, and for a CI system: the same jobs."""
    status, said, errors = front.ask("DEFECT=pmd-share-migrate", "PLAN=1")
    # On a slow machine it says what it is doing.
    assert status == 0 and all(line.startswith("[") for line in errors.splitlines())
    assert re.search(rf"(?m)^6\.12-{HERE} +1 +\S+ \S+ +\S+ \S+  pmd-share-migrate$", said)
    assert re.search(r"Expected: .* on 1 host; .* on 2 hosts", said)
    assert "No package has the source of 4.4, 4.9," in said and "TREES=DIR" in said
    status, said, errors = front.ask("DEFECT=pmd-share-migrate", "PLAN=json", "BOOTS=3",
                                     "TIMEOUT=9")
    assert status == 0 and all(line.startswith("[") for line in errors.splitlines())
    told_ = json.loads(said)
    assert [one["name"] for one in told_["jobs"]] == [
        f"{base}-{HERE}" for base in ("5.10", "6.1", "6.12", "7.3")]
    assert told_["green"] is False and "4.18" in told_["no_tree"]
    assert told_["jobs"][0]["command"] == (f"make matrix BASE=5.10 ARCH={HERE} "
                                           "DEFECT=pmd-share-migrate BOOTS=3 TIMEOUT=9")
    options.parse(told_["jobs"][0]["command"].split()[1:])
    status, said, _errors = front.ask("DEFECT=pmd-share-migrate", "PLAN=check")
    assert status == 1 and "NOT GREEN" in said
    assert not front.out.exists()


def work(base_: str, *defects: str) -> plan.Work:
    return plan.Work(base_, HERE, defects, 3600.0, 7200.0, 1)


def test_what_a_plan_comes_to_is_said_first() -> None:
    """It stood below 20 lines of names for each job."""
    look = [Cell(name, base_, HERE, cells.MISSING) for name in ("a", "b") for base_ in ("6.1", "6.12")]
    said = plan.told("0123", look, [work("6.1", "a", "b"), work("6.12", "a", "b")], [], 5, [], False)
    lines = said.splitlines()
    assert lines[0].startswith("The matrix at 0123: 4 cells, ")
    assert lines[1] == "2 jobs, 4 proofs with 5 boots of each kernel, 4.0 h of CPU time"
    assert lines[3].startswith("Expected: 2.0 h on 1 host; 1.0 h on 2 hosts")
    rows = said.partition("\njob ")[2].splitlines()
    assert len(rows) == 4 and not any("a b" in row for row in rows)
    assert "DEFECT=" in rows[-1]
    named = plan.told("0123", look, [work("6.1", "a", "b")], [], 5, [], True)
    assert named.splitlines()[-1].endswith("  a b")


def test_a_plan_of_nothing_says_so() -> None:
    bare = plan.told("0123", [Cell("a", "5.15", HERE, cells.STALE),
                              Cell("b", "5.15", HERE, cells.NONE)], [], ["5.15"], 5, [])
    assert bare.splitlines()[1:] == [
        "0 jobs: nothing can run without TREES=", "",
        "No package has the source of 5.15 (1 cell): TREES=DIR names a folder with their trees, as "
        "DIR/5.15"]
    assert plan.told("0123", [Cell("a", "6.1", HERE, "PROVED")], [], [], 5, []).splitlines()[1:] == [
        "0 jobs: nothing is missing or stale"]


def test_a_plan_that_takes_long_says_that_it_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pipe, too; a quick one says nothing."""
    now = [100.0]
    monkeypatch.setattr("lab.progress.time.monotonic", lambda: now[0])
    for seconds, says in ((1.0, []), (2.0, ["looking: 1 of 9", "looking: done (4 s)"])):
        stream = io.StringIO()
        progress = Progress(stream)
        progress.step_late("looking", 1.5)
        for number in (1, 2):
            now[0] += seconds if number == 1 else 0.1
            progress.update(f"{number} of 9")
        now[0] += 1.9 if says else 0.0
        progress.done()
        progress.stop()
        assert [line.partition("] ")[2] for line in stream.getvalue().splitlines()] == says
    scope = matrix.Scope(("pmd-share-migrate",), ("6.12",), (HERE,), Path("/nonexistent"), None, None,
                         5, 0, False, False, (), ())
    steps: list[str] = []
    monkeypatch.setattr(Progress, "update", lambda _self, how: steps.append(how))
    matrix._look(scope, Progress(io.StringIO()))
    assert any(how.endswith("runs and records") for how in steps)
    assert steps[-1] == "0 of 1 defects"


@LONG
def test_a_base_without_a_tree(front: Front, tmp_path: Path) -> None:
    """It is missing, and says so; with TREES= its job looks for it on the host."""
    status, said, _errors = front.ask("DEFECT=pmd-share-migrate", "BASE=4.14")
    assert status == 1 and "missing (no tree: TREES=DIR): pmd-share-migrate 4.14" in said
    (tmp_path / "trees").mkdir()
    status, said, _errors = front.ask("DEFECT=pmd-share-migrate", "BASE=4.14",
                                      f"TREES={tmp_path}/trees")
    assert status == 1
    assert f"there is no tree {tmp_path}/trees/4.14" in " ".join(said.split())


# ---- other people's schedulers -----------------------------------------------------------------

CI = HOME / "ci"


@pytest.mark.skipif(not shutil.which("jq"), reason="there is no jq")
def test_a_child_pipeline(front: Front, tmp_path: Path) -> None:
    """It has each job of the plan, with what the lab takes, and one that checks."""
    (tmp_path / "plan.json").write_text(front.ask(f"DEFECT={TWO}", "BASE=6.12,6.1", "PLAN=json")[1])
    done = subprocess.run(["jq", "-f", CI / "gitlab-matrix.jq", tmp_path / "plan.json"], text=True,
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert set(made) == {"stages", "check", f"6.1-{HERE}", f"6.12-{HERE}"}
    for name in made.keys() - {"stages"}:
        assert made[name]["stage"] in made["stages"]
        assert made[name]["artifacts"]["when"] == "always"
        for line in made[name]["script"]:
            words = line.replace(" || true", "").replace("$SCOPE", "ARCH=x86_64").split()
            options.parse([word for word in words[1:] if not word.startswith("--no-")])
    assert made[f"6.12-{HERE}"]["tags"] == [HERE] and "cpu" not in done.stdout
    assert int(made[f"6.12-{HERE}"]["timeout"].split()[0]) >= 60


SBATCH = """\
#!/bin/bash
# Runs what it is given at once, as often as the array has tasks.
first=$(mktemp); cat > "$first"
for word; do case $word in
--array=*) last=${word##*-};;
--output=*) output=${word#--output=};;
esac; done
for ((task = 1; task <= ${last:-1}; task++)); do
	SLURM_ARRAY_TASK_ID=$task bash "$first" > "${output/\\%a/$task}" 2>&1; status=$?
done
rm "$first"
echo 1
[[ " $* " != *" --wait "* ]] || exit $status
"""


def with_slurm(front: Front, out: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """What ci/slurm-matrix.sh does with a stand-in for sbatch."""
    top = front.out.parent
    (top / "bin").mkdir()
    (top / "bin/sbatch").write_text(SBATCH)
    (top / "bin/sbatch").chmod(0o755)
    return subprocess.run(
        [front.lab / CI.relative_to(REPO) / "slurm-matrix.sh", f"ARCH={HERE}", *words],
        cwd=front.lab, text=True, capture_output=True, check=False, env={
            **outside_make(), "OUT": out, "LAB_CACHE": str(top / "cache"),
            "PATH": f"{top}/bin:{os.environ['PATH']}"})


@pytest.mark.skipif(not shutil.which("jq"), reason="there is no jq")
def test_an_array_of_slurm_in_a_folder_named_from_here(front: Front) -> None:
    """Its tasks are in another folder."""
    done = with_slurm(front, os.path.relpath(front.out, front.lab), "DEFECT=pmd-share-migrate",
                      "BASE=6.12")
    assert done.returncode == 0 and "1 cell: 1 PROVED" in done.stdout, done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("jq"), reason="there is no jq")
def test_an_array_of_slurm_with_changes(front: Front) -> None:
    """Its tasks would not have them."""
    new = front.lab / "queue/new"
    new.write_text("")
    try:
        done = with_slurm(front, str(front.out), "BASE=6.12")
    finally:
        new.unlink()
    assert (done.returncode, done.stdout, done.stderr) == (
        2, "", "error: queue/new is in no commit, and a commit is what tasks get\n")


@LONG
@pytest.mark.skipif(not shutil.which("jq"), reason="there is no jq")
@pytest.mark.parametrize("all_of_it", [True, False])
def test_an_array_of_slurm(front: Front, all_of_it: bool) -> None:
    """With a stand-in for sbatch; that its job array is one was tried with Slurm itself."""
    done = with_slurm(front, str(front.out), f"DEFECT={TWO}",
                      f"BASE=6.12,{'6.1' if all_of_it else '4.14'}")
    # That of make, which says 2 for each that is not 0.
    assert done.returncode == (0 if all_of_it else 2), done.stdout + done.stderr
    assert ("NOT GREEN" in done.stdout) is not all_of_it
    assert ("4 cells: 4 PROVED" if all_of_it else "4 cells: 2 PROVED, 0 stale, 2 missing") \
        in done.stdout
    # The records are for who gathers them.
    assert front.recorded() == []
    status, said, _errors = front.ask(f"DEFECT={TWO}", "BASE=6.12")
    assert status == 0 and "begins" not in said and len(front.recorded()) >= 2


# ---- told ------------------------------------------------------------------------------------


def test_the_table_is_rewritten_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    units = [plan.Work("6.12", "x86_64", ("a", "b"), 9.0, 9.0, 0),
             plan.Work("6.1", "x86_64", ("a",), 5.0, 5.0, 0)]
    for stream in (Terminal(), io.StringIO()):
        table = live.Table(units, stream)
        table.begins("6.12-x86_64", "lost")
        table.begins("6.12-x86_64", "host")
        assert "6.12-x86_64: nothing came from lost, another host tries it\n" in stream.getvalue()
        table.proves("6.12-x86_64", "b")
        table.show(True)
        shown = stream.getvalue()
        table.said("6.12-x86_64", "a", "PROVED", "")
        table.ends("6.12-x86_64", 1, "the host was lost")
        table.show(True)
        more = stream.getvalue()[len(shown):]
        assert "1 of 2 results are missing (host: the host was lost)\n" in more
        if stream.isatty():
            assert re.search(r"6\.12-x86_64 +runs +0/2 +host +0:00 +b \.\.\.", shown)
            assert re.search(r"6\.1-x86_64 +waits +0/1\b", shown)
            assert "\x1b[2A" in more
            assert re.search(r"6\.12-x86_64 +missing +1/2 +host +1 PROVED", more)
        else:
            assert "\x1b" not in shown + more and "6.12-x86_64: a: PROVED (host, 0:00)" in more


def test_the_chart() -> None:
    """No cell is green that is not proved, and each that has a run leads to it."""
    made = run([boot("vulnerable")], [boot("fixed")])
    known = survey((made, ""), (dataclasses.replace(made, arch="arm64"), "old"))
    keys = {(made.started, made.name(), False): "run-1",
            (made.started, dataclasses.replace(made, arch="arm64").name(), True): "record-2"}
    said = chart.draw([defect.load(name) for name in defect.names()], known, page.VERDICTS, keys)
    assert said.count('class="chip proved"') == 2      # and one in the legend
    assert re.search(r'<a class="chip proved" href="#run-1" title="pmd-share-migrate on 6\.12, '
                     r'x86_64: PROVED: [^"]*"><span aria-hidden="true">✓</span> x86_64', said)
    assert re.search(r'<a class="chip stale" href="#record-2" title="[^"]*arm64: stale: old">',
                     said)
    assert ('<span class="chip missing" title="pmd-share-flush on 6.12, x86_64: missing">'
            in said)
    assert "1 cell is proved, " in said and said.count("<tr>") == len(defect.names()) + 1
    assert re.search(r'<th scope="col">4\.18</th><th scope="col">6\.1</th>', said)
