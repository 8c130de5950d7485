# SPDX-License-Identifier: GPL-2.0
"""The documents: they render without a warning, and say of 7.3 what is so."""

import dataclasses
import io
import math
import re
import shutil
from pathlib import Path

import pytest
from conftest import APART, LATER, OF_FLUSH, debian_files, make
from test_record import made
from test_result import deaths
from trees import apply

from lab import base as bases, defect, options
from lab.errors import LabError
from lab.guest import selftest
from lab.judge import verdict
from lab.kernel import testseries, variant
from lab.paths import REPO
from lab.progress import Progress
from lab.tell import cells, docs, record, result, rst

PAGE = REPO / "Documentation" / "mm" / "hugetlb_pmd_sharing.rst"
# Where the functions are that the page is about, and those who unshare; the patterns are tar's.
FOLDERS = ("mm", "fs/hugetlbfs", "fs/proc", "include/linux", "include/asm-generic",
           "arch/*/mm", "arch/*/include/asm")
FUNCTION = re.compile(r"\b(\w+)\(\)")
# In column 0, perhaps after its type and attributes; or a macro.
DEFINITION = re.compile(r"(?m)^(?:#[ \t]*define[ \t]+|(?:\w[\w \t*]*[ \t*])?)(\w+)\(")
UNSHARES = re.compile(r"\b(?:(?:__)?huge_pmd_unshare|hugetlb_unshare_\w+|hugetlb_split)\(")

needs_sphinx = pytest.mark.skipif(not shutil.which("sphinx-build"),
                                  reason="no sphinx-build: apt install python3-sphinx")


# ---- make docs -----------------------------------------------------------------------------


@needs_sphinx
def test_all_documents_render_without_a_warning(tmp_path: Path) -> None:
    out = tmp_path / "html"
    done = make("docs", f"O={out}", LAB_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{out}/index.html" in done.stdout
    pages = [str(path.relative_to(REPO / "Documentation").with_suffix(""))
             for path in (REPO / "Documentation").rglob("*.rst")]
    pages += [f"{folder}/{path.stem}" for path in record.RECORDS.glob("*/*.json")
              for folder in [path.parent.name if path.parent.name in ("mutants", "bench")
                             else f"proofs/{path.parent.name}"]]
    assert len(pages) > 40
    for page in pages:
        assert (out / f"{page}.html").is_file(), page
    # Rendered for the build alone.
    assert not [path for path in (REPO / "Documentation").glob("[pmb]*/**/*.rst")
                if path.stem[0].isdecimal()]


@needs_sphinx
@pytest.mark.parametrize("bad", [
    "A title that is too long\n=====\n\nfor its line.\n",
    "Title\n=====\n\nSee `nowhere`_.\n",
    "Title\n=====\n\n- a list\nthat ends in a wrong place\n",
])
def test_a_warning_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "in" / "mm").mkdir(parents=True)
    (tmp_path / "in" / "mm" / "page.rst").write_text(bad)
    with pytest.raises(LabError, match=r"Documentation/mm/page\.rst:\d+: (WARNING|ERROR)"):
        docs.build(tmp_path / "out", Progress(io.StringIO()), tmp_path / "in", tmp_path)


@needs_sphinx
def test_new_records_render_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                              ) -> None:
    """With all that those of before do not have: evidence, checks, reasons for skips."""
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    for name, one in (("new", made()), ("died", deaths())):
        result.write(one, tmp_path / name)
        record.write(tmp_path / name, tmp_path / name / "records")
        (tmp_path / name / "in").mkdir()
        docs.build(tmp_path / name / "out", Progress(io.StringIO()), tmp_path / name / "in",
                   tmp_path / name / "records")
        page = (tmp_path / name / "out/proofs/pmd-share-migrate/6.12.57-1.html").read_text()
        assert ("One lost write, on the vulnerable kernel" in page) == (name == "new")
        assert ("swapops.h:505!" in page) == ("<strong>Stale</strong>" in page) == (name == "died")


def test_what_the_two_forms_cost_is_recorded() -> None:
    """The rows of the page that say so have the figures of the record."""
    page = (REPO / "Documentation" / "proofs" / "index.rst").read_text(encoding="utf-8")
    told = record.read(record.RECORDS / "bench" / "4.18.0.json")["tables"][0]
    head, rows = told["head"], {tuple(row[:2]): row for row in told["rows"]}
    for state, column, row in (("hot", "moved %", "write: calls that moved it"),
                               ("hot", "ms", "time of a call"),
                               ("hot", "TLB", "interrupts to flush, a page moved"),
                               ("hot", "faults", "faults, a page moved"),
                               ("asleep", "ms", "the same while all sleep: time"),
                               ("asleep", "TLB", "interrupts to flush"),
                               ("asleep", "faults", "faults")):
        unit = {"moved %": " %", "ms": " ms"}.get(column, "")
        one, other = (rows[f"{state}, 512", form][head.index(column)]
                      for form in ("series", "series.unshare"))
        assert re.search(rf"(?m)^{row} +{one}{unit} +{other}{unit}$", page), row


