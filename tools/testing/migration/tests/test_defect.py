# SPDX-License-Identifier: GPL-2.0
"""defects/<name>/: what is read, and what is refused."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from lab import arch, defect
from lab.errors import LabError
from lab.guest import selftest
from lab.paths import HOME, REPO

TEXT = """\
title = "writes go astray"
since = "2.6.20"
upstream = [
    "0123456789ab mm: first",
    "ba9876543210 mm: second",
]
fixed = "4.19"

[show]
selftests = ["one", "two"]

[revert]
files = ["mm/a.c", "mm/b.c"]
places = ["f", "g"]
removes = "h"
"""
AUDIT = """
[audit]
files = ["mm/a.c"]
exist = ["f"]
see = ["g"]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(defect, "DEFECTS", tmp_path)
    made = tmp_path / "astray"
    made.mkdir()
    (made / "revert.cocci").write_text("")
    (made / defect.FILE).write_text(TEXT)
    return made


def test_every_field_is_read(folder: Path) -> None:
    assert defect.load("astray") == defect.Defect(
        name="astray", folder=folder, title="writes go astray", since="2.6.20",
        upstream=("0123456789ab mm: first", "ba9876543210 mm: second"), fixed="4.19",
        show=defect.Show(selftests=("one", "two")),
        revert=defect.Revert(folder / "revert.cocci", ("mm/a.c", "mm/b.c"), ("f", "g"), "h"))


def test_a_defect_may_have_no_rule_that_takes_the_protection_out(folder: Path) -> None:
    (folder / "revert.cocci").unlink()
    (folder / defect.FILE).write_text(TEXT[:TEXT.index("[revert]")])
    assert defect.load("astray").revert is None


def test_a_defect_may_have_no_selftest_if_the_audit_finds_it(folder: Path) -> None:
    text = TEXT.replace('[show]\nselftests = ["one", "two"]\n', "")
    (folder / defect.FILE).write_text(text)
    with pytest.raises(LabError, match="nothing finds the defect"):
        defect.load("astray")
    (folder / "audit.cocci").write_text("")
    (folder / defect.FILE).write_text(text + AUDIT)
    loaded = defect.load("astray")
    assert loaded.show == defect.Show()
    assert loaded.audit == defect.Audit(folder / "audit.cocci", ("mm/a.c",), ("f",), ("g",))


def test_nobody_may_have_fixed_a_defect_yet(folder: Path) -> None:
    assert defect.load("astray").versions() == "since 2.6.20, fixed in 4.19"
    text = re.sub(r"upstream = \[\n(    .*\n)+\]\n", 'brought = "111111111111 mm: third"\n',
                  TEXT)
    (folder / defect.FILE).write_text(text.replace('fixed = "4.19"\n', ""))
    loaded = defect.load("astray")
    assert (loaded.upstream, loaded.fixed) == ((), "")
    assert loaded.brought == "111111111111 mm: third"
    assert loaded.versions() == "since 2.6.20, fixed in no version yet"
    # Of a fix that is there it may not be known which commit it was.
    (folder / defect.FILE).write_text(text)
    assert defect.load("astray").upstream == ()
    assert defect.load("astray").versions() == "since 2.6.20, fixed in 4.19"
    # A commit that fixes it has a version.
    for wrong in (TEXT.replace('fixed = "4.19"\n', ""),
                  TEXT.replace("since =", 'brought = "1 x"\nsince ='),
                  text.replace('brought = "111111111111 mm: third"\n', "")):
        (folder / defect.FILE).write_text(wrong)
        with pytest.raises(LabError, match="brought and neither of them"):
            defect.load("astray")
    (folder / defect.FILE).write_text(TEXT.replace("since =", 'patches = ["mm: x"]\nsince ='))
    with pytest.raises(LabError, match="patches goes with brought"):
        defect.load("astray")


def shown(**keys: object) -> str:
    """TEXT with more keys in [show]."""
    said = "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
    return TEXT.replace("[show]\n", f"[show]\n{said}")


