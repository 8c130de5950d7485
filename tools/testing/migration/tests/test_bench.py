# SPDX-License-Identifier: GPL-2.0
"""make bench: what the guest prints is read or refused, divided, and told as a table."""

import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import runs
from conftest import FULL, debian_tree, make, refused

from lab import arch, provenance
from lab.errors import LabError
from lab.judge.klog import Complaint
from lab.judge.verdict import Boot
from lab.kernel import unmapped, variant
from lab.tell import record, rst
from lab.verbs import bench

CALL = {"what": "call", "state": "hot", "sharers": "8", "calls": "40", "moved": "32", "us": "80000",
        "cal": "320", "tlb": "64", "switches": "64", "faults": "48"}
SAID = ("lab: start hugetlb_pmd_bench\nTAP version 13\n1..2\n"
        "# bench: {}\nok 1 call_hot_8\nok 2 # SKIP no block that can go offline\n"
        "# Totals: pass:1 fail:0 xfail:0 xpass:0 skip:1 error:0\n"
        "lab: exit hugetlb_pmd_bench 0\nlab: done\n")
FAILED = SAID.replace("ok 1 call", "not ok 1 call").replace(
    "pass:1 fail:0", "pass:0 fail:1").replace("bench 0\n", "bench 1\n")
KEY = ("call", "hot", 8)


def line(**changes: str) -> str:
    return " ".join(f"{name}={value}" for name, value in {**CALL, **changes}.items() if value)


def boot(said: str, **changes: Any) -> Boot:
    return runs.boot("series", text=said, **changes)


def test_lines_are_read() -> None:
    made = bench.measures(boot(SAID.format(line(tlb="-"))))
    assert list(made) == [KEY]
    assert made[KEY]["moved"] == 32 and made[KEY]["tlb"] is None
    assert "what" not in made[KEY] and "sharers" not in made[KEY]


@pytest.mark.parametrize("changes, says", [
    ({"what": "nap"}, "an unknown line: 'what=nap state=hot"),
    ({"what": ""}, "an unknown line: 'state=hot"),
    ({"faults": ""}, "the bench printed no faults"),
    ({"sharers": ""}, "the bench printed no sharers"),
    ({"moved": "3x"}, "moved=3x, which is not a number"),
    ({"us": "1.5"}, "us=1.5, which is not a number"),
])
def test_wrong_lines_are_refused(changes: dict[str, str], says: str) -> None:
    with pytest.raises(LabError, match=re.escape(says)):
        bench.measures(boot(SAID.format(line(**changes))))


