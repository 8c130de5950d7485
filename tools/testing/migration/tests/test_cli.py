# SPDX-License-Identifier: GPL-2.0
"""The front door: what `make` shows, and one clear line for everything that is put in wrong."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make, outside_make, refused

from lab import base, defect, mutant, options, readings
from lab.errors import LabError
from lab.kernel import variant
from lab.paths import HOME, REPO

MIGRATION = REPO / "tools" / "testing" / "migration" / "migration.py"


def test_make_alone_shows_every_verb_and_variable() -> None:
    said = make().stdout
    text = (REPO / "Makefile").read_text()
    verbs = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert verbs
    for verb in set(verbs[1].split()) - {"help"}:
        assert f"make {verb}" in said, verb
    for variable in re.findall(r"^(\w+) \?=$", text, re.MULTILINE):
        assert f"{variable}=" in said, variable


def listed(*words: str) -> str:
    """What list says, in a pipe."""
    done = lab("list", *words)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100
    return done.stdout


def test_list_names_all_defects_on_two_screens() -> None:
    """It was 304 lines, of which 147 words were (stale)."""
    for width in (80, 100):
        done = lab("list", COLUMNS=str(width))
        assert max(map(len, done.stdout.splitlines())) <= width
    said = listed()
    assert len(said.splitlines()) <= 2 * len(defect.names()) + 20
    for name in defect.names():
        assert re.search(rf"(?m)^{name} +{re.escape(defect.load(name).since)} +[-\d]", said), name
    assert re.search(r"(?m)^pmd-share-flush +3\.6 +5\.16 +a write is lost when", said)
    assert re.search(r"(?m)^hugetlb-mremap-hang +6\.1 +- +mremap of", said)
    assert "pmd-share-arm64-flush: make audit alone finds it" in " ".join(said.split())
    assert said.count("stale") <= 1 and "proved on" not in said
    for name in base.names():
        assert f" {name}" in said.partition("BASE=5.15 ")[2]
    for more in ("make list DEFECT=NAME ", "make list BASE=5.15 ", "make list FULL=1 "):
        assert more in said


def test_list_says_all_of_a_defect() -> None:
    said = listed("DEFECT=pmd-share-flush,hugetlb-mremap-hang,pmd-share-arm64-flush")
    first, second, third = said.split("\n\n")
    assert first.startswith("pmd-share-flush\n  a write is lost when")
    assert "  versions   since 3.6, fixed in 5.16\n" in first
    assert "  fixed by   dff11abe280b hugetlb: " in first
    assert "\n  shown by   hugetlb_pmd_flush\n" in first
    assert re.search(r"(?m)^  mended by  queue/4\.4: \d{4}", first)
    # Where it was fixed in 5.16, "proved on 7.3.4" alone would say that 7.3.4 has it.
    flat = " ".join(first.split())
    assert re.search(r"proved on kernels that have the fix, by taking it out and putting it back: "
                     r"[^:]*\b7\.3\.4", flat)
    assert re.search(r"with and without patches of queue/: [^:]*\b4\.18\.0", flat)
    assert "since 6.1, fixed in no version yet\n" in second
    assert "  came with  3a47c54f09c4 hugetlbfs: " in second
    assert "by taking it out" not in second and "/report, a mail to the maint" in second
    assert "  shown by   no selftest shows it: make audit finds it\n" in third


# What the parts of `list BASE=` begin with, and how what was read before and after the queue is then:
# with a patch, or without one.
PARTS = [
    (r"that {release} has, and queue/{base} mends ", "Vp", True),
    (r"that {release} has, and no patch of queue/{base} mends", "VV", False),
    (r"that {release} cannot have, but whose code comes with queue/{base}", "-p -V", None),
    (r"that {release} has the fix for, and that patches of queue/{base} are about as well", "pp", True),
    (r"that {branch} had by its number, and {release} has the fix for", "pp", False),
    (r"{release} does not have their code; queue/{base} brings it, and it is right", "-p", False),
    (r"later than {branch}, and what {release} has of that code is right", "pp", False),
    (r"later than {branch}", "--", False),
    (r"fixed in {branch} or before", "pp --", False),
    (r"in code that {branch} has no more", "--", False),
]


@pytest.mark.parametrize("name", base.names())
def test_list_says_what_a_version_has(name: str) -> None:
    """It went by numbers, and had nothing that mends what the release has fixed already."""
    said = listed(f"BASE={name}")
    read = readings.load()[name]
    top, *parts = said.split("\n\n")
    assert f" read in the source of {read.release}. " in " ".join(top.split())
    for part in parts:
        head = " ".join(part.partition("\n  ")[0].split())
        number, _, head = re.sub(r" defects?:? ", " ", head).partition(" ")
        pairs, patched = next(
            (pairs, patched) for start, pairs, patched in PARTS
            if head.startswith(start.format(base=name, branch=base.branch(name),
                                            release=read.release)))
        names = [word for word in re.findall(r"(?<![\w/-])[a-z][a-z0-9-]+(?![\w/-])",
                                             part.partition("\n  ")[2]) if word in defect.names()]
        assert len(names) == int(number)
        for one in names:
            assert read.released[one] + read.queue.get(one, read.released[one]) in pairs.split(), one
            mending = variant.mending(variant.series(name), defect.load(one))
            assert patched is None or bool(mending) == patched, one
            if mending:
                assert all(path.name[:4] in part for path in mending), one
    for one in defect.names():
        assert len(re.findall(rf"(?<![\w-]){one}(?![\w-])", said)) == 1, one


def test_list_says_what_is_proved_of_a_version() -> None:
    said = listed("BASE=5.15")
    assert re.search(r"hugetlb-cow-fault .*\n +patch 0\d{3}; proved on 5\.15\.", said)
    assert re.search(r"pmd-share-flush .*\n +the fix was taken out, and put back, to prove it: 5\.15\.",
                     said)
    assert " 1 defect that 6.12." in " ".join(listed("BASE=6.12", "DEFECT=pmd-share-busy").split())
    assert "only slow: nothing is lost; FORM=flush has patches to review; proved on 6.12." in \
        listed("BASE=6.12", "DEFECT=pmd-share-busy")
    assert "pmd-share-move-all" in listed("BASE=6.12", "DEFECT=pmd-share-move-all")


def test_list_in_full_names_mutants_and_bases() -> None:
    said = listed("FULL=1")
    for name in mutant.names():
        assert f"\n  {name}\n" in said
    assert "\n  6.12     linux-source-6.12 from " in said
    assert "\n  4.14     no package has its source: KERNEL=DIR" in said
    assert "FULL=1 is all of all bases: leave BASE= out" in lab("list", "FULL=1", "BASE=6.1").stderr
    assert lab("list", "FULL?=1", "BASE=6.1").returncode == 0


@pytest.mark.parametrize("words, says", [
    (("DEFECT=nonesuch",), "no defect nonesuch: there are"),
    (("DEFECT=pmd-share-arm64-flush",),
     "no selftest shows pmd-share-arm64-flush, so it cannot be proved"),
    (("BASE=3.0",), "no base 3.0"),
    (("BASE=4.14",), "KERNEL=/path/to/linux"),
    (("ARCH=z80",), "no architecture z80: the lab knows arm64, riscv64, x86_64"),
    (("BOOTS=0",), "BOOTS=0: a whole number"),
    (("BOOTS=many",), "BOOTS=many: a whole number"),
    (("ACCEL=hvf",), "ACCEL=hvf: one of kvm, tcg"),
    (("DEBUG=yes",), "DEBUG=yes: 0 or 1"),
    (("TIMEOUT=-1",), "TIMEOUT=-1: a whole number"),
    (("KERNEL=/nonexistent",), "/nonexistent"),
    (("KERNEL=/etc",), "/etc"),
])
def test_bad_input_is_one_line(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    out = tmp_path / "out"
    assert says in refused("prove", f"OUT={out}", *words, LAB_CACHE=str(tmp_path / "cache"))
    assert not out.exists()


def test_an_architecture_without_a_guest(tmp_path: Path) -> None:
    """This machine has one already."""
    assert "ARCH= is for a guest: name its kernel with BASE= or KERNEL=" in refused(
        "kselftest", "ARCH=arm64", LAB_CACHE=str(tmp_path / "cache"))


def test_the_kernels_name_of_an_architecture_will_do() -> None:
    for said, name in (("aarch64", "arm64"), ("x86", "x86_64"), ("arm64", "arm64"), ("", "")):
        assert options.parse(["prove", f"ARCH?={said}"]).arch == name


def test_a_variant_that_is_none(tmp_path: Path) -> None:
    done = make("shell", "VARIANT=broken", LAB_CACHE=str(tmp_path / "cache"))
    assert "error: VARIANT=broken: vulnerable or fixed" in done.stderr


@pytest.mark.parametrize("word", ["FAST=yes", "FULL=2"])
def test_a_lane_that_is_none(word: str) -> None:
    # It must not run for half an hour, or hours.
    done = make("check", word, PYTHON="false")
    assert done.returncode != 0 and done.stdout == ""
    assert done.stderr.startswith("error: FULL= and FAST=: 0 or 1 is wanted\n")


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    done = make("prove", LAB_CACHE=str(blocker / "cache"))
    assert "set LAB_CACHE to a folder you can write to" in done.stderr
    assert "Traceback" not in done.stderr


# ---- the options of each verb --------------------------------------------------------------


def lab(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-B", MIGRATION, *words], text=True, check=False,
                          capture_output=True, env={**outside_make(), **environment})


def test_the_makefile_has_the_verbs_and_the_variables_of_the_lab() -> None:
    text = (REPO / "Makefile").read_text()
    verbs = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    passed = re.search(r"^VARIABLES := ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    assert verbs and passed
    assert set(verbs[1].split()) - {"help", "check", "clean"} == {one.name for one in options.VERBS}
    assert set(passed[1].replace("\\", "").split()) == options.variables()
    assert set(re.findall(r"^(\w+) \?=$", text, re.MULTILINE)) \
        == options.variables() | {"FULL", "FAST", "TREES"}


@pytest.mark.parametrize("words", [
    ("list", "HELP=1"), ("list", "DEFFECT=pmd-share-flush"), ("list", "boots=3"),
])
def test_a_variable_that_nobody_knows_stops_a_verb(words: tuple[str, str]) -> None:
    """As root, kselftest with HELP=1 would have run the tests on the host: not tried here."""
    rules = re.findall(r"(?m)^([a-z ]+): known$", (REPO / "Makefile").read_text())
    assert {name for rule in rules for name in rule.split()} \
        == {"check", "clean", *(verb.name for verb in options.VERBS)}
    done = make(*words)
    name = words[1].partition("=")[0]
    assert done.returncode != 0 and done.stdout == ""
    assert [line for line in done.stderr.splitlines() if not line.startswith("make")] == [
        f"error: {name}=: there is no such variable; `make` lists them, and `make help list` those "
        "of it"]


def test_what_the_environment_of_a_verb_takes_can_stand_after_make_too() -> None:
    """Every variable that a selftest reads is one."""
    tests = REPO / "tools" / "testing" / "selftests" / "mm"
    names = {name for path in tests.glob("*.[ch]") for name in re.findall(
        r'(?:getenv|env_\w+)\("([A-Z_]+)"', path.read_text())}
    assert len(names) > 15
    # The guest's init sets these.
    names -= {"VIRTIO_MEM_ID", "VIRTIO_MEM_QMP"}
    names |= {"LAB_CACHE", "TMPDIR", "http_proxy", "V"}
    done = make("list", *(f"{name}=/tmp" for name in sorted(names)))
    assert done.returncode == 0 and done.stderr == ""


def test_help_is_two_screens_at_most() -> None:
    lines = make("help").stdout.splitlines()
    assert len(lines) <= 48 and max(map(len, lines)) <= 100
    assert "`make help VERB`" in lines[0]


def test_help_says_what_hides_nothing() -> None:
    said = make("help").stdout
    assert "SERIES=fixes|all|stable|ltp " in said and "FORM=flush|unshare|unmapped " in said
    assert "make series KERNEL=DIR SERIES=fixes O=DIR " in said
    assert said.count("  PLAN=") == 1 and "TREES=DIR        of matrix: " in said


@pytest.mark.parametrize("verb", options.VERBS, ids=lambda verb: verb.name)
def test_make_help_of_a_verb_has_the_names_of_make(verb: options.Verb) -> None:
    said = options.manual([verb.name])
    lines = said.splitlines()
    assert lines[0].startswith(f"make {verb.name}")
    assert len(lines) <= 50 and max(map(len, lines)) <= 100
    for option in verb.takes:
        assert re.search(rf"(?m)^  {option.variable}={re.escape(option.metavar)}(?: |$)", said)
    # None of the other way to say it is left, but for what is another program's.
    assert set(re.findall(r"(?<![\w/-])--[a-z]+", said)) <= {"--sshloginfile"}
    for line in said.partition("\nExamples\n")[2].splitlines():
        make_, name, *words = shlex.split(line)
        assert (make_, name) == ("make", verb.name)
        options.parse([name, *words])
    for given in re.findall(r"Example:\s(\S+?=(?:'[^']*'|[^\s']\S*))", said):
        options.parse([verb.name, *shlex.split(given)])


def test_help_runs_no_verb() -> None:
    """`make help mutants` would have gone on with mutants, for hours."""
    for words in (("help", "list", "check"), ("list", "check", "help")):
        done = make(*words, PYTHON=sys.executable)
        assert done.returncode == 0 and done.stderr == ""
        assert done.stdout == options.manual(["list", "check"]) + "\n"
    assert refused("help", "nonesuch") == "error: make nonesuch: there is no such verb; " \
        "`make` lists them"


def test_the_help_of_the_lab_names_every_verb() -> None:
    done = lab("--help")
    assert done.returncode == 0 and done.stderr == ""
    for verb in options.VERBS:
        assert re.search(rf"(?m)^    {verb.name}\b", done.stdout), verb.name


@pytest.mark.parametrize("verb", options.VERBS, ids=lambda verb: verb.name)
def test_the_help_of_a_verb_says_all_of_each_option(verb: options.Verb) -> None:
    done = lab(verb.name, "--help", COLUMNS="80")
    assert done.returncode == 0 and done.stderr == ""
    told = dict(re.findall(r"(?m)^  --(\w+) ((?:.*\n)(?:    .*\n?)*)", done.stdout))
    assert set(told) - {"check"} == {option.name for option in verb.takes}
    for option in verb.takes:
        text = " ".join(told[option.name].split())
        assert f"({option.variable}=)" in text, option.name
        assert "default: " in text.lower() or "must be named" in text, option.name
        assert f"Example: --{option.name}" in text, option.name
    assert all(f"{options.PROGRAM} {words}" in done.stdout for words in verb.examples)


@pytest.mark.parametrize("words", [words for verb in options.VERBS for words in verb.examples])
def test_every_example_is_understood(words: str) -> None:
    args = options.parse(shlex.split(words))
    given = [word[2:].partition("=")[0] for word in shlex.split(words) if word.startswith("--")]
    assert all(getattr(args, name) for name in given)


@pytest.mark.parametrize(("words", "says"), [
    ((), "name a verb"),
    (("nonesuch",), "invalid choice: 'nonesuch'"),
    (("audit", "--boots", "3"), "--boots means nothing to audit"),
    (("audit", "BOOTS=3"), "BOOTS= means nothing to audit"),
    (("prove", "--boo", "3"), "--boo means nothing to prove"),
    (("prove", "once"), "once means nothing to prove"),
    (("prove", "--boots"), "argument --boots: expected one argument"),
    (("prove", "--boots", "0"), "BOOTS=0: a whole number"),
    (("list", "--debug"), "--debug means nothing to list"),
    (("series", "ARCH=arm64"), "ARCH= means nothing to series: patches are the same for all arch"),
    (("hosttest", "ARCH=arm64"), "ARCH= means nothing to hosttest: it runs here"),
    (("kselftest", "--boots=2"), "--boots means nothing to kselftest: each test runs once"),
])
def test_what_a_verb_does_not_take_is_refused(words: tuple[str, ...], says: str) -> None:
    with pytest.raises(LabError) as caught:
        options.parse(words)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_the_two_ways_to_say_it_are_the_same() -> None:
    one = options.parse(["prove", "--boots", "3", "--debug", "--tests", "-t x", "--kernel=~/a b"])
    two = options.parse(["prove", "BOOTS=3", "DEBUG=1", "TESTS=-t x", "KERNEL=~/a b"])
    assert one == two
    assert (one.boots, one.debug, one.tests, one.kernel) == (3, True, "-t x", Path("~/a b"))
    assert options.parse(["prove", "--tests", "-f"]).tests == "-f"
    assert options.parse(["prove"]).boots is None and options.parse(["prove"]).debug is False


def test_the_environment_is_for_those_who_know_it() -> None:
    assert options.parse(["prove", "BOOTS?=3"]).boots == 3
    options.parse(["list", "BOOTS?=3"])
    done = make("list", BOOTS="0", O="/nonexistent")
    assert done.returncode == 0, done.stderr
    assert "error: BOOTS=0: a whole number" in make("prove", BOOTS="0").stderr
    assert "error: BOOTS= means nothing to list" in make("list", "BOOTS=0").stderr


@pytest.mark.parametrize("name", ["a b", "it's", 'a"b', "a;b", "a&b", "a*b"])
def test_a_path_arrives_as_it_is(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for done in (make("audit", f"KERNEL={path}"), make("audit", KERNEL=str(path))):
        assert f"error: no such folder: {path} (KERNEL= names a kernel tree)" in done.stderr


def test_a_path_in_the_home_folder(tmp_path: Path) -> None:
    done = make("prove", "KERNEL=~/nonesuch", HOME=str(tmp_path), LAB_CACHE=str(tmp_path / "cache"))
    assert f"error: no such folder: {tmp_path}/nonesuch (KERNEL=" in done.stderr


def test_a_clone_beside_the_root(tmp_path: Path) -> None:
    """As in a container: /lab has only one folder above it."""
    code = ("import pathlib, sys; sys.path.insert(0, '.'); import lab.paths; "
            "lab.paths.REPO = pathlib.Path('/lab'); import lab.verbs.hosttest")
    done = subprocess.run([sys.executable, "-B", "-c", code], cwd=HOME, text=True,
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_program_takes_the_python_that_make_takes(tmp_path: Path) -> None:
    """Another one of PATH has none of the packages: they would be said not to be installed."""
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 42\n")
    (tmp_path / "python3").chmod(0o755)
    done = subprocess.run([MIGRATION, "list", "--help"], check=False, capture_output=True,
                          env={**outside_make(), "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert done.returncode == 0
    programs = [path for path in MIGRATION.parent.rglob("*.py") if os.access(path, os.X_OK)]
    assert len(programs) > 3
    assert {path.read_text().splitlines()[0] for path in programs} == {"#!/usr/bin/python3 -B"}
