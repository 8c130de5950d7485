# SPDX-License-Identifier: GPL-2.0
"""make hosttest: what it says before it does anything, when it refuses, and what it leaves behind.

/sys and /proc are folders of the test, and so is what stands for the selftests.
"""

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import make, refused
from test_kselftest import HANGS, alive, compiled, installed, public, runner, wait_for

from lab import defect
from lab.errors import LabError
from lab.guest import selftest
from lab.host import needs, preflight, state
from lab.paths import HOME, REPO
from lab.verbs import hosttest

__all__ = ["installed", "public", "runner"]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the verb itself refuses: not root")


class Machine:
    """A folder with what a kernel tells of a machine with two nodes."""

    def __init__(self, top: Path) -> None:
        self.top = top
        for number in range(2):
            self.node(number)
        self.write("proc/sys/kernel/osrelease", "6.12.0")
        self.write("proc/sys/kernel/numa_balancing", "1")
        self.write("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never")
        self.write("sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "0")
        self.write("sys/devices/system/memory/memory32/state", "online")

    def write(self, name: str, text: str) -> None:
        (self.top / name).parent.mkdir(parents=True, exist_ok=True)
        (self.top / name).write_text(f"{text}\n")

    def node(self, number: int, total: int = 0, free: int = 0, surplus: int = 0,
             mib: int = 1000) -> None:
        folder = f"sys/devices/system/node/node{number}"
        self.write(f"{folder}/meminfo", f"Node {number} MemTotal: {mib * 2048} kB\n"
                                        f"Node {number} MemFree:  {mib * 1024} kB")
        pool = f"{folder}/hugepages/hugepages-2048kB"
        for name, value in (("nr", total), ("free", free), ("surplus", surplus)):
            self.write(f"{pool}/{name}_hugepages", str(value))

    def pool(self, number: int) -> Path:
        return self.top / (f"sys/devices/system/node/node{number}/hugepages/hugepages-2048kB/"
                           "nr_hugepages")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path / "machine")
    monkeypatch.setattr(state, "ROOT", made.top)
    for name in (needs.OFFLINE, needs.DANGEROUS):
        monkeypatch.delenv(name, raising=False)
    return made


def planned(**environment: str) -> preflight.Plan:
    return preflight.plan(state.read(), list(needs.load().values()), environment)


# ---- what it knows of the selftests --------------------------------------------------------


def value(text: str, source: str) -> int:
    """What a constant of a C file is, or an expression of such."""
    names = dict(re.findall(r"(?m)^#define (\w+)\s+([\w() *+/-]+?)\s*(?:/\*.*)?$", source))
    names |= {name: said for name, said in re.findall(
        r"(\w+) = ([\w *+]+?)(?: \+ \(setup->may_offline .*)?;", source)
              if name == "spare"}
    text = re.sub(r"\b[A-Za-z_][\w>.-]*\b", lambda word: str(value(
        names[word[0].split(">")[-1]], source)), text)
    tree = ast.parse(text.strip(), mode="eval")
    assert all(isinstance(one, (ast.Expression, ast.BinOp, ast.Constant, ast.operator))
               for one in ast.walk(tree)), text
    return int(eval(compile(tree, "C", "eval")))      # of numbers alone