def test_a_defect_may_name_the_variants_that_show_it(folder: Path) -> None:
    assert defect.load("astray").arguments() == ()
    (folder / defect.FILE).write_text(shown(variants=["a", "b"]))
    assert defect.load("astray").arguments() == ("-v", "a", "-v", "b")
    # All of those that a selftest has.
    (folder / defect.FILE).write_text(shown(variants=["one", "b"]))
    assert defect.load("astray").arguments() == ("-f", "one", "-v", "b")
    (folder / "audit.cocci").write_text("")
    (folder / defect.FILE).write_text(TEXT.replace('selftests = ["one", "two"]',
                                                   'variants = ["a"]') + AUDIT)
    with pytest.raises(LabError, match=r"\[show\] selftests is missing"):
        defect.load("astray")


def test_every_defect_says_what_it_is_to_who_runs_a_kernel() -> None:
    for one in map(defect.load, defect.names()):
        assert one.risk and len(one.risk) <= 80 and not one.risk.endswith("."), one.name


def test_a_defect_that_is_only_slow_loses_nothing() -> None:
    slow = [one for one in map(defect.load, defect.names()) if one.only_slow]
    assert {one.name for one in slow} == {"pmd-share-busy"}
    assert not [one for one in slow if one.show.fatal or one.show.symptoms
                or one.show.harm == "lost writes"]


@pytest.mark.parametrize("said, wrong", [
    ("f: who frees does not wait", False), ("g: it is not in exist", True), ("f", True), ("f: ", True)])
def test_what_is_said_where_a_rule_says_nothing(said: str, wrong: bool, folder: Path) -> None:
    (folder / "audit.cocci").write_text("")
    (folder / defect.FILE).write_text(f'{TEXT}{AUDIT}absent = ["{said}"]\n')
    if wrong:
        with pytest.raises(LabError, match="absent"):
            defect.load("astray")
        return
    rules = defect.load("astray").audit
    assert rules and rules.lacks("f") == "who frees does not wait"
    assert rules.lacks("g|h") == "there is no g()"


def test_defects_of_shared_tables() -> None:
    shared = {name for name in defect.names() if defect.load(name).shares_tables}
    assert shared == {name for name in defect.names()
                      if name.startswith("pmd-share-")
                      or name in ("hugetlb-mremap-hang", "hugetlb-fork-shared",
                                  "hugetlb-fork-sizes")}
    # And the audit looks for the code of such tables.
    functions = {"huge_pmd_share", "sharing_lock", "adjust_range_if_pmd_sharing_possible",
                 "tlb_unshare_pmd_ptdesc", "gathers_pud"}
    for name in defect.names():
        rules = defect.load(name).audit
        assert rules and (name in shared) == bool(
            functions & {one for names in rules.exist for one in names.split("|")}), name


@pytest.mark.parametrize("name", defect.names())
def test_variants_that_are_named_are_there(name: str) -> None:
    one = defect.load(name)
    chosen = {*one.show.variants, *" ".join(one.show.turns).split()}
    for test in one.show.selftests:
        text = (REPO / selftest.FOLDER / f"{test}.c").read_text(encoding="utf-8")
        have = {*re.findall(r"(?m)^FIXTURE_VARIANT_ADD\(\w+, (\w+)\)", text), test}
        # A program that has nothing to run says that there is no test in it.
        assert not one.show.variants or have & chosen
        # Its name is its fixture's, for the option -f.
        assert test not in chosen or re.findall(r"(?m)^FIXTURE\((\w+)\)", text) == [test]
        chosen -= have
    assert not chosen


def test_a_part_of_the_queue_may_be_vulnerable(folder: Path) -> None:
    assert defect.load("astray").queue == defect.Queue()
    for said, queue in (
            ('without = ["mm-first", "mm-2"]', defect.Queue(without=("mm-first", "mm-2"))),
            ("before_own = true", defect.Queue(before_own=True)),
            ('form = "series.other"', defect.Queue(form="series.other"))):
        (folder / defect.FILE).write_text(f"{TEXT}\n[queue]\n{said}\n")
        assert defect.load("astray").queue == queue