def test_how_often_each_was_booted_is_counted() -> None:
    """Of each record that there is, on the page that `make docs` makes."""
    page = rst.pages()["proofs/boots"]
    head = next(line for line in page.splitlines() if line.startswith("defect")).split()
    runs = [run for run in record.proofs() if run.arch == "x86_64" and not run.debug
            and cells.counts(run)]
    part = page.split("\nx86_64\n")[1].split("\nx86_64 with")[0]
    rows = {line.split()[0]: line.split() for line in part.splitlines() if line[:1].isalpha()}
    assert set(defect.names()) < set(rows) and len(runs) > 100
    for run in runs:
        least = min(kernel.boots for kernel in run.both())
        name = bases.for_version(run.source["version"]).name
        assert rows[run.defect][head.index(name)].strip("()") == str(least), run.name()
    assert rows["pmd-share-arm64-flush"][1:] == ["-"] * (len(head) - 1)
    one = made()
    assert "(20)" not in rst.boots([one]) and " none " in rst.boots([one])
    # What has no record but of another form has none that is told here.
    form = dataclasses.replace(one, arch="arm64", command="make prove ARCH=arm64 FORM=flush")
    assert "\narm64\n" not in rst.boots([one, form])


def test_the_kernels_conf_is_left_alone() -> None:
    for name in ("conf.py", "mm/index.rst"):
        assert not (REPO / "Documentation" / name).exists()
    # The index here is of this project's pages; it must not go where the kernel's is.
    assert "hugetlb_pmd_sharing.rst" in _series()
    assert "Documentation/index.rst" not in _series()


def _series() -> str:
    """All that the patches that add the tests and the document are made of."""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace")
                     for path in sorted(testseries.ROOM.rglob("*")) if path.is_file())


# Not what `make docs` has written there.
TYPED = [path for pattern in ("*.rst", "*/index.rst", "findings/*.rst")
         for path in sorted((REPO / "Documentation").glob(pattern))]


@pytest.mark.parametrize("page", [*TYPED, PAGE],
                         ids=lambda path: f"{path.parent.name}-{path.name}")
