# SPDX-License-Identifier: GPL-2.0
"""defects/<name>/defect: what is read, and what is refused."""

import dataclasses
import re
from pathlib import Path

import pytest

from lab import defect
from lab.errors import LabError
from lab.guest import selftest
from lab.paths import REPO

TEXT = """\
[defect]
title = writes go astray
upstream =
    0123456789ab mm: first
    ba9876543210 mm: second
since = 2.6.20
fixed = 4.19
selftests = one two

[control]
files = mm/a.c mm/b.c
places = f g
removes = h
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(defect, "DEFECTS", tmp_path)
    made = tmp_path / "astray"
    made.mkdir()
    (made / "control.cocci").write_text("")
    (made / "defect").write_text(TEXT)
    return made


def test_every_field_is_read(folder: Path) -> None:
    assert defect.load("astray") == defect.Defect(
        name="astray", title="writes go astray",
        upstream=("0123456789ab mm: first", "ba9876543210 mm: second"),
        since="2.6.20", fixed="4.19", selftests=("one", "two"), folder=folder,
        control=folder / "control.cocci", control_files=("mm/a.c", "mm/b.c"), places=("f", "g"),
        removes="h")


def test_a_defect_may_have_no_control(folder: Path) -> None:
    (folder / "control.cocci").unlink()
    (folder / "defect").write_text(TEXT[:TEXT.index("[control]")])
    loaded = defect.load("astray")
    assert (loaded.control, loaded.control_files, loaded.places) == (None, (), ())
    assert loaded.removes == ""


def test_a_defect_may_have_no_selftest_if_the_audit_finds_it(folder: Path) -> None:
    text = TEXT.replace("selftests = one two\n", "")
    (folder / "defect").write_text(text)
    with pytest.raises(LabError, match="no selftests and has no"):
        defect.load("astray")
    (folder / "audit.cocci").write_text("")
    (folder / "defect").write_text(text + "[audit]\nfiles = mm/a.c\nexist = f\nsee = f\n")
    loaded = defect.load("astray")
    assert (loaded.selftests, loaded.exist) == ((), ("f",))


def test_nobody_may_have_fixed_a_defect_yet(folder: Path) -> None:
    assert defect.load("astray").versions() == "since 2.6.20, fixed in 4.19"
    text = re.sub(r"upstream =\n(    .*\n)+", "brought = 111111111111 mm: third\n", TEXT)
    (folder / "defect").write_text(text.replace("fixed = 4.19\n", ""))
    loaded = defect.load("astray")
    assert (loaded.upstream, loaded.fixed) == ((), "")
    assert loaded.brought == "111111111111 mm: third"
    assert loaded.versions() == "since 2.6.20, fixed in no version yet"
    # A fix has a commit and a version, or there is none.
    for wrong in (text, TEXT.replace("fixed = 4.19\n", ""),
                  TEXT.replace("since =", "brought = 1 x\nsince ="),
                  text.replace("brought = 111111111111 mm: third\n", "")):
        (folder / "defect").write_text(wrong)
        with pytest.raises(LabError, match="brought and neither of them"):
            defect.load("astray")


def test_a_defect_may_name_the_variants_that_show_it(folder: Path) -> None:
    assert defect.load("astray").arguments() == ()
    (folder / "defect").write_text(TEXT.replace("[control]", "variants = a b\n[control]"))
    assert defect.load("astray").arguments() == ("-v", "a", "-v", "b")
    # All of those that a selftest has.
    (folder / "defect").write_text(TEXT.replace("[control]", "variants = one b\n[control]"))
    assert defect.load("astray").arguments() == ("-f", "one", "-v", "b")
    (folder / "audit.cocci").write_text("")
    (folder / "defect").write_text(TEXT.replace("selftests = one two", "variants = a")
                                   + "[audit]\nfiles = mm/a.c\nexist = f\nsee = f\n")
    with pytest.raises(LabError, match="names variants, and no selftests"):
        defect.load("astray")


def test_defects_of_shared_tables() -> None:
    shared = {name for name in defect.names() if defect.load(name).shared()}
    assert shared == {name for name in defect.names()
                      if name.startswith("pmd-share-") or name == "hugetlb-mremap-hang"}


@pytest.mark.parametrize("name", defect.names())
def test_variants_that_are_named_are_there(name: str) -> None:
    one = defect.load(name)
    chosen = {*one.variants, *one.turns}
    for test in one.selftests:
        text = (REPO / selftest.FOLDER / f"{test}.c").read_text(encoding="utf-8")
        have = {*re.findall(r"(?m)^FIXTURE_VARIANT_ADD\(\w+, (\w+)\)", text), test}
        # A program that has nothing to run says that there is no test in it.
        assert not one.variants or have & chosen
        # Its name is its fixture's, for the option -f.
        assert test not in chosen or re.findall(r"(?m)^FIXTURE\((\w+)\)", text) == [test]
        chosen -= have
    assert not chosen


def test_a_part_of_the_queue_may_be_vulnerable(folder: Path) -> None:
    (folder / "defect").write_text(TEXT + "[queue]\nvulnerable = without mm-first\n mm-second\n")
    assert defect.load("astray").without == ("mm-first", "mm-second")
    assert not defect.load("astray").before_own
    (folder / "defect").write_text(TEXT + "[queue]\nvulnerable = before its own\n")
    loaded = defect.load("astray")
    assert loaded.before_own and not loaded.without
    (folder / "defect").write_text(TEXT + "[queue]\nvulnerable = series.other\n")
    loaded = defect.load("astray")
    assert (loaded.form, loaded.before_own, loaded.without) == ("series.other", False, ())
    (folder / "defect").write_text(TEXT + "[queue]\nvulnerable = mm-first\n")
    with pytest.raises(LabError, match="must be: without"):
        defect.load("astray")


def test_what_its_tests_need_is_read(folder: Path) -> None:
    loaded = defect.load("astray")
    assert (loaded.machine, loaded.add, loaded.options) == (defect.Machine(), (), ())
    (folder / "defect").write_text(TEXT + """