@pytest.mark.parametrize("name", selftest.names())
def test_what_it_knows_of_a_selftest_is_what_that_does(name: str) -> None:
    known, source = needs.load()[name], (REPO / selftest.FOLDER / f"{name}.c").read_text()
    if '#include "migrate_round.h"' in source:
        # What of its rounds LTP has as well.
        source += "".join((REPO / selftest.FOLDER / f"migrate_round.{end}").read_text()
                          for end in "hc")
    # Of one that is several files, those that no other has.
    mine = set(selftest.used_by([name]))
    mine -= set(selftest.used_by(other for other in selftest.names() if other != name))
    source += "".join(path.read_text() for path in sorted(mine) if path.stem != name)
    # Some can do with one node, as those that take memory offline, and are planned for two; and
    # for the variant that needs the most pages.
    source = re.sub(r"(\bpool_lacks\([\w>-]+, )(?:nr_nodes(?:\(st\))?|wanted),(\s+variant->\w+ \?)?",
                    r"\g<1>2,", source)
    source = re.sub(r"(\bpool_lacks\([\w>-]+, 2,)\s+(\w+) : \w+\)", r"\g<1> \2)", source)
    calls = re.findall(r"\bpool_lacks\([\w>-]+, (\d+), (.+?)\)(?:;|\s*\?:)", source)
    assert (known.pages, known.nodes if calls else 1) == (
        (value(calls[0][1], source), int(calls[0][0])) if calls else (0, 1))
    assert ("numa_balancing(" in source) == ("numa_balancing" in known.settings)
    assert bool(re.search(r"\bthp_(?:set|allow)\(", source)
                ) == ("transparent_hugepage" in known.settings)
    assert ('"shmem_enabled"' in source) == ("shmem_enabled" in known.settings)
    assert ('"hugepages-64kB/enabled"' in source) == ("huge_64k" in known.settings)
    assert ('"hugepages-64kB/shmem_enabled"' in source) == ("shmem_64k" in known.settings)
    assert ('debug/vm_unmapped/"' in source) == ("vm_unmapped" in known.settings)
    assert ("FAILSLAB_GFP" in source) == ("failslab" in known.settings)
    assert ("/debug/fail_page_alloc/" in source) == ("fail_page_alloc" in known.settings)
    asks = re.search(r'env_long\("HUGETLB_PMD_MIGRATE_OFFLINE"', source) is not None
    assert asks == bool(known.offline)
    assert ("churn_lacks(" in source) == bool(known.dangerous or known.leaves_out)
    # Either all of it asks, or what has more than one process migrate.
    assert bool(re.search(r"variant->migrators < 2 \? NULL :\s+churn_lacks", source)
                ) == bool(known.leaves_out)
    if not known.dangerous and not known.leaves_out:
        assert not re.search(r"\.(migrators|walkers) = [2-9]|two_migrate", source)
    assert ("demotion_enabled" in source) == ("demotion" in known.settings)
    # What these do is nobody's to put back, or goes back by itself.
    assert any(word in source for word in ("compact_memory", "split_huge_pages", "CmaTotal",
                                           "/debug/cma", '("cgroup", "cpuset")',
                                           "take_rest(", '"ramfs"')
               ) == bool(known.beyond)


def test_what_asks_is_in_the_document() -> None:
    text = (REPO / "Documentation/hardware.rst").read_text(encoding="utf-8")
    asked = text.partition("``HUGETLB_PMD_CHURN=1``")[2]
    assert [one.name for one in needs.load().values()
            if (one.dangerous or one.leaves_out) and f"``{one.name}``" not in asked] == []


def test_it_knows_all_selftests_and_no_others() -> None:
    assert sorted(needs.load()) == selftest.names()


def test_a_setting_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "FILE", tmp_path / "host.toml")
    needs.FILE.write_text('[one]\nseconds = 1\nsettings = ["swappiness"]\n')
    with pytest.raises(LabError, match="settings: swappiness is none of numa_balancing"):
        needs.load()


# ---- what it says --------------------------------------------------------------------------


def test_the_plan_of_an_idle_machine(machine: Machine) -> None:
    machine.node(1, total=4, free=4)
    plan = planned()
    said = preflight.told(plan)
    assert plan.against() == []
    assert "2 nodes with memory, huge pages of 2048 KiB: 4, 0 used, 0 reserved" in said
    most = max(one.pages for one in needs.load().values() if not one.dangerous)
    for node, more in ((0, most), (1, most - 4)):
        assert f"node {node}: up to {more} huge pages more, {2 * more} of 1000 MiB" in said
    assert "NUMA balancing, and how it scans (thp_numa_notifier)" in said
    assert "memory blocks, and poison of pages (HUGETLB_PMD_MIGRATE_OFFLINE=1 allows both)" in said
    assert re.search(r"(?m)^  hugetlb_pmd_churn \([a-z, -]*pmd-share-fault[a-z, -]*\): crashes a "
                     "kernel that has the defect", said)
    # The audit and `make list` know the defect by its name only.
    assert "\n  hugetlb_pmd_flush (pmd-share-flush)\n" in said
    assert "soft-offlines" not in said
    assert "\n  hugetlb_pmd_unshare: leaves processes" in said
    assert "These would run in part:\n  hugetlb_pmd_busy leaves out what has several" in said
    count = sum(not one.dangerous for one in needs.load().values())
    assert said.startswith(f"{count} tests would run, for about ")