def test_lines_are_short(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [number for number, line in enumerate(lines, 1)
            if len(line) > 80 and not line.startswith("\t")] == []


@needs_sphinx
def test_a_folder_without_an_index_gets_one_and_keeps_its_files(tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch
                                                                ) -> None:
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    records = tmp_path / "records"
    (tmp_path / "in").mkdir()
    records.mkdir()
    (tmp_path / "in" / "page.rst").write_text("Page\n====\n\nText.\n")
    docs.build(tmp_path / "one", Progress(io.StringIO()), tmp_path / "in", records)
    assert 'href="page.html"' in (tmp_path / "one" / "index.html").read_text()
    assert not (tmp_path / "in" / "index.rst").exists()
    mine = "Mine\n====\n\n.. toctree::\n\n   page\n"
    (tmp_path / "in" / "index.rst").write_text(mine)
    docs.build(tmp_path / "two", Progress(io.StringIO()), tmp_path / "in", records)
    assert (tmp_path / "in" / "index.rst").read_text() == mine
    assert "Mine" in (tmp_path / "two" / "index.html").read_text()


# ---- the README and the pages of the project ------------------------------------------------


def missing_defects(page: str) -> list[str]:
    """The defects that a page does not name with the versions that have them."""
    return [one.name for one in map(defect.load, defect.names())
            if f"\n{one.name}: {one.versions()}\n" not in page]


def test_every_defect_is_told_with_its_versions() -> None:
    page = (REPO / "Documentation" / "defects.rst").read_text(encoding="utf-8")
    assert missing_defects(page) == []
    # Each has its paragraph, and what only the audit finds says so.
    for one in map(defect.load, defect.names()):
        told = page.partition(f"\n{one.name}: ")[2].split("\n\n")[0]
        assert len(told.splitlines()) > 1, one.name
        assert ("Audit only." in told) is (not one.show.selftests), one.name


def test_a_defect_that_is_not_told_would_be_seen() -> None:
    page = (REPO / "Documentation" / "defects.rst").read_text(encoding="utf-8")
    assert missing_defects(page.replace("pmd-share-flush: since 3.6", "pmd-share-flush: since 3.7")
                           ) == ["pmd-share-flush"]


def test_the_readme_is_short_and_names_what_is_there() -> None:
    text = (REPO / "README").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 90
    files = re.findall(r"\bDocumentation/[\w./-]*\w", text)
    assert len(files) >= 6
    assert [name for name in files if not (REPO / name).exists()] == []
    verbs = re.search(r"^\.PHONY: (.*)$", (REPO / "Makefile").read_text(), re.MULTILINE)
    assert verbs and set(re.findall(r"\bmake ([a-z]+) ?(?:[A-Z`\n]|$)", text, re.MULTILINE)
                         ) <= set(verbs[1].split())


def test_who_writes_fixes_is_told_of_what_is_for_no_list() -> None:
    """They may be the first thing that is mailed, and applying.rst the last that is read."""
    told = {"README": (REPO / "README").read_text(encoding="utf-8"), "help": options.manual(["series"])}
    for name, text in told.items():
        words = " ".join(text.split())
        for part in ("report-", " private/", "list", "mails"):
            assert part in words, f"{name}: {part}"


# ---- how long the tests take ---------------------------------------------------------------


def times(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """Of each table of kernel-tests.rst what it says of each selftest, on one line."""
    first, second = ({found[1]: " ".join(found[2].split()) for found in re.finditer(
        r"(?m)^(\w+)  +(\S.*(?:\n {20,}.*)*)$", part.partition("\nselftest ")[2].partition("\n\n")[0])
        if "_" in found[1]} for part in text.split("\nThese run only with "))
    return first, second


def wrong_times(said: dict[str, str]) -> list[str]:
    """The selftests whose times are not those of the record that is named."""
    wrong = []
    for name, text in said.items():
        row = re.match(r"(\d+)(?: to (\d+))? ([a-z-]+) (\d[\d.]+\d)(?:, (arm64))?, (\d+) boots?\b", text)
        if not row:
            assert re.search(r"not in a record|^with hugetlb_pmd_migrate$", text), f"{name}: {text}"
            continue
        least, most, one, version, on, boots = row.groups()
        run = record.load(record.RECORDS / one / f"{version}{f'-{on}' * bool(on)}.json")
        fixed = run.variants["fixed"]
        assert fixed.boot_seconds
        if (int(least), int(most or least), int(boots)) != (
                int(fixed.boot_seconds[0]), math.ceil(fixed.boot_seconds[-1]), fixed.boots):
            wrong.append(f"{name}: {fixed.boot_seconds}, {fixed.boots} boots")
    return wrong


def test_how_long_the_tests_take_is_on_record() -> None:
    first, second = times((REPO / "Documentation" / "kernel-tests.rst").read_text(encoding="utf-8"))
    assert wrong_times(first | second) == []
    # One that runs only with that variable is in the second.
    asking = {name for name in selftest.names() if "churn_lacks(" in
              (REPO / selftest.FOLDER / f"{name}.c").read_text(encoding="utf-8")}
    assert set(second) == asking and set(first) == {*selftest.names()} - asking
    assert wrong_times({**second, "hugetlb_pmd_busy": "53 pmd-share-busy 7.3.4, 2 boots"}) != []


def test_what_no_image_tells_is_named_for_accept() -> None:
    """Whoever takes the command as it is must not be told of a row that nothing can decide."""
    pages = REPO / "Documentation"
    text = (pages / "binary-audit.rst").read_text(encoding="utf-8")
    listed = re.search(r'ACCEPT="([^"]+)"', text)
    assert listed
    accepted = set(listed[1].replace("\\\n", " ").split())
    known = [one for one in map(defect.load, defect.names()) if one.binary]
    assert accepted <= {one.name for one in known}
    # Debian's kernels have pages of 4 KiB.
    assert accepted >= {one.name for one in known
                        if not one.binary.protected and not one.binary.vulnerable
                        and "a page has 4 KiB" not in one.binary.unaffected}
    # How many rows there are, and how many of them no image can tell to be protected.
    blind = len([one for one in known if not one.binary.protected])
    said = (pages / "binary-evidence.rst").read_text(encoding="utf-8")
    assert f"Eleven of the {len(known)} rows have no rule for protected" in " ".join(said.split())
    assert blind == 11


WORDS = sorted(set(re.findall(r'return "([A-Z]{6,})"', Path(verdict.__file__).read_text("utf-8"))))


@pytest.mark.parametrize("word", WORDS)
def test_every_verdict_is_explained(word: str) -> None:
    assert {"MISSED", "CRASHED"} <= set(WORDS)
    for name in ("README", "Documentation/results.rst"):
        assert re.search(rf"(?m)^\t?{word}\b", (REPO / name).read_text(encoding="utf-8")), name


# ---- what the page says, against 7.3 -------------------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The part of 7.3 that the page is about, as it is packed."""
    whole, folder = debian_files("7.3"), tmp_path_factory.mktemp("7.3")
    for pattern in (*(f"{name}/**/*.[ch]" for name in FOLDERS), "fs/Kconfig",
                    "Documentation/**/*.rst"):
        for path in whole.glob(pattern):
            dest = folder / path.relative_to(whole)
            dest.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, dest)
    assert (folder / "mm/hugetlb.c").exists()
    return folder


def missing_functions(page: str, source: Path) -> list[str]:
    """The functions that a page names and that the source does not have."""
    have: set[str] = set()
    for path in source.rglob("*.[ch]"):
        have.update(DEFINITION.findall(path.read_text(encoding="utf-8", errors="replace")))
    return sorted(set(FUNCTION.findall(page)) - have)


def callers(path: Path) -> set[str]:
    """The functions of a C file that call what unshares."""
    found: set[str] = set()
    function = ""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if defined := DEFINITION.match(line):
            function = defined[1]
        elif UNSHARES.search(line) and not re.match(r"\s*(/?\*|//)", line):
            found.add(function)
    return found


def test_every_function_is_there(source: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert len(set(FUNCTION.findall(page))) > 50
    assert missing_functions(page, source) == []


def test_a_wrong_name_would_be_seen(source: Path) -> None:
    # One that was there once, one that only a comment names, one of nowhere.
    page = "vma_shareable() and huge_pmd_share() and gup_pte_range() and nonesuch()"
    assert "gup_pte_range()" in (source / "mm/rmap.c").read_text(encoding="utf-8")
    assert missing_functions(page, source) == ["gup_pte_range", "nonesuch", "vma_shareable"]


def test_every_caller_that_unshares_is_named(source: Path) -> None:
    named = set(FUNCTION.findall(PAGE.read_text(encoding="utf-8")))
    found = {name for folder in ("mm", "fs") for path in (source / folder).rglob("*.c")
             for name in callers(path)}
    assert {"try_to_migrate_one", "hugetlb_change_protection", "__split_vma"} <= found
    assert found - named == set()


def test_every_file_is_there(source: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    # "mm/hugetlb:" begins the subject of a commit.
    files = re.findall(r"(?<![\w/])(?:Documentation|arch|fs|include|mm)/[\w./-]*\w(?![\w:])", page)
    assert len(files) >= 7
    assert [name for name in files if not (source / name).is_file()] == []


# ---- what the page says once migration does not unshare -----------------------------------


@pytest.fixture(scope="module")
def page_of_flush(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page as queue/document.flush leaves it."""
    folder = tmp_path_factory.mktemp("page")
    page = folder / PAGE.relative_to(REPO)
    page.parent.mkdir(parents=True)
    shutil.copyfile(PAGE, page)
    apply(folder, REPO / "queue" / "document.flush")
    return page.read_text(encoding="utf-8")


def test_the_page_of_the_form_that_does_not_unshare(page_of_flush: str) -> None:
    assert page_of_flush != PAGE.read_text(encoding="utf-8")
    assert [line for line in page_of_flush.splitlines() if len(line) > 80] == []
    # A table is as wide as its rules.
    lead, _, table = page_of_flush.rpartition("\nClaim ")
    rule = lead.splitlines()[-1]
    assert all(len(line) <= len(rule) for line in table.splitlines())


def test_the_page_of_that_form_names_what_is_there(page_of_flush: str, source: Path, tmp_path: Path
                                                   ) -> None:
    tree, fixes = tmp_path / "7.3", variant.series("7.3")
    shutil.copytree(source, tree)
    found = []
    for some in fixes, variant.series("7.3", "series.flush")[len(fixes):]:
        for path in some:
            apply(tree, path)
        found.append({name for folder in ("mm", "fs") for path in (tree / folder).rglob("*.c")
                      for name in callers(path)})
    assert missing_functions(page_of_flush, tree) == []
    before, after = found
    assert before - after == {"try_to_migrate_one", "try_to_unmap_poisoned_hugetlb_one"}
    assert after <= before
    # Its table of those who unshare has them no more.
    table = page_of_flush.partition("These are the callers.")[2].partition("Neither part of")[0]
    told = set(re.findall(r"(?m)^ {0,2}(\w+)\(\) {4}", table))
    assert {"move_hugetlb_page_tables", "hugetlb_split"} <= told <= before
    assert not told & (before - after)


@needs_sphinx
def test_the_page_of_that_form_renders(page_of_flush: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / PAGE.name).write_text(page_of_flush, encoding="utf-8")
    (tmp_path / "records").mkdir()
    docs.build(tmp_path / "out", Progress(io.StringIO()), tmp_path / "in", tmp_path / "records")


def test_every_selftest_is_there() -> None:
    page = PAGE.read_text(encoding="utf-8")
    names = re.findall(r"(?m)^(hugetlb_pmd_\w+)$", page)
    assert sorted(names) == [name for name in selftest.names()
                             if name.startswith("hugetlb_pmd_")
                             and name not in (*LATER, *OF_FLUSH, *APART)]
