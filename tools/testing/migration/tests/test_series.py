# SPDX-License-Identifier: GPL-2.0
"""make series: mails that git takes, with a cover letter, and words for a tree they do not fit."""

import re
import subprocess
from pathlib import Path

import pytest
from conftest import PARTS, debian_files, make, refused, taken
from test_queue import released_tree
from trees import apply, fill, git, some

from lab import defect
from lab.base import branch, load
from lab.errors import LabError
from lab.kernel import testseries, unmapped, variant
from lab.kernel.source import Source
from lab.paths import REPO
from lab.tell import record
from lab.verbs import mailing, series

BASES = sorted(path.parent.name for path in variant.QUEUE.glob("*.*/series"))


def parts(mail: str) -> tuple[str, str, str]:
    """The log, what is counted between it and the diff, if anything, and the diff."""
    log, diff = re.split(r"(?m)^(?=diff --git )", mail, maxsplit=1)
    log, line, counted = log.partition("\n---\n")
    return log.rstrip() + "\n", line.lstrip() + counted, diff


def numbered(number: int, total: int) -> str:
    """As git numbers patches: 01/21."""
    return f"{number:0{len(str(total))}}/{total}"


def spaced(subject: str) -> str:
    """What finds a subject, also where it goes on in a second line."""
    return r"\s+".join(map(re.escape, subject.split()))


def body(text: str) -> str:
    """A mail without its headers."""
    return text.split("\n\n", 1)[1]


def too_wide(letter: str) -> list[str]:
    """The lines of a letter that a reply quotes in more than 80 columns: not of what is counted
    at its end."""
    said = re.split(r"(?m)^ \S+ +\| +\d+ [+-]", body(letter))[0]
    return [line for line in said.splitlines() if len(line) > 75]


@pytest.mark.parametrize("base", BASES)
def test_every_queue_can_be_written(base: str, tmp_path: Path) -> None:
    made = series.write(base, tmp_path / "new" / "series")
    queue = [(path.name, path.read_text(encoding="utf-8")) for path in variant.series(base)]
    # First what mends the kernel, then the tests.
    wanted = queue + [(name, series.recorded(text, name))
                      for name, text in testseries.patches(base)]
    total = len(wanted)
    assert len(made.patches) == total
    # What is for mainline does not say so.
    lead = "PATCH" if base == "7.3" else f"PATCH {branch(base)}.y"
    for number, (path, (name, text)) in enumerate(zip(made.patches, wanted), 1):
        assert path.name == f"{number:04}{name[4:]}"
        written = path.read_text(encoding="utf-8")
        tag = f"{lead} {numbered(number, total)}" if total > 1 else lead
        assert f"\nSubject: [{tag}] " in written
        # Nothing but the subject is another, and what git format-patch counts may come in.
        assert parts(body(written))[::2] == parts(body(text))[::2]
        counted = testseries.summary(parts(written)[2])
        assert parts(written)[1] == f"---\n{counted}\n"
    # A patch that is alone has no cover letter.
    assert (made.cover is None) == (base == "2.6.34")
    if made.cover is None:
        return
    cover = made.cover.read_text(encoding="utf-8")
    assert f"\nSubject: [{lead} {numbered(0, total)}] " in cover
    assert not re.search(r"[{}]|(?m:^#)", cover), "a placeholder is left"
    assert "\n\n\n" not in cover
    for number, subject in enumerate(series.subjects([text for _name, text in wanted]), 1):
        assert re.search(rf"\n  {number}\. {spaced(subject)}\n", cover)
    for name in re.findall(r"(?m)^--- a/(.+)$", "".join(text for _name, text in wanted)):
        assert len(re.findall(rf"(?m)^ {re.escape(name)} +\|", cover)) == 1
    assert too_wide(cover) == [] and max(map(len, cover.splitlines())) <= 80