def test_what_its_tests_need_is_read(folder: Path) -> None:
    loaded = defect.load("astray")
    assert (loaded.guest, loaded.kernel) == (defect.Machine(), defect.Kernel())
    (folder / defect.FILE).write_text(TEXT + """
[kernel]
add = ["README"]
cmdline = "hugetlb_cma=2G"

[guest]
nodes = [3072, 2048]
dimms = [0, 0]
cpu = "+pdpe1gb"
virtio_mem = 256
eject = 512
env = ["ASTRAY=1"]
""")
    (folder / "config").write_text("# Why.\nCONFIG_CMA=y\n# CONFIG_X is not set\n")
    loaded = defect.load("astray")
    assert loaded.kernel == defect.Kernel(("README",), "hugetlb_cma=2G", (),
                                          ("CONFIG_CMA=y", "# CONFIG_X is not set"))
    assert loaded.guest == defect.Machine((3072, 2048), (0, 0), "+pdpe1gb", 256, ("ASTRAY=1",),
                                          eject=512)


def another(folder: Path, name: str, selftests: list[str], needs: str = "", config: str = ""
            ) -> defect.Defect:
    """Another defect in the folder that `folder` is in."""
    made = folder.parent / name
    made.mkdir(exist_ok=True)
    (made / "revert.cocci").write_text("")
    (made / defect.FILE).write_text(TEXT.replace('["one", "two"]', json.dumps(selftests)) + needs)
    if config:
        (made / "config").write_text(config)
    return defect.load(name)


OFF = "# CONFIG_X is not set\n"


def test_what_selftests_need_is_put_together(folder: Path) -> None:
    assert folder
    first = another(folder, "first", ["one"], '[guest]\nenv = ["A=1"]\n', OFF)
    another(folder, "adds", ["three", "four"], '[kernel]\nadd = ["README", "COPYING"]\n')
    another(folder, "options", ["four"], '[kernel]\nadd = ["COPYING"]\n[guest]\nenv = ["B=2"]\n',
            f"CONFIG_CMA=y\n{OFF}")
    another(folder, "other", ["five"],
            '[kernel]\nadd = ["Makefile"]\n[guest]\ncpu = "+pdpe1gb"\n')
    # What they need who show another defect is of no interest.
    assert defect.together(first, ("one", "two")) == first
    both = defect.together(first, ("one", "four"))
    assert both.kernel.add == ("README", "COPYING")
    assert both.kernel.options == ("# CONFIG_X is not set", "CONFIG_CMA=y")
    assert both.guest.env == ("A=1", "B=2")
    assert dataclasses.replace(both, kernel=first.kernel, guest=first.guest) == first
    # Its own, even where none of its selftests is run.
    alone = defect.together(first, ("three",))
    assert (alone.kernel.options, alone.guest.env) == (first.kernel.options, ("A=1",))


@pytest.mark.parametrize(("needs", "config", "says"), [
    ("", "CONFIG_X=y\n", "three cannot run in the same guest as the other selftests: "
     "defects/other and defects/first differ in config, CONFIG_X=y and # CONFIG_X is not set"),
    ("[guest]\nnodes = [3072, 2048]\n", "", "three cannot run in the same guest as the other "
     r"selftests: defects/other and defects/first differ in \[guest\]"),
    ('[kernel]\ncmdline = "x=1"\n', "", "three cannot run in the same guest as the other "
     r"selftests: defects/other and defects/first differ in \[kernel\] cmdline"),
])
def test_needs_that_do_not_go_together_are_named(folder: Path, needs: str, config: str, says: str
                                                 ) -> None:
    first = another(folder, "first", ["one"], "", OFF)
    another(folder, "other", ["three"], needs, config)
    with pytest.raises(LabError, match=says):
        defect.together(first, ("one", "three"))


def test_what_selftests_want_in_their_environment(folder: Path) -> None:
    another(folder, "first", ["one", "three"], '[guest]\nenv = ["A=1", "B=2"]\n')
    another(folder, "second", ["three"], '[guest]\nenv = ["C=3", "A=1"]\n')
    path = folder.parent / "second" / defect.FILE
    assert defect.environment(["three"]) == ("A=1", "B=2", "C=3")
    assert defect.environment(["one"]) == ("A=1", "B=2")
    assert defect.environment() == ("A=1", "B=2", "C=3")
    # Only where it is asked for.
    path.write_text(path.read_text().replace("[show]\n", "[show]\non_request = true\n"))
    assert defect.environment() == ("A=1", "B=2")
    assert defect.environment(["three"]) == ("A=1", "B=2", "C=3")