@pytest.mark.parametrize(("change", "says"), [
    (lambda one: one.node(0, total=8, free=5), "the pool of huge pages is in use: 3 used, 0 res"),
    (lambda one: one.write("sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "2"),
     "the pool of huge pages is in use: 0 used, 2 reserved"),
    (lambda one: one.node(1, mib=40), "node 1 has 40 MiB of free memory, and the tests want 56"),
])
def test_what_is_in_the_way(machine: Machine, change: object, says: str) -> None:
    assert planned().against() == []
    change(machine)         # type: ignore[operator]
    assert any(says in why for why in planned().against()), planned().against()


def test_what_the_environment_asks_for_is_in_the_way(machine: Machine) -> None:
    plan = planned(HUGETLB_PMD_CHURN="1", HUGETLB_PMD_MIGRATE_OFFLINE="1")
    assert len(plan.against()) == 2 and not plan.skipped
    assert "hugetlb_pmd_migrate soft-offlines huge pages" in preflight.told(plan)
    assert "in part" not in preflight.told(plan)
    assert planned(HUGETLB_PMD_CHURN="0", HUGETLB_PMD_MIGRATE_OFFLINE="").against() == []


def test_pages_that_are_reserved_cannot_be_had(machine: Machine) -> None:
    machine.node(0, total=12, free=12)
    machine.write("sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "5")
    most = max(one.pages for one in needs.load().values() if not one.dangerous)
    assert [planned().adds(node) for node in planned().nodes()] == [most - 7, most + 5]


def test_surplus_pages_are_not_the_pools(machine: Machine) -> None:
    machine.node(0, total=9, free=4, surplus=5)
    assert state.read().nodes[0].pool == 4


def test_a_machine_with_one_node(machine: Machine) -> None:
    shutil.rmtree(machine.top / "sys/devices/system/node/node1")
    said = preflight.told(planned())
    assert "1 node with memory" in said
    assert "  hugetlb_pmd_flush (pmd-share-flush): needs 2 nodes with memory, and there is 1\n" in said
    assert "node 0: up to 28 huge pages more" in said


def test_a_machine_without_huge_pages(machine: Machine) -> None:
    shutil.rmtree(machine.top)
    said = preflight.told(planned())
    assert said.startswith("none can run here: each for its own reason\n")
    assert "0 nodes with memory" in said and "nothing of this machine would change" in said


def test_a_plan_in_which_none_can_run(machine: Machine, tmp_path: Path) -> None:
    """It said that 0 tests would run for about 1 s, and what these would leave alone."""
    shutil.rmtree(machine.top / "sys/devices/system/node/node1")
    flush = [needs.load()["hugetlb_pmd_flush"]]
    assert preflight.told(preflight.plan(state.read(), flush, {})).splitlines() == [
        "none can run here: needs 2 nodes with memory, and there is 1",
        "  hugetlb_pmd_flush (pmd-share-flush)",
        "Linux 6.12.0: 1 node with memory, huge pages of 2048 KiB: 0, 0 used, 0 reserved",
        "nothing of this machine would change",
        "in a guest they can: make kselftest BASE=6.12 DEFECT=pmd-share-flush"]
    done = subprocess.run(verb(machine, tmp_path, "--defect", "pmd-share-flush", "--plan"),
                          text=True, capture_output=True, check=False)
    assert done.returncode == 3 and done.stdout.startswith("none can run here: "), done.stderr


def test_what_changed_is_told_in_words(machine: Machine) -> None:
    before = state.read()
    machine.node(1, total=3)
    machine.write("proc/sys/kernel/numa_balancing", "0")
    shutil.rmtree(machine.top / "sys/devices/system/memory/memory32")
    assert state.changes(before, state.read()) == [
        "huge pages of node 1 was 0 and is 3",
        "NUMA balancing, and how it scans was 1 and is 0",
        "memory block 32 was online and is gone"]


# ---- the verb ------------------------------------------------------------------------------


# Without the kernel's runner: what it says of two programs, while the first changes the pool.
RUNS = """#!/bin/sh
echo TAP version 13
echo 1..2
echo "# timeout set to 900"
echo "# selftests: mm: hugetlb_pmd_flush"
echo 9 > {pool}
sleep 0.2
echo {then} > {pool}
echo "# {first} 1 x.y"
echo "{first} 1 selftests: mm: hugetlb_pmd_flush"
echo "# selftests: mm: hugetlb_pmd_count"
echo "# ok 1 x.z{second}"
echo "ok 2 selftests: mm: hugetlb_pmd_count{second}"
"""
SKIPS = " # SKIP needs debugfs"


def verb(machine: Machine, home: Path, *words: str) -> list[str]:
    """Python that runs the verb on the machine, with the selftests of the folder."""
    return [sys.executable, "-B", "-c",
            f"import sys; sys.path.insert(0, {str(HOME)!r})\n"
            "from pathlib import Path\nfrom lab import cli\nfrom lab.host import state\n"
            "from lab.verbs import hosttest\n"
            f"state.ROOT = Path({str(machine.top)!r})\n"
            f"hosttest.folder = lambda *_words: Path({str(home)!r})\n"
            f"sys.exit(cli.main(['hosttest', *{list(words)!r}]))\n"]


def ran(machine: Machine, tmp_path: Path, *words: str, then: str = "0", first: str = "ok",
        second: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "run_kselftest.sh").write_text(RUNS.format(
        pool=machine.pool(0), then=then, first=first, second=second))
    (tmp_path / "run_kselftest.sh").chmod(0o755)
    return subprocess.run(verb(machine, tmp_path, *words), text=True, capture_output=True,
                          check=False, stdin=subprocess.DEVNULL,
                          env={**os.environ, "LAB_CACHE": str(tmp_path / "cache"), **environment})


def last(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    line = done.stdout.splitlines()[-1]
    assert line.startswith("pmd-share-test: ")
    return dict(word.split("=", 1) for word in line.split()[1:])


@needs_root
@pytest.mark.parametrize(("first", "second", "status", "word"), [
    ("ok", "", 0, "passed"), ("ok", SKIPS, 0, "passed"), ("not ok", "", 1, "failed")])
def test_a_run(machine: Machine, tmp_path: Path, first: str, second: str, status: int, word: str
               ) -> None:
    done = ran(machine, tmp_path, first=first, second=second)
    assert done.returncode == status, done.stderr
    assert done.stdout.startswith("KTAP version 1\n1..2\n")
    said = last(done)
    assert said.pop("seconds").isdecimal()
    assert said == {"status": word, "passed": str((first == "ok") + (second == "")),
                    "failed": str(int(first != "ok")), "skipped": str(int(second != "")),
                    "defects": "none" if first == "ok" else "pmd-share-flush", "restored": "yes"}
    assert "They would change, and put back:" in done.stderr
    assert re.search(r"hugetlb_pmd_flush \(1 of \d+\), about \d+ min left", done.stderr)


@needs_root
def test_nothing_ran(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "run_kselftest.sh").write_text(
        "#!/bin/sh\necho 1..1\necho '# selftests: mm: hugetlb_pmd_flush'\n"
        f"echo 'ok 1 selftests: mm: hugetlb_pmd_flush{SKIPS}'\n")
    (tmp_path / "run_kselftest.sh").chmod(0o755)
    done = subprocess.run(verb(machine, tmp_path), text=True, capture_output=True, check=False)
    assert done.returncode == 3 and last(done)["status"] == "skipped"


@needs_root
def test_what_is_not_put_back_is_told(machine: Machine, tmp_path: Path) -> None:
    done = ran(machine, tmp_path, then="7")
    assert done.returncode == 2 and last(done)["restored"] == "no"
    assert "not as it was: huge pages of node 0 was 0 and is 7" in done.stderr
    assert done.stderr.rstrip().endswith(
        "error: something of this machine is not as it was: see above what")


@needs_root
def test_a_runner_that_gives_up(machine: Machine, tmp_path: Path) -> None:
    done = ran(machine, tmp_path, then="0; exit 1")
    assert done.returncode == 2 and last(done)["status"] == "error"
    assert "error: run_kselftest.sh ended early" in done.stderr and "Traceback" not in done.stderr


@needs_root
def test_a_pool_in_use_is_left_alone(machine: Machine, tmp_path: Path) -> None:
    machine.node(1, total=8, free=5)
    done = ran(machine, tmp_path)
    assert done.returncode == 2 and last(done)["status"] == "refused"
    assert machine.pool(0).read_text() == "0\n" and "KTAP" not in done.stdout
    assert "error: the pool of huge pages is in use: 3 used, 0 reserved: FORCE=1 runs the tests" \
        in done.stderr
    done = ran(machine, tmp_path, "--force")
    assert done.returncode == 0 and last(done)["status"] == "passed"


@needs_root
def test_only_what_is_asked_for_is_planned(machine: Machine, tmp_path: Path) -> None:
    done = ran(machine, tmp_path, "--defect", "pmd-share-flush", "--plan")
    assert done.returncode == 0 and done.stderr == ""
    assert "1 test would run, for about 24 s" in done.stdout
    assert machine.pool(0).read_text() == "0\n" and "KTAP" not in done.stdout


def test_an_ordinary_user_may_plan_and_not_run(machine: Machine, tmp_path: Path) -> None:
    for words, status in (((), 2), (("--plan",), 0)):
        script = verb(machine, tmp_path, *words)
        script[-1] = script[-1].replace("state.ROOT", "hosttest.is_root = lambda: False\nstate.ROOT")
        done = subprocess.run(script, text=True, capture_output=True, check=False)
        assert done.returncode == status, done.stderr
        assert ("error: the tests need root: use sudo" in done.stderr) == (status == 2)


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    for words, says in ((("BASE=6.1",), "BASE="), (("PLAN=maybe",), "PLAN=maybe: 0 or 1"),
                        (("PLAN=1", "DEFECT=pmd-share-arm64-flush"),
                         "no selftest shows pmd-share-arm64-flush")):
        assert says in refused("hosttest", *words, LAB_CACHE=cache)
    # Who watches is told as well.
    done = make("hosttest", "DEFECT=nonesuch", LAB_CACHE=cache)
    assert done.stderr.startswith("error: no defect nonesuch: there are ")
    assert last(done)["status"] == "error" and done.stdout.count("\n") == 1


def test_the_words_of_the_last_line() -> None:
    outcome = hosttest.Outcome("failed", 12)
    outcome.stream.failed = ["hugetlb_pmd_migrate"]
    shown = [name for name in defect.names()
             if "hugetlb_pmd_migrate" in defect.load(name).show.selftests]
    assert outcome.line() == ("pmd-share-test: status=failed passed=0 failed=1 skipped=0 "
                              f"defects={','.join(shown)} restored=yes seconds=12")


def test_what_a_person_sees_at_a_terminal() -> None:
    lines = ["KTAP version 1", "1..1", "# timeout set to 900", "# # a.b: lost=3", "# not ok 1 a.b",
             "not ok 1 selftests: mm: a"]
    assert [line for line in lines if hosttest.brief(line)] == [
        lines[0], lines[1], lines[4], lines[5]]


# ---- however it ends -----------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("how", ["INT", "TERM", "HUP", "KILL", "KILL test"])
def test_however_it_ends_all_is_put_back(machine: Machine, runner: Path, tree612: Path, how: str
                                         ) -> None:
    """With the guardian of the selftests, and a test that hangs."""
    program = "hugetlb_pmd_flush"
    (runner / "mm" / program).unlink()
    compiled(tree612, HANGS, runner / "mm" / program).with_suffix(".c").unlink()
    changed = machine.top / "changed"
    changed.write_text("before")
    mark = f"CHANGED={changed}"
    with subprocess.Popen(
            verb(machine, runner, "--defect", "pmd-share-flush"), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "CHANGED": str(changed)}) as process:
        wait_for("during", changed)
        number = getattr(signal, f"SIG{how.split()[0]}")
        if how == "KILL test":
            # The program itself, and not what its harness has forked.
            os.kill(min(pid for pid, line in alive(mark).items() if line == f"./{program}"), number)
            # What it has left hanging is ended with the rest.
            process.send_signal(signal.SIGINT)
        else:
            process.send_signal(number)
        try:
            out, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert "Traceback" not in errors
    if how != "KILL":
        assert process.returncode == 130, errors
        assert "status=interrupted" in out.splitlines()[-1] and "restored=yes" in out
    if how != "KILL":
        # It waits until all is done.
        assert changed.read_text() == "before" and not alive(mark)
    wait_for("before", changed)
    end = time.monotonic() + 20
    while left := alive(mark):
        assert time.monotonic() < end, left
        time.sleep(0.1)