[kernel]
add = README
options =
    CONFIG_CMA=y
    CONFIG_X=n
[guest]
nodes = 3072 2048
dimms = 0 0
cpu = +pdpe1gb
virtio_mem = 256
cmdline = hugetlb_cma=2G
""")
    loaded = defect.load("astray")
    assert (loaded.add, loaded.options) == (("README",), ("CONFIG_CMA=y", "CONFIG_X=n"))
    assert loaded.machine == defect.Machine((3072, 2048), (0, 0), "+pdpe1gb", 256, "hugetlb_cma=2G")


@pytest.mark.parametrize(("section", "says"), [
    ("[kernel]\noptions =\n    CONFIG_A=y\nadd = no/such.c\n", "no no/such.c"),
    ("[kernel]\n", "neither add nor options"),
    ("[kernel]\nadd = README\noptions =\n", "options is empty"),
    ("[guest]\nnodes = 3072\n", "two numbers"),
    ("[guest]\nvirtio_mem = much\n", "a number"),
    ("[guest]\nmemory = 1\n", "memory"),
])
def test_a_need_that_makes_no_sense_is_named(folder: Path, section: str, says: str) -> None:
    (folder / "defect").write_text(TEXT + section)
    with pytest.raises(LabError, match=says):
        defect.load("astray")


def another(folder: Path, name: str, selftests: str, needs: str = "") -> defect.Defect:
    """Another defect in the folder that `folder` is in."""
    made = folder.parent / name
    made.mkdir(exist_ok=True)
    (made / "control.cocci").write_text("")
    (made / "defect").write_text(TEXT.replace("one two", selftests) + needs)
    return defect.load(name)


ADDS = "[kernel]\nadd = README COPYING\n"
OPTIONS = "[kernel]\nadd = COPYING\noptions =\n    CONFIG_CMA=y\n    CONFIG_X=n\n"


def test_what_selftests_need_is_put_together(folder: Path) -> None:
    assert folder
    first = another(folder, "first", "one", "[kernel]\noptions =\n    CONFIG_X=n\n")
    another(folder, "adds", "three four", ADDS)
    another(folder, "options", "four", OPTIONS)
    another(folder, "other", "five", "[kernel]\nadd = Makefile\n[guest]\ncpu = +pdpe1gb\n")
    # What they need who show another defect is of no interest.
    assert defect.together(first, ("one", "two")) == first
    both = defect.together(first, ("one", "four"))
    assert both.add == ("README", "COPYING")
    assert both.options == ("CONFIG_X=n", "CONFIG_CMA=y")
    assert dataclasses.replace(both, add=(), options=first.options) == first
    # Its own, even where none of its selftests is run.
    assert defect.together(first, ("three",)).options == first.options


@pytest.mark.parametrize(("needs", "says"), [
    ("[kernel]\noptions =\n    CONFIG_X=y\n", "three cannot run in the same guest as the other "
     r"selftests: defects/other and defects/first differ in \[kernel\] options, CONFIG_X=y and "
     "CONFIG_X=n"),
    ("[guest]\nnodes = 3072 2048\n", "three cannot run in the same guest as the other selftests: "
     r"defects/other and defects/first differ in \[guest\]"),
])
def test_needs_that_do_not_go_together_are_named(folder: Path, needs: str, says: str) -> None:
    first = another(folder, "first", "one", "[kernel]\noptions =\n    CONFIG_X=n\n")
    another(folder, "other", "three", needs)
    with pytest.raises(LabError, match=says):
        defect.together(first, ("one", "three"))


def test_unknown_name_lists_the_known_ones(folder: Path) -> None:
    with pytest.raises(LabError, match="no defect nosuch: there are astray"):
        defect.load("nosuch")
    with pytest.raises(LabError, match="no defect"):
        defect.load("../astray")


@pytest.mark.parametrize(("old", "new", "says"), [
    ("since = 2.6.20\n", "", "since"),
    ("since =", "sinse = 1\nsince =", "sinse"),
    ("title = writes go astray", "title =", "title is empty"),
    ("selftests = one two", "selftests =", "selftests is empty"),
    ("[control]", "[kontrol]", "kontrol"),
    ("[defect]", "", "cannot be read"),
    ("fixed = 4.19", "fixed = 4.19\nfixed = 4.20", "cannot be read"),
])
def test_a_wrong_file_is_named_with_what_is_wrong(folder: Path, old: str, new: str,
                                                  says: str) -> None:
    (folder / "defect").write_text(TEXT.replace(old, new))
    with pytest.raises(LabError, match=says) as caught:
        defect.load("astray")
    assert str(folder / "defect") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_control_section_and_control_file_go_together(folder: Path) -> None:
    (folder / "control.cocci").unlink()
    with pytest.raises(LabError, match="control.cocci"):
        defect.load("astray")


def test_an_amplifier_goes_with_its_file(folder: Path) -> None:
    assert defect.load("astray").amplifier is None
    (folder / "amplifier.cocci").write_text("")
    with pytest.raises(LabError, match="it must have .*'amplifier'"):
        defect.load("astray")
    said = "[amplifier]\nfiles = mm/a.c mm/b.c\nplaces = f|g\ndoes = sleeps\n    a lot\n"
    (folder / "defect").write_text(TEXT + said)
    assert defect.load("astray").amplifier == defect.Amplifier(
        folder / "amplifier.cocci", ("mm/a.c", "mm/b.c"), ("f|g",), "sleeps a lot")
    (folder / "amplifier.cocci").unlink()
    with pytest.raises(LabError, match="amplifier"):
        defect.load("astray")


def test_all_defects_of_the_repository_load() -> None:
    assert "pmd-share-migrate" in defect.names()
    for name in defect.names():
        one = defect.load(name)
        assert one.selftests or one.audit


def test_what_is_fatal_is_a_symptom() -> None:
    one = defect.load("exec-temp-stack")
    assert one.fatal and set(one.fatal) < set(one.symptoms)
    assert not defect.load("pmd-share-migrate").fatal


@pytest.mark.parametrize("name", defect.names())
@pytest.mark.parametrize("text", ["WARNING: CPU: 0 PID: 1 at mm/rmap.c:1 x+0x1/0x2",
                                  "WARNING: possible circular locking dependency detected"])
def test_not_any_warning_is_a_symptom(name: str, text: str) -> None:
    """One that nobody has seen yet is to be looked at."""
    assert not any(re.search(symptom, text) for symptom in defect.load(name).symptoms)


def test_turns_are_for_what_is_fatal(folder: Path) -> None:
    assert defect.load("astray").turns == ()
    path = folder / "defect"
    path.write_text(TEXT.replace("[control]", "turns = a b\n[control]"))
    with pytest.raises(LabError, match="turns are for a kernel that dies"):
        defect.load("astray")
    text = TEXT.replace("[control]", "turns = a b\nfatal = BUG\n[control]")
    path.write_text(text)
    loaded = defect.load("astray")
    assert (loaded.turns, loaded.arguments(), loaded.arguments("b")) == (("a", "b"), (), ("-v", "b"))
    # Beside variants that are not: those are run in each boot.
    path.write_text(text.replace("turns", "variants = one c\nturns"))
    loaded = defect.load("astray")
    assert loaded.arguments() == ("-f", "one", "-v", "c", "-v", "a", "-v", "b")
    assert loaded.arguments("b") == ("-f", "one", "-v", "c", "-v", "b")