@pytest.mark.parametrize("folder", ["mm", "tools/testing/selftests/mm"])
def test_it_is_the_same_from_anywhere(folder: str, tmp_path: Path,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """In a subfolder of a repository git leaves out what is not below that."""
    def files(name: str) -> list[tuple[str, str]]:
        series.write("7.3", tmp_path / name)
        return [(str(path.relative_to(tmp_path / name)),
                 re.sub("(?m)^Date: .*", "", path.read_text(encoding="utf-8")))
                for path in sorted((tmp_path / name).rglob("*")) if path.is_file()]

    monkeypatch.chdir(REPO)
    wanted = files("one")
    assert len(wanted) > 2
    monkeypatch.chdir(REPO / folder)
    assert files("two") == wanted


# Those with queue/cover-letter, which is about this patch.
FLUSH = "mm-hugetlb-flush-all-who-share-a-PMD-table-when-a-pa"
LETTERS = ["4.4", "4.9", "4.9.337", "4.14", "4.14.325", "4.18", "4.19", "5.4"]
# Those for which it only tells of the bugs.
SHORT = ["5.10", "5.15", "6.1", "6.6", "6.12", "6.18"]


def letter(base: str, folder: Path) -> str:
    """The cover letter of a queue, on one line."""
    [made] = mailing.write(base, folder / "letter", "fixes")
    cover = made.cover
    assert cover
    return " ".join(cover.read_text(encoding="utf-8").split())


def test_what_a_letter_asks_for_is_in_some_queue() -> None:
    text = series.COVER.read_text(encoding="utf-8")
    asked = set(re.findall(r"(?m)^#if (?:before )?(.+)$|\{before (.+?)\}", text))
    names = {name for pair in asked for name in pair if name}
    names -= {"commits", "commits without their text"}
    there = {path.name for base in LETTERS for path in (variant.QUEUE / base).glob("series.*")}
    there |= {path.name[5:-len(".patch")] for base in LETTERS + SHORT
              for path in variant.series(base)}
    assert len(names) > 2 and names <= there


def test_a_letter_is_for_those_that_have_its_patch() -> None:
    assert set(LETTERS) == {base for base in BASES for path in variant.series(base)
                            if path.name[5:-len(".patch")] == FLUSH}


@pytest.mark.parametrize("base", LETTERS)
def test_a_letter_says_what_is_so(base: str, tmp_path: Path) -> None:
    text = letter(base, tmp_path)
    unshare = (variant.QUEUE / base / "series.unshare").exists()
    # These were released with upstream's fix, and have nothing to compare it with.
    assert unshare == (base not in ("4.9.337", "4.14.325", "4.19", "5.4"))
    assert (f"In {base} try_to_unmap() stops after the first mapping" in text) == unshare
    assert (f"{base} unshares it in the reverse map walk" in text) == (not unshare)
    names = [path.name[5:-len(".patch")] for path in variant.series(base)]
    before = names.index("mm-add-range_in_vma") if unshare else 0
    found = re.search(r"The first (\w+) patches are for other bugs", text)
    assert {"four": 4}[found[1]] == before if found else before == 0
    for name, said in {
            "hugetlbfs-keep-a-poisoned-page-in-the-page-cache": "read(2) and new mappings",
            "hugetlbfs-do-not-read-from-a-poisoned-page": "read(2) no longer reads from a",
            "mm-numa-count-the-TLB-flushes-that-are-pending": "two threads scan at the same time",
            "mm-thp-fix-mmu_notifier-in-migrate_misplaced_transhu": "writes of a device that",
            "mm-hugetlb-tell-the-notifiers-of-all-of-a-huge-page": "and not booted",
    }.items():
        assert (said in text) == (name in names), name
    # By a patch of another name in 5.4, where mbind() has been cured of it.
    assert "MPOL_MF_MOVE does not move pages of shared tables" in text
    # What is tried has a record, of this release or of one before.
    there = [path for path in record.RECORDS.glob("*/*.json") if path.name.startswith(f"{base}.")]
    assert ("Tried on x86_64 only" in text) == unshare
    assert ("has a record in the pmd-share lab: of most, nothing." in " ".join(text.split())) == \
        (not unshare and "and not booted" not in text)
    assert there if unshare else len(there) < 4, "of some, and no longer of a few: say so"


@pytest.mark.parametrize("base", SHORT)
def test_a_short_letter_says_what_is_so(base: str, tmp_path: Path) -> None:
    text = letter(base, tmp_path)
    assert f"hugetlb: fixes for {base} " in text and "stay shared" not in text
    names = [path.name[5:-len(".patch")] for path in variant.series(base)]
    for name, said in {
            "mm-hugetlb-unshare-page-tables-with-the-lock-of-the-m": "table of a VMA that is split",
            "hugetlb-let-a-write-fault-on-a-shared-mapping-write": "A write fault after mprotect()",
            "fs-Kconfig-let-hugetlb-mappings-share-PMD-tables-aga": "no tables are shared",
            "hugetlb-a-VMA-that-is-split-needs-its-lock": "left without its lock",
            "hugetlb-do-not-lock-the-page-of-the-file-to-copy-anot": "DEFECT=hugetlb-cow-fault",
            "hugetlb-look-at-the-size-of-a-file-before-its-pages": "Truncation leaves pages",
            "hugetlb-mremap-must-not-wait-for-its-own-lock": "mremap() may wait for itself",
            "mm-memory-failure-lock-a-huge-page-after-its-file": "DEFECT=hugetlb-fault-poison",
    }.items():
        assert (said in text) == (name in names), name


@pytest.mark.parametrize("before, said", [
    (0, ""), (1, "patch is"), (2, "two patches are"), (5, "five patches are"),
    (12, "twelve patches are"), (13, "13 patches are"),
])
def test_a_letter_counts_what_comes_first(before: int, said: str, tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """However many patches for other bugs a queue begins with."""
    about = [path for path in variant.series("4.14")
             if path.name[5:-len(".patch")] in ("mm-add-range_in_vma", FLUSH)]
    folder = tmp_path / "queue" / "4.14"
    folder.mkdir(parents=True)
    mails = [re.sub("(?<=PATCH] ).*", f"mm: other {number}", about[0].read_text(), count=1)
             for number in range(before)] + [path.read_text() for path in about]
    names = [f"{number:04}-other.patch" for number in range(1, before + 1)]
    names += [f"{before + 1:04}{about[0].name[4:]}", f"{before + 2:04}{about[1].name[4:]}"]
    for name, mail in zip(names, mails):
        (folder / name).write_text(mail)
    (folder / "series").write_text("\n".join(names))
    monkeypatch.setattr(variant, "QUEUE", folder.parent)
    text = letter("4.14", tmp_path / "out")
    found = re.findall(r"The first (.*?) for other bugs", text)
    assert found == ([said] if said else [])
    assert f" {before + 2}. mm: hugetlb: flush all who share" in text


def test_a_letter_that_asks_for_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                  ) -> None:
    monkeypatch.setattr(series, "COVER", tmp_path / "letter")
    (tmp_path / "letter").write_text("title\n\nThe first {before none} for other bugs.\n")
    with pytest.raises(LabError, match="letter asks for 'before none', which the series for 4.14"):
        series.write("4.14", tmp_path / "out")


def test_a_letter_of_fixes_says_nothing_of_a_stale_record(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its fixed kernel had other patches than are sent.  The vulnerable one is as it was."""
    text = "title\n\nIn {lost vulnerable pmd-share-migrate 4.18.0}, with this in %s.\n"
    asked = "{lost fixed pmd-share-migrate 4.18.0}"
    monkeypatch.setattr(series, "COVER", tmp_path / "letter")
    (tmp_path / "letter").write_text(text % asked)
    monkeypatch.setattr(record, "stale", lambda run: "the patches have changed since")
    with pytest.raises(LabError, match="letter asks for the fixed kernel of pmd-share-migrate on "
                                       "4.18.0, and .*: the patches have changed since"):
        series.write("4.14", tmp_path / "one")
    run = record.load(record.RECORDS / "pmd-share-migrate" / "4.18.0.json").variants
    # What a test showed, it showed.
    said = series.recorded(asked, "a test")
    assert said == f"{run['fixed'].lost_migrations} of {run['fixed'].migrations}"
    (tmp_path / "letter").write_text(text % "none")
    told = series.write("4.14", tmp_path / "two").cover
    assert told and f"In {run['vulnerable'].lost_migrations} of" in told.read_text()
    (tmp_path / "letter").write_text(text % asked)
    monkeypatch.setattr(record, "stale", lambda run: "")
    told = series.write("4.14", tmp_path / "three").cover
    assert told and f"with this in {said}." in told.read_text()


@pytest.mark.parametrize("base", LETTERS + SHORT)
def test_a_letter_names_what_can_be_proved(base: str, tmp_path: Path) -> None:
    """Each `make prove` in it compares the queue with something else."""
    tree = taken(Source(load(base), base, {}, "k", released_tree(base)), tmp_path / "work", PARTS)
    commands = re.findall(rf"make prove KERNEL=/path/to/{base}(?: DEFECT=(\S+))?",
                          letter(base, tmp_path))
    assert len(commands) > 2 and len(commands) == len(set(commands))
    for name in commands:
        fixed = variant.plan(tree, defect.load(name or "pmd-share-migrate"))[1]
        assert fixed.how.startswith(f"queue/{base} ("), name


@pytest.mark.parametrize("base, form", [(base, "") for base in BASES] + [
    (base, path.suffix[1:]) for base in BASES
    for path in sorted((variant.QUEUE / base).glob("series.*"))])
def test_git_reads_back_what_was_written(base: str, form: str, tmp_path: Path) -> None:
    """Number, subject and changelog of each mail, and of no line more than a mail may have."""
    made = series.write(base, tmp_path / "out", form)
    kept = [path.read_text(encoding="utf-8")
            for path in variant.series(base, f"series.{form}" if form else "series")]
    kept += [series.recorded(mail, name)
             for name, mail in ([] if form else testseries.patches(base))]
    total = len(made.patches)
    lead = "PATCH" if base == "7.3" else f"PATCH {branch(base)}.y"
    lead = f"RFC {lead}" if form == "flush" else lead
    for number, (path, text) in enumerate(zip(made.patches, kept, strict=True), 1):
        data = path.read_bytes()
        # RFC 5322, and 7 bits, as there is no header that says otherwise.
        assert data.isascii() and max(map(len, data.split(b"\n"))) <= 998
        head = data.decode().split("\n\n", 1)[0]
        assert max(map(len, head.splitlines())) <= 78
        found = mailinfo(path, tmp_path, "-k")
        tag = f"[{lead} {numbered(number, total)}]" if total > 1 else f"[{lead}]"
        [subject] = series.subjects([text])
        assert found["Subject"] == f"{tag} {subject}"
        found = mailinfo(path, tmp_path)
        assert found["Subject"] == subject
        assert f"{found['Author']} <{found['Email']}>" == re.findall(r"(?m)^From: (.+)$", text)[0]
        log, _dashes, stat = re.split(r"(?m)^diff --git ", body(text))[0].partition("\n---\n")
        # What comes after the dashes is lost, and must be no part of the changelog.
        assert re.fullmatch(r"( .+\n)*\n?", stat)
        assert (tmp_path / "log").read_text(encoding="utf-8").strip() == log.strip()
        assert "diff --git " in (tmp_path / "diff").read_text(encoding="utf-8")
    if made.cover:
        data = made.cover.read_bytes()
        assert data.isascii() and max(map(len, data.split(b"\n"))) <= 80
        assert mailinfo(made.cover, tmp_path, "-k")["Subject"].startswith(
            f"[{lead} {numbered(0, total)}] ")


def test_a_subject_with_hyphens_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                            ) -> None:
    """Where it is folded there was a blank."""
    long = "hugetlb: say in the letter what is-to-be-read-back-as-it-was-and-has-no-blank"
    folder = tmp_path / "queue" / "4.14"
    folder.mkdir(parents=True)
    mail = variant.series("4.14")[0].read_text(encoding="utf-8")
    (folder / "0001-x.patch").write_text(
        re.sub(r"(?ms)^Subject: .*?(?=^$)", f"Subject: [PATCH] {long}\n", mail, count=1))
    (folder / "series").write_text("0001-x.patch\n")
    monkeypatch.setattr(variant, "QUEUE", folder.parent)
    monkeypatch.setattr(series, "COVER", tmp_path / "letter")
    (tmp_path / "letter").write_text(f"{long}\n\n{{shortlog}}\n")
    made = series.write("4.14", tmp_path / "out")
    assert made.cover
    for path, tag in ((made.patches[0], "[PATCH 4.14.y] "),
                      (made.cover, "[PATCH 4.14.y 0/1] ")):
        assert mailinfo(path, tmp_path, "-k")["Subject"] == tag + long


def mailinfo(mail: Path, folder: Path, *words: str) -> dict[str, str]:
    """What git am makes of a mail: its headers, and the files log and diff in `folder`."""
    done = subprocess.run(["git", "mailinfo", *words, folder / "log", folder / "diff"], text=True,
                          input=mail.read_text(encoding="utf-8"), capture_output=True, check=True)
    return dict(line.split(": ", 1) for line in done.stdout.splitlines() if line)


@pytest.mark.parametrize("base", BASES)
def test_git_am_takes_it(base: str, tmp_path: Path) -> None:
    """On the files of the released tree that it touches, with a sign-off."""
    tree = released_tree(base)
    made = series.write(base, tmp_path / "series")
    repo = tmp_path / "repo"
    names = {name for path in made.patches
             for name in re.findall(r"(?m)^--- a/(.+)$", path.read_text(encoding="utf-8"))}
    some(tree, repo, names)
    git(tmp_path, "init", "-q", repo)
    git(repo, "add", "-A")
    git(repo, "commit", "-qm", "released")
    git(repo, "am", "-s", *made.patches)
    log = git(repo, "log", "--format=%s%n%b")
    assert log.count("Signed-off-by: A <a@invalid>") == len(made.patches)
    for text in (path.read_text(encoding="utf-8") for path in made.patches):
        assert series.subjects([re.sub(r"\[PATCH.*?\]", "[PATCH]", text, count=1)])[0] in log


@pytest.mark.parametrize("base", ["6.12", "6.18", "7.3"])
def test_the_form_that_does_not_unshare(base: str, tmp_path: Path) -> None:
    """The fixes and what is on top of them, without the tests, under a letter of its own."""
    done = make("series", f"BASE={base}", "FORM=flush", f"O={tmp_path}/s")
    assert done.returncode == 0, done.stderr
    assert "FORM=flush is " in done.stdout and " not to be used" in done.stdout
    wanted = series.subjects([path.read_text(encoding="utf-8")
                              for path in variant.series(base, "series.flush")])
    mails = sorted((tmp_path / "s").glob("*.patch"))
    assert len(mails) == len(wanted) + 1 and len(wanted) > len(variant.series(base))
    cover = mails[0].read_text(encoding="utf-8")
    assert not re.search(r"[{}]", cover) and "without unsharing" in \
        " ".join(cover.split("\n\n")[0].split())
    listed = re.findall(r"(?m)^  \d+\. (.*(?:\n {5}\S.*)*)$", cover)
    assert [" ".join(one.split()) for one in listed] == wanted
    said = body(cover)
    assert len(said.split("\n  1. ")[0].splitlines()) <= 60 and too_wide(cover) == []
    # It is sent to be talked about, and says which of its patches are not.
    lead = "RFC PATCH" if base == "7.3" else f"RFC PATCH {base}.y"
    for number, path in enumerate(mails):
        assert f"\nSubject: [{lead} {number:02d}/{len(wanted)}] " in path.read_text(encoding="utf-8")
    fixes = {12: "twelve"}.get(number := len(variant.series(base)), str(number))
    assert f"The first {fixes} patches are fixes, which are sent on their own." in \
        " ".join(said.split())
    document = tmp_path / "s" / "document.txt"
    assert document.read_text(encoding="utf-8") == \
        (REPO / "queue" / "document.flush").read_text(encoding="utf-8")
    assert f": {document}, a patch, too.\n" in done.stdout
    # What each of them says is to be seen is what this form is about.
    commands = [dict(word.split("=") for word in command.split())
                for command in re.findall(r"make prove (.*)", cover)]
    assert commands
    for words in commands:
        assert words["BASE"] == base and words["DEFECT"] in defect.names()
        one = defect.load(words["DEFECT"])
        assert words.get("FORM") == "flush" or variant.mending(
            variant.series(base, "series.flush"), one) and not variant.mending(
            variant.series(base), one)


@pytest.mark.parametrize("base", ["4.4", "4.9", "4.14", "4.18"])
def test_the_form_that_unshares(base: str, tmp_path: Path) -> None:
    """Its letter says first that it is not to be used, and then what is open; no report comes with
    it whose patch it has not."""
    done = make("series", f"BASE={base}", "FORM=unshare", f"O={tmp_path}/s")
    assert done.returncode == 0, done.stderr
    assert "FORM=unshare is " in done.stdout and " not to be used" in done.stdout
    form = variant.series(base, "series.unshare")
    wanted = series.subjects([path.read_text(encoding="utf-8") for path in form])
    mails = sorted((tmp_path / "s").glob("*.patch"))
    assert len(mails) == len(wanted) + 1
    cover = mails[0].read_text(encoding="utf-8")
    assert body(cover).startswith("[ Do not use this") and not re.search(r"[{}]", cover)
    listed = re.findall(r"(?m)^  \d+\. (.*(?:\n {5}\S.*)*)$", cover)
    assert [" ".join(one.split()) for one in listed] == wanted
    assert len(body(cover).split("\n  1. ")[0].splitlines()) <= 60 and too_wide(cover) == []
    # What it says is open is mended by patches of the other form that this one has not.
    named = set(re.findall(r"\b(pmd-share-[a-z-]+)", body(cover).split("\n  1. ")[0]))
    assert {"pmd-share-walkers", "pmd-share-fault"} <= named
    for one in map(defect.load, named):
        assert set(variant.mending(variant.series(base), one)) - set(form), one.name
    told = {name for name, text in series.reports(base, "unshare").items()
            if series.about(text)[base] in wanted}
    assert {path.name for path in (tmp_path / "s").glob("report-*")} == \
        {f"report-{name}.txt" for name in told} and told == set(series.reports(base, "unshare"))
    more = set(series.reports(base)) - told
    assert base == "4.4" or "hugetlb-punch-migrate" in more


def test_it_is_said_what_another_form_is_for() -> None:
    """Beside the commands that apply it."""
    forms = {path.suffix[1:] for path in variant.QUEUE.glob("*/series.*")}
    assert forms | {unmapped.FORM} == set(series.FORMS)


def test_a_form_that_is_not_there(tmp_path: Path) -> None:
    done = make("series", "BASE=6.1", "FORM=flush", f"O={tmp_path}/s")
    assert done.returncode != 0
    assert "error: FORM=flush: there is no queue/6.1/series.flush\n" in done.stderr
    assert not (tmp_path / "s").exists()


def test_the_front_door(tmp_path: Path) -> None:
    done = make("series", "BASE=4.14", f"O={tmp_path}/s")
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/s/0000-cover-letter.patch\n" in done.stdout
    # All but the cover letter, of ten patches.
    assert f"git am -s {tmp_path}/s/{{000[1-9],00[1-9]?}}-*.patch" in done.stdout
    again = make("series", "BASE=4.14", f"O={tmp_path}/s")
    assert again.returncode != 0
    assert "name an empty folder with O=" in again.stderr


def test_the_front_door_of_a_tree(tmp_path: Path) -> None:
    """No more of it is copied than the patches change: that would take a minute."""
    copy = tmp_path / "linux"
    some(released_tree("4.14"), copy, ["Makefile", *series.files("4.14")])
    (copy / "mm/other.c").write_text("int other;\n")
    done = make("series", f"KERNEL={copy}", f"O={tmp_path}/s", LAB_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert "every patch applies" in done.stdout and " am -s" in done.stdout
    assert not [*(tmp_path / "cache").rglob("other.c"), *(tmp_path / "cache").rglob("user-*")]


@pytest.mark.parametrize("base", ["2.6.34", "4.14", "4.19", "5.15", "6.12", "6.18", "7.3"])
def test_the_fixes_alone(base: str, tmp_path: Path) -> None:
    """As the README has it: of no file that only the tests change, and no test is applied."""
    copy = tmp_path / "linux"
    tree = debian_files(base) if load(base).package else released_tree(base)
    some(tree, copy, ["Makefile", *series.files(base, alone=True)])
    done = make("series", f"KERNEL={copy}", f"BASE={base}", "SERIES=fixes", f"O={tmp_path}/s",
                LAB_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert "every patch applies" in done.stdout
    folder = tmp_path / "s" / ("private" if mailing.held(base) else "")
    mails = sorted(folder.glob("0*.patch"))
    assert len(mails) == len(variant.series(base)) + (base != "2.6.34")
    # They are for git am, which wants a tree of git's.
    assert f"git am -s {folder}/" in done.stdout and f"cd {copy} && git init" in done.stdout
    assert ("first read these mails" in done.stdout) == bool(series.reports(base))


@pytest.mark.parametrize("words, reason", [
    (["BASE=4.14"], "name an empty folder for the series with O="),
    (["O=/nonexistent/x"], "name a base with BASE="),
    (["BASE=2.6.35", "O=/nonexistent/x"], "2.6.35"),
    (["KERNEL=/nonexistent", "O=/nonexistent/x"], "/nonexistent"),
    ([], "with O=, and a base with BASE=, or a tree"),
    (["SERIES=none", "BASE=6.12", "O=/nonexistent/x"], "SERIES=none: for 6.12 there are fixes,"),
])
def test_errors_are_one_line(words: list[str], reason: str) -> None:
    assert reason in refused("series", *words)


@pytest.mark.parametrize("words, reason", [
    (["FORM=flush"], "FORM=flush: there is no queue/5.15/series.flush"),
    (["SERIES=selftests"], "SERIES=selftests: for 5.15 there are fixes, all; without BASE="),
    (["SERIES=stable"], "SERIES=stable is for all branches"),
    (["SERIES=fixes", "UPSTREAM=/nonexistent"], "UPSTREAM=/nonexistent: there is no such folder"),
    (["SERIES=fixes", "O=."], "holds 0001-x.patch already: name an empty folder with O="),
])
def test_what_is_wrong_is_said_before_a_tree_is_copied(words: list[str], reason: str, tmp_path: Path
                                                       ) -> None:
    """Nothing of a kernel but its version is there."""
    fill(tmp_path / "linux", {"Makefile": "VERSION = 5\nPATCHLEVEL = 15\nSUBLEVEL = 215\n",
                              "mm/x.c": ""})
    fill(tmp_path / "full", {"0001-x.patch": ""})
    words = [f"O={tmp_path}/full" if word == "O=." else word for word in words]
    if not any(word.startswith("O=") for word in words):
        words.append(f"O={tmp_path}/s")
    assert reason in refused("series", f"KERNEL={tmp_path}/linux", *words,
                             LAB_CACHE=str(tmp_path / "cache"))
    assert not (tmp_path / "s").exists() and not list((tmp_path / "cache").rglob("part-*"))


def test_without_a_part_nothing_is_to_be_mailed(tmp_path: Path) -> None:
    """It is to be tried: all of it is in one folder, and the reports say what is private."""
    done = make("series", "BASE=5.15", f"O={tmp_path}/s")
    assert done.returncode == 0, done.stderr
    assert "send-email" not in done.stdout and "  to mail it: SERIES=fixes\n" in done.stdout
    assert len(list((tmp_path / "s").glob("0*.patch"))) == len(variant.series("5.15")) + 1
    assert f"    {tmp_path}/s/private/report-hugetlb-punch-fault.txt (no list)\n" in done.stdout
    assert not list((tmp_path / "s" / "private").glob("*.patch"))


def test_a_tree_that_has_a_patch_is_told_so(tmp_path: Path) -> None:
    """A vendor's tree: that patch is left out, and the others apply."""
    tree = released_tree("4.14")
    copy = tmp_path / "linux"
    names = {name for path in variant.series("4.14")
             for name in re.findall(r"(?m)^--- a/(.+)$", path.read_text(encoding="utf-8"))}
    some(tree, copy, names)
    first = variant.series("4.14")[0]
    apply(copy, first)
    vendor = taken(Source(load("4.14"), "4.14.113", {}, "k", copy), tmp_path / "work")
    assert series.check(vendor) == ([path.name for path in variant.series("4.14")[1:]],
                                    [first.name])