@pytest.mark.parametrize("said, changes, says", [
    (SAID, {"complaints": [Complaint("BUG", 3, "kernel BUG at mm/x.c:1!", ())]},
     "the series kernel said: kernel BUG at mm/x.c:1!"),
    (SAID, {"state": "TIMEOUT"}, "boot 1 of the series kernel: TIMEOUT"),
    (FAILED, {}, "call_hot_8 failed"),
    ("lab: start b\n1..0 # SKIP needs two NUMA nodes\nlab: exit b 4\nlab: done\n", {},
     "the series kernel measured nothing: needs two NUMA nodes"),
])
def test_a_boot_that_went_wrong_is_one_line(said: str, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(LabError) as caught:
        bench.measures(boot(said.replace("{}", line()), **changes))
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("sums, want", [
    ([4, 8, 9], "2 (1..2.2)"),      # median, and least and most where they differ
    ([8, 8, 8], "2"),
    ([8, None], "2"),               # not counted there
    ([None, None], "-"),
    ([1234], "308"),
    ([1, 1, 1], "0.2"),
    ([0], "0"),
    ([7.9, 8, 8.1], "2"),           # no difference that is told
])
def test_a_cell(sums: list[float | None], want: str) -> None:
    assert bench.cell(bench.Column("", "cal", "moved"),
                      [{"cal": value, "moved": 4} for value in sums]) == want


def test_what_moved_nothing_costs_nothing_that_could_be_told() -> None:
    assert bench.cell(bench.Column("", "cal", "moved"), [{"cal": 7, "moved": 0}]) == "-"


def report() -> dict[str, Any]:
    origin = provenance.of_run(arch.load(), (), ["queue/4.14/series (9 patches)"], (bench.PROGRAM,))
    one = bench.measures(boot(SAID.format(line())))[KEY]
    other = {**one, "moved": 40, "cal": None, "us": 120000}
    measurements = [{"what": "call", "state": "hot", "sharers": 8, "boots": {
        "series": [one, {**one, "us": 100000}], "series.flush": [other, other]}}]
    return {"command": "make bench KERNEL=/home/me/linux ROUNDS=2", "arch": "x86_64",
            "accel": "tcg", "compiler": "gcc 12", "started": "2026-11-28T10:00:00+00:00",
            "source": {"version": "6.12.117", "package": "linux-source-6.12",
                       "package_version": "6.12.117-1"},
            "rounds": 2, "variants": {"series": "queue/6.12/series (4 patches)",
                                      "series.flush": "queue/6.12/series.flush (11 patches)"},
            "provenance": dataclasses.asdict(origin), "measurements": measurements,
            "tables": bench.tables(measurements), "plots": bench.plots(measurements)}


TABLE = """\
======= ============ ======= ============ === === ====== ========
sharers kernel       moved % ms           CAL TLB faults switches
======= ============ ======= ============ === === ====== ========
hot, 8  series       80      2.2 (2..2.5) 10  2   1.5    2
hot, 8  series.flush 100     3            -   1.6 1.2    1.6
======= ============ ======= ============ === === ====== ========
"""


def test_the_table() -> None:
    assert TABLE in bench.summary(report())
    assert "QEMU with tcg; median of 2 boots" in bench.summary(report())


def test_what_grows_with_the_sharers_is_drawn() -> None:
    one: bench.Figures = {"calls": 40, "moved": 40, "cal": 80, "faults": 400}
    none: bench.Figures = {**one, "moved": 0, "cal": None}
    rows = [{"what": "call", "state": state, "sharers": sharers, "boots": boots}
            for state, sharers, boots in (
                ("hot", 2, {"series": [one, {**one, "cal": 160}], "series.flush": [one]}),
                ("hot", 8, {"series": [one], "series.flush": [none]}), ("asleep", 2, {"series": [one]}))]
    drawn = {told["title"]: told["lines"] for told in bench.plots(rows)}
    # Nothing grows where there is one point, and what moved nothing has none.
    assert list(drawn) == [f"{column.title}, hot" for column in bench.PLOTTED]
    assert drawn["interrupts (CAL) for each page moved, hot"] == {
        "series": [(2, 3.0), (8, 2.0)], "series.flush": [(2, 2.0)]}
    assert drawn["calls that moved the page, %, hot"]["series.flush"] == [(2, 100.0), (8, 0.0)]
    told = {**report(), "plots": bench.plots(rows)}
    assert rst.bench(told).count("<svg ") == 3 and "<svg" not in rst.bench(report())


def test_the_record_says_how_to_make_it_again(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text(json.dumps(report()))
    path = record.last(tmp_path, tmp_path / "records")
    assert path == tmp_path / "records" / "bench" / "6.12.117.json"
    [(name, said)] = rst.pages(tmp_path / "records").items()
    assert name == "bench/6.12.117" and said == rst.bench(record.read(path))
    assert ":Repeat: ``make bench KERNEL=/path/to/6.12.117 ROUNDS=2``\n" in said
    assert ":series.flush: queue/6.12/series.flush (11 patches)\n" in said
    assert TABLE in said and "Times are those of TCG" in said and "**Stale**" not in said
    told = report()
    told["provenance"]["queue"] = "0"
    assert "**Stale**: the patches or rules have changed since." in rst.bench(told)
    assert "of TCG" not in rst.bench({**report(), "accel": "kvm"})


@pytest.mark.parametrize("base, want", [
    ("4.18", ["released", "series", "series.unshare"]),
    ("6.12", ["released", "series", "series.flush"]), ("6.1", ["released", "series"])])
def test_which_kernels_are_compared(monkeypatch: pytest.MonkeyPatch, base: str, want: list[str]
                                    ) -> None:
    monkeypatch.setattr(variant, "queue_diff", lambda _source, patches: str(patches))
    source: Any = SimpleNamespace(base=SimpleNamespace(name=base))
    assert [one.name for one in bench.variants(source)] == want


def test_the_check_is_compared_with_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variant, "queue_diff", lambda _source, patches: str(patches))
    monkeypatch.setattr(unmapped, "added", lambda _source, one: variant.make(
        one.name, f"{one.how}, and the check", one.diff + "\n+"))
    source: Any = SimpleNamespace(base=SimpleNamespace(name="6.12"))
    assert [kind.variant.name for kind in bench.kinds(source, False)] == \
        ["released", "series", "series.flush"]
    assert all(not kind.options and not kind.cmdline for kind in bench.kinds(source, False))
    without, off, on = bench.kinds(source, True)
    assert [one.variant.name for one in (without, off, on)] == ["series", "check-off", "check-on"]
    assert off.variant.key == on.variant.key != without.variant.key
    assert not without.options and off.options == on.options == unmapped.OPTIONS
    assert (without.cmdline, off.cmdline, on.cmdline) == ("", "", "debug_vm_unmapped")


def test_its_record_is_one_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text(json.dumps({**report(), "witness": True}))
    path = record.last(tmp_path, tmp_path / "records")
    assert path.name == "6.12.117-check.json"
    assert "\nbench of the check: 6.12.117\n" in rst.bench(record.read(path))


def test_without_a_queue_there_is_nothing_to_compare() -> None:
    source: Any = SimpleNamespace(base=SimpleNamespace(name="3.0"))
    with pytest.raises(LabError, match="no queue/3.0"):
        bench.variants(source)


@pytest.mark.parametrize("words, says", [
    (("ROUNDS=0",), "ROUNDS=0: a whole number"),
    (("BOOTS=2",), "BOOTS= means nothing to bench"),
    (("FORM=flush",), "FORM= means nothing to bench"),
    (("BASE=3.0",), "no base 3.0"),
    (("WITNESS=2",), "WITNESS=2: 0 or 1 is wanted"),
    (("O=/",), "O=/ is a folder"),
])
def test_bad_input_is_one_line(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    assert says in refused("bench", f"OUT={tmp_path}/out", *words,
                           LAB_CACHE=str(tmp_path / "cache"))


@pytest.mark.alone
@pytest.mark.skipif(not FULL, reason="boots two kernels: FULL=1")
def test_612(tmp_path: Path) -> None:
    debian_tree("6.12")
    done = make("bench", "BASE=6.12", "ROUNDS=1", f"OUT={tmp_path}", f"O={tmp_path}/t.rst")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "asleep, 4096" in (tmp_path / "t.rst").read_text()