@pytest.mark.parametrize("name", defect.names())
def test_what_a_selftest_does_not_run_without_is_given_to_it(name: str) -> None:
    one = defect.load(name)
    wanted: set[str] = set()
    for test in one.show.selftests:
        code = (REPO / selftest.FOLDER / f"{test}.c").read_text(encoding="utf-8")
        asked = {*re.findall(r'SKIP\([^;]*?\b([A-Z_]+)=1\b', code),
                 *(["HUGETLB_PMD_CHURN"] if "churn_lacks(" in code else []),
                 # It is the rounds of migrate_round.c that ask for it there.
                 *(["HUGETLB_PMD_MIGRATE_OFFLINE"] if test == "hugetlb_pmd_migrate" else [])}
        # One of its variants alone needs that.
        if test == "hugetlb_pmd_churn" and "two_migrate_soft_offline" not in one.show.turns:
            asked.discard("HUGETLB_PMD_MIGRATE_OFFLINE")
        wanted |= {f"{variable}=1" for variable in asked}
    assert set(one.guest.env) == wanted


def test_unknown_name_lists_the_known_ones(folder: Path) -> None:
    with pytest.raises(LabError, match="no defect nosuch: there are astray"):
        defect.load("nosuch")
    with pytest.raises(LabError, match="no defect"):
        defect.load("../astray")


@pytest.mark.parametrize(("old", "new", "says"), [
    ('since = "2.6.20"\n', "", "since is missing"),
    ("since =", 'sinse = "1"\nsince =', "sinse: there is no such key, only title, since, "),
    ('title = "writes go astray"', 'title = ""', "title is empty"),
    ('title = "writes go astray"', "title = 3", "title must be a string"),
    ('since = "2.6.20"', "since = 2.6", "since must be a string"),
    ('selftests = ["one", "two"]', "selftests = []", r"\[show\] selftests is empty"),
    ('selftests = ["one", "two"]', 'selftests = ["one", " "]', r"\[show\] selftests is empty"),
    ('selftests = ["one", "two"]', 'selftests = "one two"',
     r"\[show\] selftests must be a list of strings"),
    ('selftests = ["one", "two"]', "selftests = [1]", r"\[show\] selftests must be a list of str"),
    ('selftests = ["one", "two"]', "", r"\[show\] is empty"),
    ("[show]\n", "[show]\nhurt = 1\n", r"\[show\] hurt: there is no such key, only selftests, "),
    ("[show]\n", '[show]\nfatal = ["("]\n', r"\[show\] fatal: \(: "),
    ("[show]\n", '[show]\nsymptoms = ["["]\n', r"\[show\] symptoms: \[: "),
    ("[show]\n", "[show]\non_request = 1\n", r"\[show\] on_request must be true or false"),
    ("[show]\n", "[show]\nsymptoms = 'a'\n", r"\[show\] symptoms must be a list of strings"),
    ("[revert]", "[kontrol]", r"\[kontrol\]: there is no such table, only \[revert\], "),
    ("[revert]\n", "[revert]\nrule = 'x'\n", r"\[revert\] rule: there is no such key"),
    ('removes = "h"', "", r"\[revert\] removes is missing"),
    ("[show]", "show = 1\n[shown]", r"\[shown\]: there is no such table"),
    ("[show]\n", "[show\n", "cannot be read"),
    ('fixed = "4.19"', 'fixed = "4.19"\nfixed = "4.20"', "cannot be read"),
    ("since =", 'shares_tables = "yes"\nsince =', "shares_tables must be true or false"),
])
def test_a_wrong_file_is_named_with_what_is_wrong(folder: Path, old: str, new: str,
                                                  says: str) -> None:
    assert TEXT.count(old) == 1
    check_refused(folder, TEXT.replace(old, new), says)


