# SPDX-License-Identifier: GPL-2.0
"""The model of shared tables: what it must find it finds, and what it says of kernels is so."""

import dataclasses
import functools
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conftest import FULL, Ahead, asked_for, debian_files
from test_queue import released_tree
from trees import apply, some

from lab import mutant, scheme, steps
from lab.base import load as load_base
from lab.errors import LabError
from lab.kernel import spatch, variant
from lab.verbs import model

SCHEMES = scheme.load()
STEPS = steps.load()
RUNS = [run for scheme in SCHEMES for run in scheme.runs]
# A bug each, by the scheme in which it takes the least, if no mutant has it, and both forms of the
# queue that leave tables shared.
SMALL = {("released-4", "LOST_WRITE"), ("unshare-5.4", "COUNT"), ("unshare-write-lock", "NOT_MINE"),
         ("unshare-write-lock", "USED"), ("released-5.10", "SPLIT"), ("released-5.10", "GUP"),
         ("released-6.12", "DEADLOCK"), ("released-6.12", "STARVED"),
         ("flush-4", "STARVED"), ("flush-6.12", "STARVED"), ("flush-4", "PUNCHED"),
         ("flush-4", "GUP"), ("flush-gup-looks-once", "LOST_WRITE"),
         ("flush-flags-early", "PROTECT"), ("flush-frees-table-first", "USED"),
         ("flush-frees-page-first", "LOST_WRITE")}
CLEAN = {"UNMAP=1", "PUNCH=1"}
# Of all schemes that have them: a process with two CPUs.
TWO_CPUS = {"STORE_THREAD=1 STORES=0 BUDGET=0", "STORE_THREAD=1 UNMAP=1 STORES=0"}


# A scheme that is clean, so that each run of it visits all states.
FLUSH_612 = next(run.parameters for run in RUNS if run.scheme == "flush-6.12")


def small(run: scheme.Run) -> bool:
    return (run.scheme, run.bug) in SMALL or " with " in run.scheme or \
        run.scheme.startswith("flush") and run.what in CLEAN or run.what in TWO_CPUS and not run.bug


def name(run: scheme.Run) -> str:
    return f"{run.scheme}-{run.bug or 'anything'}-{run.what}".replace(" ", "-")


def test_each_bug_is_found_in_a_scheme() -> None:
    """A check that nothing fails might check nothing."""
    bugs = set(re.findall(r"(?m)^#define BUG_(\w+)\s+\d", scheme.MODEL.read_text("utf-8")))
    assert bugs == {run.bug for run in RUNS if run.found}


def test_the_small_runs_are_there() -> None:
    assert SMALL <= {(run.scheme, run.bug) for run in RUNS}
    assert {run.what for run in RUNS if small(run) and not run.bug} == CLEAN | TWO_CPUS
    for what in TWO_CPUS:
        assert {run.scheme for run in RUNS if run.what == what and not run.bug} == \
            {"flush-4", "queue-5.10", "queue-6.12", "flush-6.12"}


def test_mutants_are_those_of_the_lab() -> None:
    mutants = scheme.mutants(SCHEMES)
    assert mutants["no-tlb-flush"] == "LOST_WRITE" and set(mutants.values()) <= \
        {run.bug for run in RUNS}
    # The model has each, or it is said why not.
    unsaid = scheme.unsaid()
    assert sorted([*mutants, *unsaid]) == mutant.names()


def test_why_a_mutant_is_not_there_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("[unsaid]\nm = ''\n")
    with pytest.raises(LabError, match=r"\[unsaid\] must be a table of strings"):
        scheme.unsaid(path)
    path.write_text("[x]\nversions = '1'\nset = {}\n[unsaid]\nm = 'why'\n")
    assert scheme.unsaid(path) == {"m": "why"} and [one.name for one in scheme.load(path)] == ["x"]


@pytest.fixture(scope="module")
def checked(request: pytest.FixtureRequest) -> Iterator[Ahead[scheme.Run, model.Outcome]]:
    made = Ahead(model.check, asked_for(request, "test_it_comes_out_as_it_has_to", "run"))
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize("run", [run for run in RUNS if small(run)], ids=name)
def test_it_comes_out_as_it_has_to(run: scheme.Run, checked: Ahead[scheme.Run, model.Outcome]
                                   ) -> None:
    outcome = checked(run)
    assert outcome.right(), outcome
    assert bool(outcome.story) == run.found


