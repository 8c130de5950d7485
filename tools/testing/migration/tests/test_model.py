# SPDX-License-Identifier: GPL-2.0
"""The model of shared tables: what it must find it finds, and what it says of kernels is so."""

import re
from pathlib import Path

import pytest

from conftest import FULL, debian_files
from lab import mutant, scheme
from lab.errors import LabError
from lab.kernel import spatch
from lab.verbs import model

SCHEMES = scheme.load()
RUNS = [run for scheme in SCHEMES for run in scheme.runs]
# A bug each, by the scheme in which it takes the least, and both forms of the queue that leave
# tables shared.
SMALL = {("released-4", "LOST_WRITE"), ("unshare-5.4", "COUNT"), ("unshare-write-lock", "NOT_MINE"),
         ("unshare-write-lock", "USED"), ("released-5.10", "SPLIT"), ("released-5.10", "GUP"),
         ("released-6.12", "DEADLOCK"), ("released-6.12", "STARVED"),
         ("flush-4", "STARVED"), ("flush-6.12", "STARVED")}
CLEAN = {"UNMAP=1", "PUNCH=1"}


def small(run: scheme.Run) -> bool:
    return (run.scheme, run.bug) in SMALL or " with " in run.scheme or \
        run.scheme.startswith("flush") and run.what in CLEAN


def name(run: scheme.Run) -> str:
    return f"{run.scheme}-{run.bug or 'anything'}-{run.what}".replace(" ", "-")


def test_each_bug_is_found_in_a_scheme() -> None:
    """A check that nothing fails might check nothing."""
    bugs = set(re.findall(r"(?m)^#define BUG_(\w+)\s+\d", scheme.MODEL.read_text("utf-8")))
    assert bugs == {run.bug for run in RUNS if run.found}


def test_the_small_runs_are_there() -> None:
    assert SMALL <= {(run.scheme, run.bug) for run in RUNS}
    assert {run.what for run in RUNS if small(run) and not run.bug} == CLEAN


def test_mutants_are_those_of_the_lab() -> None:
    mutants = scheme.mutants(SCHEMES)
    assert mutants["no-tlb-flush"] == "LOST_WRITE" and set(mutants.values()) <= \
        {run.bug for run in RUNS}
    assert mutants.keys() <= set(mutant.names())


@pytest.mark.slow
@pytest.mark.parametrize("run", [run for run in RUNS if small(run)], ids=name)
def test_it_comes_out_as_it_has_to(run: scheme.Run) -> None:
    outcome = model.check(run)
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


@pytest.mark.parametrize(("text", "says"), [
    ("[x]\nversions = '1'\n", "x: missing or unknown: set"),
    ("[x]\nversions = '1'\nset = {}\nfound = {}\n", "x: missing or unknown: found"),
    ("[x]\nversions = '1'\nset = {WALKS = '1'}\nmoves = true\n", "no parameter WALKS"),
    ("[x]\nversions = '1'\nset = {}\n[x.finds]\nLOSS = {}\n", "no bug LOSS"),
    ("[mutants.m]\nscheme = 'y'\nset = {}\nfinds = 'COUNT'\n", "there is no scheme y"),
    ("[x]\nversions = '1'\nset = {}\nclaims = {}\n", "[x.claims] must be a list of tables"),
    ("[x]\nversions = '1'\nset = {}\n[[x.claims]]\nfile = 'f'\n", "[x.claims] base is missing"),
    ("[x\n", "x.toml"),
])
def test_a_wrong_file_is_told(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(LabError, match=re.escape(says)):
        scheme.load(path)


def called(tree: Path, claim: scheme.Claim, call: str, folder: Path) -> bool:
    rule = folder / "call.cocci"
    rule.write_text(f"""@found@
position p;
@@
{claim.function}(...)
{{
<+...
{call}@p(...)
...+>
}}
@script:python@
p << found.p;
@@
print("called")
""")
    return bool(spatch.find(rule, tree, [claim.file]))


@pytest.mark.parametrize(("claim", "call", "wanted"), [
    (claim, call, wanted) for scheme in SCHEMES for claim in scheme.claims
    for calls, wanted in ((claim.calls, True), (claim.never, False)) for call in calls],
    ids=lambda value: value.function if isinstance(value, scheme.Claim) else str(value))
def test_what_is_said_of_a_version_is_so(claim: scheme.Claim, call: str, wanted: bool,
                                         tmp_path: Path) -> None:
    assert called(debian_files(claim.base), claim, call, tmp_path) == wanted