def check_refused(folder: Path, text: str, says: str) -> None:
    """One line names the file and says what."""
    (folder / defect.FILE).write_text(text)
    with pytest.raises(LabError, match=says) as caught:
        defect.load("astray")
    assert str(folder / defect.FILE) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("more", "says"), [
    ('[kernel]\nadd = ["no/such.c"]\n', r"\[kernel\] add: there is no no/such.c"),
    ("[kernel]\n", r"\[kernel\] is empty"),
    ('[kernel]\noptions = ["CONFIG_A=y"]\n', r"\[kernel\] options: there is no such key"),
    ('[kernel]\nadd = ["README"]\ncmdline = " "\n', r"\[kernel\] cmdline is empty"),
    ("[guest]\nnodes = [3072]\n", r"\[guest\] nodes must be two whole numbers"),
    ("[guest]\nnodes = [3072, 1, 2]\n", r"\[guest\] nodes must be two whole numbers"),
    ("[guest]\nnodes = [3072, -1]\n", r"\[guest\] nodes must be two whole numbers"),
    ("[guest]\nnodes = [3072, true]\n", r"\[guest\] nodes must be two whole numbers"),
    ('[guest]\nvirtio_mem = "much"\n', r"\[guest\] virtio_mem must be a whole number"),
    ("[guest]\nvirtio_mem = 0.5\n", r"\[guest\] virtio_mem must be a whole number"),
    ('[guest]\neject = "a"\n', r"\[guest\] eject must be a whole number"),
    ("[guest]\nmemory = 1\n", r"\[guest\] memory: there is no such key, only nodes, dimms, "),
    ('[kernel]\nsizes = ["ARM64_16K_PAGES"]\n', r"\[kernel\] sizes: ARM64_16K_PAGES is not NAME=v"),
    ('[kernel]\nsizes = ["NUMA=y"]\n', r"\[kernel\] sizes: NUMA=y is not NAME=value, with NAME an"),
    ('[guest]\nenv = ["A"]\n', r"\[guest\] env: A is not NAME=value"),
    ('[guest]\nenv = ["A=1,B=2"]\n', r"\[guest\] env: A=1,B=2 is not NAME=value"),
    ('[queue]\nvulnerable = "x"\n', r"\[queue\] vulnerable: there is no such key, only before_own"),
    ('[queue]\nform = "other"\n', r"\[queue\] form must be the name of a file: series.<form>"),
    ('[queue]\nform = "series.x"\nbefore_own = true\n', r"\[queue\] must have one of"),
    (AUDIT, r"there is \[audit\] and no audit.cocci: one goes with the other"),
])
def test_a_need_that_makes_no_sense_is_named(folder: Path, more: str, says: str) -> None:
    check_refused(folder, f"{TEXT}\n{more}", says)


def test_its_fragment_is_named_where_it_is_wrong(folder: Path) -> None:
    (folder / "config").write_text("CONFIG_A=y\nCONFIG_B\n")
    with pytest.raises(LabError, match="astray/config:2: neither an option nor a comment"):
        defect.load("astray")


def test_a_table_and_its_rule_go_together(folder: Path) -> None:
    (folder / "revert.cocci").unlink()
    check_refused(folder, TEXT, r"there is \[revert\] and no revert.cocci")
    (folder / "revert.cocci").write_text("")
    check_refused(folder, TEXT[:TEXT.index("[revert]")], r"there is revert.cocci and no \[revert\]")


def test_an_amplifier_goes_with_its_file(folder: Path) -> None:
    assert defect.load("astray").amplifier is None
    (folder / "amplifier.cocci").write_text("")
    check_refused(folder, TEXT, r"there is amplifier.cocci and no \[amplifier\]")
    (folder / defect.FILE).write_text(f"""{TEXT}
[amplifier]
files = ["mm/a.c", "mm/b.c"]
places = ["f|g"]
does = "sleeps a lot"
""")
    assert defect.load("astray").amplifier == defect.Amplifier(
        folder / "amplifier.cocci", ("mm/a.c", "mm/b.c"), ("f|g",), "sleeps a lot")
    (folder / "amplifier.cocci").unlink()
    with pytest.raises(LabError, match="amplifier"):
        defect.load("astray")