@pytest.mark.skipif(not FULL, reason="takes minutes: with FULL=1")
@pytest.mark.parametrize("run", [run for run in RUNS if not small(run)], ids=name)
def test_it_comes_out_as_it_has_to_in_the_long_run(run: scheme.Run) -> None:
    assert model.check(run).right()


@pytest.mark.slow
def test_the_story_names_who_does_what() -> None:
    run = next(run for run in RUNS if (run.scheme, run.bug) == ("unshare-5.4", "COUNT"))
    story = model.check(run).story
    taken = [line for line in story if "huge_pmd_unshare() takes table 0 from process 0" in line]
    assert len(taken) == 2
    assert {line.partition(":")[0] for line in taken} == {"migration of page 0",
                                                          "migration of page 1"}


def test_the_story_names_who_is_there() -> None:
    # init is 0, and what moves page 0 is the second migration.
    said = "  1: a\n 2: a\n  3: b\n  4: b\n  5: c\nspin: trail ends\n"
    assert model.story_of(said, {"WALKERS": "2", "POISON": "1"}) == (
        "process 0: a", "process 1: a", "migration of page 1: b", "migration of page 0: b",
        "memory error: c")
    assert model.story_of(said, {"N": "3", "POISON": "1", "GUP_THREAD": "1"})[2:] == (
        "process 2: b", "migration of page 1: b", "memory error: c")
    assert model.story_of("3: a\n4: b\n", {"WALKERS": "0", "POISON": "1", "GUP_THREAD": "1"}) == (
        "memory error: a", "second thread of process 0: b")
    assert model.story_of("4: a\n5: b\n", {"GUP_THREAD": "1", "STORE_THREAD": "1"}) == (
        "second thread of process 0: a", "other CPU of process 0: b")


@pytest.mark.slow
def test_the_story_names_the_cpu_that_was_left_out() -> None:
    run = next(run for run in RUNS if run.scheme.endswith(" with flush-leaves-cpus-out"))
    story = model.check(run).story
    # It has read the entry before, and stores when the copy has begun.
    assert "other CPU of process 0: reads the entry of page 1 in table 0" in story
    assert "migration of page 1: flush_tlb_mm_range() leaves out the other CPU of process 0" in story
    assert story[-1] == "other CPU of process 0: writes to the old page 1"


@pytest.mark.slow
def test_the_story_of_a_table_that_is_freed_before_the_flush() -> None:
    run = next(run for run in RUNS if run.scheme == "flush-frees-table-first")
    story = model.check(run).story
    freed = story.index("process 0: free_pmd_range() frees table 0")
    assert "other CPU of process 0: reads the PUD, where table 0 is" in story[:freed]
    assert re.fullmatch(r"other CPU of process 0: reads the entry of page \d in table 0", story[-1])


@pytest.mark.slow
def test_two_cpus_are_not_there_unless_they_are_asked_for() -> None:
    # None of its parameters makes any difference where there is one CPU.
    run = next(run for run in RUNS if (run.scheme, run.what) == ("flush-6.12", "UNMAP=1"))
    assert model.check(dataclasses.replace(run, parameters={
        **run.parameters, "N": "1", "FLUSH_LEAVES_CPU_OUT": "1", "TABLE_FREED_FIRST": "1",
        "UNMAP_KEEPS_PAGES": "0"})).states == \
        model.check(dataclasses.replace(run, parameters={**run.parameters, "N": "1"})).states


@pytest.mark.slow
def test_the_story_names_what_is_put_back() -> None:
    run = next(run for run in RUNS if (run.scheme, run.what) == ("flush-flags-early", "READ_ONLY=2"))
    story = model.check(run).story
    [changed] = [line for line in story if "mprotect_fixup() gives" in line]
    put_back, stored = story[-2:]
    assert changed == "process 0: mprotect_fixup() gives its mapping PROT_WRITE"
    assert "remove_migration_pte() is at process 0, whose mapping has PROT_WRITE" in put_back
    assert stored.startswith("process 1: stores to page ")


@pytest.mark.slow
def test_a_deadlock_has_a_short_story() -> None:
    run = next(run for run in RUNS if run.scheme == "released-5.10" and run.what.startswith("POISON"))
    story = model.check(run).story
    assert "memory error: memory_failure() has page 0 locked" in story and len(story) < 6
    assert "hugetlb_no_page() locks page 0" in story[-1]


def test_what_was_not_searched_to_the_end_is_no_proof() -> None:
    clean = dataclasses.replace(next(run for run in RUNS if not run.found), scheme="s")
    some = [scheme.Scheme("s", "1.0", (clean,))]

    def told(hashed: bool, **changes: Any) -> tuple[bool, str]:
        one = model.Outcome(**{"run": dataclasses.replace(clean, hashed=hashed), "found": False,
                               "whole": True, "states": 5, "mib": 1.0, "seconds": 2.0,
                               "factor": 7.0} | changes)
        return one.right(), model.summary(some, [one])

    right, said = told(False)
    assert right and " none " in said and "hashed" not in said
    right, said = told(False, whole=False)
    assert not right and "not searched to the end" in said and "WRONG" in said
    right, said = told(True, whole=False)
    assert right and " none seen " in said and "(hashed, factor 7)" in said
    assert not told(True, found=True)[0]


@pytest.mark.skipif(not FULL, reason="compiles a search of its own: with FULL=1")
def test_what_takes_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_LIMIT", 1)
    run = dataclasses.replace(next(run for run in RUNS if run.scheme == "flush-6.12"),
                              parameters={**FLUSH_612, "N": "3", "UNMAP": "1"}, found=False, bug="")
    with pytest.raises(LabError, match="pan did not come to its end within 1 s of a CPU"):
        model.check(run)


@pytest.mark.skipif(not FULL, reason="compiles a search of its own: with FULL=1")
def test_states_that_are_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_BITS", 25)
    run = next(run for run in RUNS if (run.scheme, run.what) == ("flush-6.12", "NEWCOMER=1"))
    outcome = model.check(dataclasses.replace(run, hashed=True))
    assert outcome.right() and outcome.factor > 1 and outcome.states > 100_000