def test_all_defects_of_the_repository_load() -> None:
    assert "pmd-share-migrate" in defect.names()
    for name in defect.names():
        one = defect.load(name)
        assert one.show.selftests or one.audit


def test_what_is_fatal_is_a_symptom() -> None:
    show = defect.load("exec-temp-stack").show
    assert show.fatal and set(show.fatal) < set(show.symptoms)
    assert not defect.load("pmd-share-migrate").show.fatal


@pytest.mark.parametrize("place", ["mm/hugetlb.c:7255", "include/linux/mm.h:2572",
                                   "include/linux/page-flags.h:1013"])
def test_what_kernels_died_of_when_they_had_split_a_table(place: str) -> None:
    """Each was met in boots of 6.1.192, the last in one of many."""
    fatal = defect.load("pmd-share-split").show.fatal
    assert any(re.search(one, f"kernel BUG at {place}!") for one in fatal)


@pytest.mark.parametrize("name", defect.names())
@pytest.mark.parametrize("text", ["WARNING: CPU: 0 PID: 1 at mm/rmap.c:1 x+0x1/0x2",
                                  "WARNING: possible circular locking dependency detected"])
def test_not_any_warning_is_a_symptom(name: str, text: str) -> None:
    """One that nobody has seen yet is to be looked at."""
    assert not any(re.search(symptom, text) for symptom in defect.load(name).show.symptoms)


def test_an_architecture_that_hides_it_says_why(folder: Path) -> None:
    path = folder / defect.FILE
    assert defect.load("astray").show.hides("x86_64") == ""
    path.write_text(shown(hidden=["x86_64: it is lucky: so"]))
    assert defect.load("astray").show.hides("x86_64") == "it is lucky: so"
    assert defect.load("astray").show.hides("arm64") == ""
    for wrong in ("x86_64", "x86_64: ", "sparc: it is lucky"):
        check_refused(folder, shown(hidden=[wrong]), f"hidden: {wrong} is not ARCH: why, with ARCH")


def test_what_it_cannot_be_shown_without(folder: Path) -> None:
    path = folder / defect.FILE
    path.write_text(shown(needs=["MEMORY_FAILURE"]))
    assert defect.load("astray").show.needs == ("MEMORY_FAILURE",)
    check_refused(folder, shown(needs=["MEMORY_FAILUER"]),
                  "needs: no architecture of lab/arch.py lacks MEMORY_FAILUER")


def test_kernels_of_another_size(folder: Path) -> None:
    """They are those of its own proofs, and of one architecture; the guest of all tests has none."""
    (folder / defect.FILE).write_text(
        TEXT + '[kernel]\nsizes = ["ARM64_4K_PAGES=n", "ARM64_16K_PAGES=y"]\n')
    loaded = defect.load("astray")
    assert loaded.kernel.options == ()
    assert set(defect.sized(loaded).kernel.options) == {
        "# CONFIG_ARM64_4K_PAGES is not set", "CONFIG_ARM64_16K_PAGES=y"}
    assert defect.why_not(loaded, arch.load("arm64"), "6.12") == ""
    for name in ("x86_64", "riscv64"):
        assert defect.why_not(loaded, arch.load(name), "6.12") == \
            f"{name} has no ARM64_16K_PAGES, and it takes that to show it"


def test_code_that_has_gone(folder: Path) -> None:
    (folder / defect.FILE).write_text('gone = "5.13"\n' + TEXT)
    assert defect.load("astray").gone == "5.13"
    check_refused(folder, 'gone = "soon"\n' + TEXT, "gone must be a version")


def test_turns_are_for_what_is_fatal(folder: Path) -> None:
    assert defect.load("astray").show.turns == ()
    path = folder / defect.FILE
    check_refused(folder, shown(turns=["a", "b"]), "turns are for a kernel that dies")
    path.write_text(shown(turns=["a", "b"], fatal=["BUG"]))
    loaded = defect.load("astray")
    assert loaded.show.turns == ("a", "b")
    assert (loaded.arguments(), loaded.arguments("b")) == ((), ("-v", "b"))
    # It may get stuck instead.
    path.write_text(shown(turns=["a", "b"], symptoms=["blocked for"]))
    assert defect.load("astray").arguments("b") == ("-v", "b")
    # Beside variants that are not: those are run in each boot.
    path.write_text(shown(variants=["one", "c"], turns=["a", "b"], fatal=["BUG"]))
    loaded = defect.load("astray")
    assert loaded.arguments() == ("-f", "one", "-v", "c", "-v", "a", "-v", "b")
    assert loaded.arguments("b") == ("-f", "one", "-v", "c", "-v", "b")
    # Two in one boot; and each of them once where no turn is named.
    path.write_text(shown(variants=["c"], turns=["a b", "b"], fatal=["BUG"]))
    loaded = defect.load("astray")
    assert loaded.arguments("a b") == ("-v", "c", "-v", "a", "-v", "b")
    assert loaded.arguments() == ("-v", "c", "-v", "a", "-v", "b")


# ---- what the lab knows of them ------------------------------------------------------------

# A name that the lab's code may have, by file, and why.
NAMED = {("wanted.py", "pmd-share-migrate"): "what DEFECT= is if it is not named",
         ("wanted.py", "pmd-share-walkers"): "and of make steps this one, too",
         ("options.py", "pmd-share-flush"): "an example in the help"}


def names_in(lab: Path) -> set[tuple[str, str]]:
    """Names of defects, of selftests, and of what these need, in the code below `lab`."""
    known = {*defect.names(), *selftest.names()}
    for name in defect.names():
        one = defect.load(name)
        known |= {variable.partition("=")[0] for variable in one.guest.env}
        known |= {Path(file).stem for file in one.kernel.add}
    pattern = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, sorted(known)))})(?![\w-])")
    return {(str(path.relative_to(lab)), name)
            for path in lab.rglob("*") if path.is_file() and "__pycache__" not in path.parts
            for name in pattern.findall(path.read_text(encoding="utf-8", errors="replace"))}


def test_the_lab_names_no_defect_and_no_selftest() -> None:
    """What it knows of one is in the folder of that."""
    assert names_in(HOME / "lab") == set(NAMED)


@pytest.mark.parametrize("text", [
    "load('pmd-share-flush')", "if 'hugetlb_pmd_churn' in names:", "HUGETLB_PMD_CHURN=1",
    "lib/test_mmu_notifier.c"])
def test_a_name_in_the_lab_is_seen(tmp_path: Path, text: str) -> None:
    (tmp_path / "guest").mkdir()
    (tmp_path / "guest" / "init").write_text(f"x\n{text}\n")
    (tmp_path / "other.py").write_text("pmd-share-flushed, my-pmd-share-flush, hugetlb_pmd_bench\n")
    assert [file for file, _name in names_in(tmp_path)] == ["guest/init"]


# ---- Documentation/adding.rst --------------------------------------------------------------

ADDING = REPO / "Documentation" / "adding.rst"
# Tables are named there with their keys, and files by what they are.
PLACES = ("configs/", "lab/", "tests/", "bases/", "queue/tests/", "Documentation/", "tools/")


def wrong_in(text: str) -> list[str]:
    """Files that the document names and that are not there, and lines of TOML that no file has."""
    named = {name for name in re.findall(r"``([\w./-]+)``", text) if name.startswith(PLACES)}
    wrong = [name for name in sorted(named)
             if not (REPO / name).exists() and not (HOME / name).exists()]
    have = {line for folder in ("defects", "mutants", "bases")
            for path in (HOME / folder).rglob("*.toml")
            for line in path.read_text(encoding="utf-8").splitlines()}
    return wrong + [line for line in re.findall(r"(?m)^\t(\w+ = .+)$", text) if line not in have]


def test_the_document_about_adding_names_what_there_is() -> None:
    text = ADDING.read_text(encoding="utf-8")
    assert wrong_in(text) == []
    assert wrong_in(text.replace("lab/arch.py", "lab/row.py")
                    .replace('harm = "poisoned', 'harms = "poisoned')) == \
        ["lab/row.py", 'harms = "poisoned pages of others"']
    assert not [line for line in text.splitlines() if len(line) > 80 and line[0] != "\t"]