@pytest.mark.parametrize(("text", "says"), [
    ("[x]\nversions = '1'\n", "x: missing or unknown: set"),
    ("[x]\nversions = '1'\nset = {}\nfound = {}\n", "x: missing or unknown: found"),
    ("[x]\nversions = '1'\nset = {WALKS = '1'}\nmoves = [{}]\n", "no parameter WALKS"),
    ("[x]\nversions = '1'\nset = {}\n[x.finds]\nLOSS = {}\n", "no bug LOSS"),
    ("[mutants.m]\nscheme = 'y'\nset = {}\nfinds = 'COUNT'\n", "there is no scheme y"),
    ("[x]\nversions = '1'\nset = {}\nclaims = {}\n", "[x.claims] must be a list of tables"),
    ("[x]\nversions = '1'\nset = {}\n[[x.claims]]\nfile = 'f'\n", "[x.claims] base is missing"),
    ("[x]\nversions = '1'\nset = {}\nbases = '6.1'\n", "x: bases must be a list of strings"),
    ("[x\n", "x.toml"),
])
def test_a_wrong_file_is_told(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(LabError, match=re.escape(says)):
        scheme.load(path)


# ---- what the model says of the kernel -----------------------------------------------------


@dataclass
class Function:
    """A function as it is in a source, and which of the functions that are asked for it calls."""

    lines: tuple[int, int]
    calls: list[str]


@functools.cache
def functions(base: str, file: str, series: str = "") -> dict[str, Function]:
    """Those of `file`, with that series of the queue, that call anything which the model names, by
    coccinelle."""
    asked = {call for some in STEPS.places.values() for one in some for call in one.calls} | {
        call for one in SCHEMES for claim in one.claims for call in (*claim.calls, *claim.never)}
    with tempfile.TemporaryDirectory(prefix="lab-model-") as folder:
        # Of a tree below $TREES only what is claimed of it is looked up.
        tree = patched(base, series, file, Path(folder) / "tree") \
            if series or not load_base(base).package else debian_files(base)
        rule = Path(folder) / "calls.cocci"
        rule.write_text(f"""@found@
identifier called = {{{', '.join(sorted(asked))}}};
position p;
@@
called@p(...)
@script:python@
called << found.called;
p << found.p;
@@
print(p[0].current_element, p[0].current_element_line, p[0].current_element_line_end, p[0].line,
      called)
""")
        said = {tuple(line.split()) for line in spatch.find(rule, tree, [file], seconds=300)}
    made: dict[str, Function] = {}
    for name, first, last, _line, called in sorted(said, key=lambda one: int(one[3])):
        # Of two, the other is for kernels without shared tables.
        one = made.setdefault(name, Function((int(first), int(last)), []))
        if one.lines[0] == int(first):
            one.calls.append(called)
    return made


def patched(base: str, form: str, file: str, tree: Path) -> Path:
    """Of `file` as that series of the queue leaves it, the functions that are claimed of it."""
    queued = load_base(base)
    some(debian_files(base) if queued.package else released_tree(base), tree, [file])
    for patch in variant.series(base, form) if form else ():
        if f"\n--- a/{file}\n" in patch.read_text(encoding="utf-8"):
            apply(tree, f"--include={file}", patch)
    # Coccinelle takes half a minute for some of these files, and a moment for the functions.
    names = "|".join({claim.function for one in SCHEMES for claim in one.claims
                      if (claim.base, claim.series, claim.file) == (base, form, file)})
    text = (tree / file).read_text(encoding="utf-8")
    (tree / file).write_text("\n".join(re.findall(
        rf"(?ms)^\w[^\n;]*\b(?:{names})\([^;{{]*\)\n\{{\n.*?^\}}\n", text)), encoding="utf-8")
    return tree


def released(base: str) -> str:
    """The version of Debian's source."""
    text = (debian_files(base) / "Makefile").read_text(encoding="utf-8")
    return ".".join(re.findall(r"(?m)^(?:VERSION|PATCHLEVEL|SUBLEVEL) = (\d+)$", text))


def wrong(base: str, place: steps.Place, exact: bool) -> str:
    """What is not so of a place; "" where all is."""
    file, lines, name = place.parts()
    found = functions(base, file).get(name)
    if not found:
        return f"{file} has no {name} that calls {place.calls[0]}"
    if exact and found.lines != lines:
        return f"{name} is at {file}:{found.lines[0]}-{found.lines[1]}, not {lines[0]}-{lines[1]}"
    left = iter(found.calls)
    if not all(call in left for call in place.calls):
        return f"{name} calls {' '.join(found.calls)}, not {' '.join(place.calls)}"
    return ""


@pytest.mark.parametrize("base", STEPS.versions)
def test_each_step_is_where_it_is_said_to_be(base: str) -> None:
    # Lines are those of one version.  What a function calls is to stay.
    exact = released(base) == STEPS.versions[base]
    places = [one for some in STEPS.places.values() for one in some if one.base == base]
    assert places
    assert not [why for one in places if (why := wrong(base, one, exact))]


def test_steps_that_are_not_so_are_seen() -> None:
    place = next(one for one in STEPS.places["fault"] if one.base == "6.12")
    assert "hugetlb_fault is at mm/hugetlb.c:" in wrong("6.12", steps.Place(
        "6.12", "mm/hugetlb.c:1-2 hugetlb_fault", place.calls), True)
    assert "hugetlb_fault calls mutex_lock hugetlb_vma_lock_read" in wrong("6.12", steps.Place(
        "6.12", place.at, tuple(reversed(place.calls))), True)
    assert "has no nothing" in wrong("6.12", steps.Place(
        "6.12", "mm/hugetlb.c:1-2 nothing", place.calls), True)


def test_steps_are_those_of_the_model() -> None:
    text = scheme.MODEL.read_text("utf-8")
    known = set(re.findall(r"(?m)^(?:inline|proctype) (\w+)\(|^#ifndef (\w+)$", text))
    assert set(STEPS.places) <= {name for pair in known for name in pair}
    assert all({one.base for one in some} <= set(STEPS.versions) for some in STEPS.places.values())
    # What a story names is in the list, or is claimed of what a queue makes.
    said = set(re.findall(r"(\w+)\(\)", "".join(re.findall(r'printf\("(.+)"', text))))
    claimed = {claim.function for one in SCHEMES for claim in one.claims if claim.series}
    known = {place.parts()[2] for some in STEPS.places.values() for place in some}
    assert said - claimed - known == \
        {"madvise", "mprotect", "munmap", "mremap", "get_user_pages_fast"}


# Of the inlines and processes of the model: locks, parts of others that have a place, and what the
# hardware, a program or the queue does.
WITHOUT_PLACE = {"count_users", "store", "process", "begin_change", "end_change", "clear_own",
                 "visit", "flush_all", "flush_one", "flush_sharers", "flush_all_of_page",
                 "flush_page", "flush_cpu_page", "flush_unmapped", "store_elsewhere",
                 "store_thread"}


def test_each_inline_has_a_place() -> None:
    inlines = {name for name in re.findall(r"(?m)^(?:inline|proctype) (\w+)\(",
                                           scheme.MODEL.read_text("utf-8"))
               if not re.search(r"(^|_)(un)?lock(_|$)", name)}
    assert WITHOUT_PLACE <= inlines and inlines - set(STEPS.places) == WITHOUT_PLACE
    # As far as a version has the step.
    assert all({place.base for place in STEPS.places[name]} == set(STEPS.versions)
               for name in ("fault", "zap", "free_table", "take_entry", "gup_thread", "migration"))


def test_a_story_is_followed_by_places() -> None:
    story = ["process 0: huge_pmd_unshare() takes table 0", "process 1: munmap() of all"]
    [line] = STEPS.of(story, list(STEPS.versions))
    assert line.startswith("huge_pmd_unshare(): mm/hugetlb.c:")
    assert all(f"({version})" in line for version in STEPS.versions.values())
    [line] = STEPS.of(story, ["6.1"])
    assert re.findall(r"\(([\d.]+)\)", line) == [STEPS.versions["6.1"]]
    assert STEPS.of(story, []) == []


def test_places_are_those_of_kernels_that_have_the_scheme() -> None:
    bases = {one.name: one.bases for one in SCHEMES}
    # None of its versions is in the list.
    assert bases["unshare-5.4"] == bases["flush-4"] == ()
    assert bases["queue-5.10"] == bases["queue-5.10 with no-unshare"] == ("5.10",)
    assert set().union(*bases.values()) == set(STEPS.versions)
    # What is said of the source of a version is said where its lines are given.
    assert all({claim.base for claim in one.claims} & set(STEPS.versions) <= set(one.bases)
               for one in SCHEMES)


@pytest.mark.parametrize(("text", "says"), [
    ("versions = 1\n", "[versions] must be a table of strings"),
    ("[versions]\na = '1'\n[[x]]\nbase = 'a'\nat = 'f.c:1 g'\ncalls = ['h']\n",
     "[x] at: f.c:1 g: not file.c:first-last function"),
    ("[[x]]\nbase = 'a'\nat = 'f.c:1-2 g'\ncalls = ['h']\n", "a is not in [versions]"),
    ("[x]\nbase = 'a'\n", "[x] must be a list of tables"),
])
def test_wrong_steps_are_told(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(LabError, match=re.escape(says)):
        steps.load(path)


@pytest.mark.parametrize("claim", [claim for scheme in SCHEMES for claim in scheme.claims],
                         ids=lambda claim: "-".join(filter(None, (claim.base, claim.series,
                                                                  claim.function))))
def test_what_is_said_of_a_version_is_so(claim: scheme.Claim) -> None:
    assert not untrue(claim)


def untrue(claim: scheme.Claim) -> str:
    """What is not so; "" where all is."""
    found = functions(claim.base, claim.file, claim.series).get(claim.function)
    calls = found.calls if found else []
    left = iter(calls)
    if not all(call in left for call in claim.calls):
        return f"{claim.function} calls {' '.join(calls)}, not {' '.join(claim.calls)}"
    wrong = sorted(set(claim.never) & set(calls))
    return f"{claim.function} calls {' '.join(wrong)}" if wrong else ""


def test_what_is_said_and_is_not_so_is_seen() -> None:
    claim = next(claim for one in SCHEMES for claim in one.claims
                 if (claim.function, claim.series) == ("huge_pmd_share", "series.flush"))
    assert "huge_pmd_share calls " in untrue(dataclasses.replace(
        claim, calls=tuple(reversed(claim.calls))))
    # It takes two such locks, and no third one.
    assert untrue(dataclasses.replace(claim, calls=("spin_lock",) * 2)) == ""
    assert "not spin_lock spin_lock spin_lock" in untrue(
        dataclasses.replace(claim, calls=("spin_lock",) * 3))
    assert untrue(dataclasses.replace(claim, never=("pud_populate",))) == \
        "huge_pmd_share calls pud_populate"


def test_schemes_of_the_queue_say_what_it_makes_of_the_source() -> None:
    said = {one.name: {(claim.base, claim.series) for claim in one.claims} for one in SCHEMES}
    assert said["flush-6.12"] == {(base, "series.flush") for base in ("6.12", "6.18", "7.3")}
    assert said["queue-6.12"] == {("6.1", "series"), ("6.12", "series"), ("7.3", "series")}
    assert said["queue-5.10"] == {("5.10", ""), ("5.10", "series")}
    assert said["flush-4"] == {("4.19", "series"), ("5.4", "series")}
    # And those of released kernels are of released sources.
    for name in ("released-4", "unshare-5.4", "released-5.10", "released-6.1", "released-6.12"):
        assert said[name] and not any(series for _, series in said[name])
