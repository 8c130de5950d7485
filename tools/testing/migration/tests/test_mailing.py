# SPDX-License-Identifier: GPL-2.0
"""make series SERIES=: one series a subject, each as its reviewers want it."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import debian_files, make, refused
from test_queue import released_tree
from test_series import mailinfo, numbered, too_wide
from trees import apply, git, nobody, repository, some

from lab import defect
from lab.base import branch, load
from lab.errors import LabError
from lab.kernel import kconfig, testseries, variant
from lab.tell import record
from lab.verbs import mailing, series, upstream

BASES = testseries.names()
PARTS = ["fixes", "selftests", "hugetlb", "device", "tracepoints", "kunit", "document"]
CASES = [(base, part) for base in BASES for part in PARTS]
# They have nothing that was counted: no record is about them.
UNMEASURED = {"tracepoints", "kunit", "document"}
# Of two queues of a branch, the one for its last releases is what is mailed.
STABLE = list({branch(base): base for base in series.queues() if base != "7.3"}.values())


def test_the_parts_are_all_there_is() -> None:
    assert mailing.parts("7.3") == PARTS and mailing.parts("4.14") == ["fixes"]
    for base in BASES:
        assert [name for part in PARTS[1:] for name, _text in mailing.patches(base, part)] == \
            [name for name, _text in testseries.patches(base)]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Per base: a repository of the files as released that any part changes, and the scripts."""
    made: dict[str, Path] = {}

    def get(base: str) -> Path:
        if base not in made:
            mails = [text for part in PARTS for _name, text in mailing.patches(base, part)]
            touched = {path for mail in mails for path in re.findall(r"(?m)^--- a/(\S+)$", mail)}
            repo = repository(debian_files(base), tmp_path_factory.mktemp(f"linux-{base}"),
                              [*touched, "MAINTAINERS", "scripts/get_maintainer.pl"])
            git(repo, "tag", "released")
            made[base] = repo
        git(made[base], "checkout", "-q", "-f", "-B", "work", "released")
        git(made[base], "clean", "-q", "-f", "-d", "-x")
        return made[base]

    return get


@pytest.mark.parametrize("base, part", CASES)
def test_each_applies_alone(base: str, part: str, pristine: Callable[[str], Path], tmp_path: Path
                            ) -> None:
    """On the released files, or on those with what its letter says."""
    repo = pristine(base)
    needs = mailing.first(base, part)
    assert needs == (["selftests"] if part in ("hugetlb", "device") else [])
    for need in needs:
        git(repo, "am", "-q", *mailing.write(base, tmp_path / need, need)[0].patches)
    [made] = mailing.write(base, tmp_path / part, part)
    git(repo, "am", "-q", "-s", *made.patches)
    assert git(repo, "log", "--format=%b", f"-{len(made.patches)}").count("Signed-off-by: A") == \
        len(made.patches)


def headed(path: Path) -> list[str]:
    """Whom a mail names in its headers, as options of git send-email, which reads them so."""
    head = re.sub(r"\n ", " ", path.read_text(encoding="utf-8").partition("\n\n")[0])
    return [f"--{word.lower()}={who}" for word, names in re.findall(r"(?m)^(To|Cc): (.*)$", head)
            for who in names.split(", ")]


@pytest.mark.parametrize("base, part", CASES)
def test_it_says_what_it_is_for(base: str, part: str, pristine: Callable[[str], Path],
                                tmp_path: Path) -> None:
    """And to whom it goes: of an older kernel than 7.3, its MAINTAINERS is not asked."""
    on, asks = mailing.ground(pristine(base)), base == "7.3"
    assert re.fullmatch("[0-9a-f]{40}", on.commit) and on.maintainers().is_file()
    assert on.asked(base) == asks
    [made] = mailing.write(base, tmp_path / part, part, on)
    file = tmp_path / part / mailing.RECIPIENTS
    lines = file.read_text().splitlines()
    if not asks:
        kept = set(mailing.STABLE_RECIPIENTS.read_text().split())
        assert set(lines) - kept <= {"--cc=linux-kselftest@vger.kernel.org"}
    assert made.cover
    text = made.cover.read_text(encoding="utf-8")
    # Fixes for mainline go to who keeps what they change, and the letter to all of them.
    if base == "7.3" and part == "fixes":
        public = made.public
        assert public and public.cover
        own = [headed(path) for path in public.patches]
        assert len({tuple(one) for one in own}) > 2 and not set(lines) & set().union(*own)
        assert {line.partition("=")[2] for line in headed(public.cover)} == \
            {line.partition("=")[2] for line in set().union(*own)}
        # The first is for mm/migrate.c alone.
        assert "--to=muchun.song@linux.dev" not in own[0]
        assert "--to=muchun.song@linux.dev" in own[1]
        lines += headed(public.cover)
    # What is private names nobody: a list, least of all.
    assert not any(map(headed, [made.cover, *made.patches]))
    assert len(set(lines)) == len(lines)
    assert all(re.fullmatch(r"--(to|cc)=\S+@\S+", line) for line in lines), lines
    assert not lines or "--cc=linux-mm@kvack.org" in lines
    if asks and part not in ("device",):
        # Who knows the code; the second came after 6.12.
        known = ["muchun.song@linux.dev"] + ["osalvador@suse.de"] * (base == "7.3")
        assert {f"--to={name}" for name in known} <= set(lines)
    if part in ("selftests", "hugetlb", "device"):
        assert "--cc=linux-kselftest@vger.kernel.org" in lines
    assert ("--to=stable@vger.kernel.org" in lines) == (part == "fixes" and base != "7.3")
    assert text.count(f"\nbase-commit: {on.commit}\n") == 1
    assert not re.search(r"(?m)[{}]|^#|^base: ", text)
    needs = [mail for need in mailing.first(base, part)
             for _name, mail in mailing.patches(base, need)]
    assert text.count("\nprerequisite-patch-id: ") == len(needs)
    total = len(made.patches)
    lead = "PATCH" if base == "7.3" else f"PATCH {branch(base)}.y"
    assert f"\nSubject: [{lead} {numbered(0, total)}] " in text
    for number, path in enumerate(made.patches, 1):
        tag = f"[{lead} {numbered(number, total)}] "
        assert mailinfo(path, tmp_path, "-k")["Subject"].startswith(tag)
    # What is read: without headers, and what is counted.
    body = text.split("\n\n", 1)[1].split("\n MAINTAINERS ")[0]
    body = re.split(r"(?m)^ \S+ +\| +\d+ \+", body)[0]
    # And as it is sent.
    sent = re.sub(r"(?ms)\A\[ Take this out before you send\..*?\]\n", "", body)
    # What is to go before that: it names each record that is to be made anew.
    sent = re.sub(r"(?ms)^\[ Do not send it like this\..*?\]\n", "", sent)
    assert len(sent.strip().splitlines()) < 60
    assert max(map(len, body.splitlines())) <= 75
    # What was seen, and how to see it again.
    measured = part not in UNMEASURED and (part != "fixes" or base == "7.3")
    assert not measured or re.search(r"\b\d+ of \d+\b", sent)
    assert re.search(r"(?m)^  (make |tools/testing/|tests/)", body)


def test_a_tree_with_changes_is_refused(pristine: Callable[[str], Path]) -> None:
    repo = pristine("7.3")
    assert mailing.ground(repo).commit
    (repo / "MAINTAINERS").write_text("x")
    with pytest.raises(LabError, match=r"has changes that are in no commit \(MAINTAINERS\)"):
        mailing.ground(repo)
    assert mailing.ground(repo, ["mm"]).commit


def test_the_commands_that_apply_it_work(tmp_path: Path) -> None:
    """In a tree as it is unpacked, in one that git keeps, and in a folder of some repository."""
    out, above = tmp_path / "s", tmp_path / "x"
    out.mkdir()
    patch = out / "0001-file.patch"
    patch.write_text("From 0 Mon Sep 17 00:00:00 2001\nFrom: A <a@b>\nSubject: [PATCH] file\n\n"
                     "x\n---\n\ndiff --git a/file b/file\n--- a/file\n+++ b/file\n"
                     "@@ -1 +1 @@\n-1\n+2\n")
    for tree, kept in ((tmp_path / "linux", False), (tmp_path / "linux", True),
                       (above / "linux", False)):
        tree.mkdir(parents=True, exist_ok=True)
        (tree / "file").write_text("1\n")
        if tree.parent == above:
            git(above, "init", "-q")
        said = mailing.to_apply([patch], tree)
        assert ("git init" in said) is not kept
        for line in said.splitlines():
            run = subprocess.run(["bash", "-c", re.split(r":  +", line)[1]], cwd="/", text=True,
                                 capture_output=True, check=False, env=nobody())
            assert run.returncode == 0, run.stderr
        assert (tree / "file").read_text() == "2\n"
        git(tree, "reset", "-q", "--hard", "HEAD~1")
    assert mailing.to_apply([patch], None) == \
        f"To apply it, with your sign-off:  git am -s {out}/000[1-9]-*.patch\n"
    assert "{000[1-9],00[1-9]?}" in mailing.to_apply([patch] * 10, None)


def test_a_tree_that_git_does_not_keep_has_no_commit(tmp_path: Path) -> None:
    assert mailing.ground(tmp_path) == mailing.Ground(tmp_path, "")
    # Nor has a folder of some repository.
    (tmp_path / "linux").mkdir()
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "x")
    assert mailing.ground(tmp_path / "linux").commit == ""
    [made] = mailing.write("7.3", tmp_path / "s", "kunit", mailing.ground(tmp_path / "linux"))
    assert made.cover and "\nbase: Linux 7.3\n" in made.cover.read_text(encoding="utf-8")
    assert not (tmp_path / "s" / mailing.RECIPIENTS).exists()


def test_a_second_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = tmp_path / "tests"
    shutil.copytree(testseries.ROOM, room)
    monkeypatch.setattr(testseries, "ROOM", room)
    monkeypatch.setattr(testseries, "COVER", room / "cover-letter")
    (room / "changes.kunit").write_text("v3:\n- shorter\n\nv2:\n- one case more\n")
    [made] = mailing.write("7.3", tmp_path / "s", "kunit")
    assert made.cover
    text = made.cover.read_text(encoding="utf-8")
    assert "\nSubject: [PATCH v3 0/1] " in text
    assert "\nSubject: [PATCH v3 1/1] " in made.patches[0].read_text(encoding="utf-8")
    assert "\nChanges since v2:\n- shorter\n\nChanges since v1:\n- one case more\n" in text
    [other] = mailing.write("7.3", tmp_path / "other", "document")
    assert other.cover and "\nSubject: [PATCH 0/1] " in other.cover.read_text(encoding="utf-8")
    # Of one patch, below the line that git am takes for the end of the log.
    log, below = made.patches[0].read_text(encoding="utf-8").split("\n---\n", 1)
    assert "Changes" not in log
    assert below.startswith("Changes since v2:\n- shorter\n\nChanges since v1:\n"
                            "- one case more\n\n MAINTAINERS ")
    # And above what is counted.
    assert text.index("Changes since") < text.index("\n MAINTAINERS ") < text.index("\nbase")
    for number, wrong in enumerate(("", "- shorter\n", "v2:\n- a\n\nv3:\n- b\n", "v3:\n- a\n")):
        (room / "changes.kunit").write_text(wrong)
        with pytest.raises(LabError, match="changes.kunit: sections v3:, v2: are wanted"):
            mailing.write("7.3", tmp_path / f"s{number}", "kunit")


def test_what_changed_in_one_patch_of_many_is_said_there(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = tmp_path / "tests"
    shutil.copytree(testseries.ROOM, room)
    monkeypatch.setattr(testseries, "ROOM", room)
    monkeypatch.setattr(testseries, "COVER", room / "cover-letter")
    # The second of the device's.
    second = [line[:4] for line in (room / "series").read_text(encoding="utf-8").splitlines()
              if line.endswith(" device")][1]
    (room / "changes.device").write_text(f"v2:\n- all: typos\n- {second}: less time,\n  by half\n")
    [made] = mailing.write("7.3", tmp_path / "s", "device")
    assert made.cover
    assert "\nChanges since v1:\n- all: typos\n- less time,\n  by half\n\n MAINTAINERS" in \
        made.cover.read_text(encoding="utf-8")
    below = [path.read_text(encoding="utf-8").split("\n---\n", 1)[1] for path in made.patches]
    assert below[1].startswith("Changes since v1:\n- less time,\n  by half\n\n MAINTAINERS")
    assert "Changes since" not in below[0] + below[2]
    (room / "changes.device").write_text("v2:\n- 0004: less time\n")
    with pytest.raises(LabError, match="changes.device: - 0004: there is no such patch in device"):
        mailing.write("7.3", tmp_path / "t", "device")
    # Each branch of the fixes has versions of its own.
    (room / "changes.fixes").write_text("v2:\n- 0001: a comment\n")
    (room / "changes.fixes.5.4").write_text("v3:\n- 0002: x\n\nv2:\n- y\n")
    for base, words in (("7.3", "[PATCH v2 01/"), ("5.4", "[PATCH v3 5.4.y 01/22]"),
                        ("4.19", "[PATCH 4.19.y 01/")):
        [made] = mailing.write(base, tmp_path / base, "fixes")
        assert f"\nSubject: {words}" in made.patches[0].read_text(encoding="utf-8")


@pytest.mark.parametrize("base", series.queues())
def test_each_mail_is_as_git_makes_it(base: str, tmp_path: Path) -> None:
    """The end of the log, what is changed, the diff; and to mainline nothing about a branch."""
    for part in mailing.parts(base):
        [made] = mailing.write(base, tmp_path / part, part)
        for path in made.patches:
            text = path.read_text(encoding="utf-8")
            log, below = re.split(r"(?m)^---\n", text, maxsplit=1)
            assert "\ndiff --git" not in log and log.count("\n\n") > 0
            stat, diff = re.split(r"(?m)^(?=diff --git )", below, maxsplit=1)
            said = testseries.count(diff, "--stat").splitlines()
            assert [line.rstrip() for line in said] == stat.splitlines()[:len(said)], path
            assert ("[ There is no such commit upstream" in log) <= (base != "7.3"), path
        if made.cover:
            end = made.cover.read_text(encoding="utf-8")
            files, added, removed = 0, 0, 0
            for line in testseries.count("".join(path.read_text(encoding="utf-8")
                                                 for path in made.patches), "--numstat").splitlines():
                added, removed = added + int(line.split()[0]), removed + int(line.split()[1])
            found = re.search(r"(?m)^ (\d+) files? changed(?:, (\d+) insertions?\(\+\))?"
                              r"(?:, (\d+) deletions?\(-\))?$", end)
            assert found and [int(one or 0) for one in found.groups()[1:]] == [added, removed]
            files = len(re.findall(r"(?m)^ \S+ +\| +\d+ [+-]+$", end))
            assert files == int(found[1])


def others(log: str, fixes: set[str]) -> list[str]:
    """What a mail of another series than the fixes says wrong of patches that are not in it."""
    text = " ".join(log.split())
    named = re.findall(r'the fix(?:es)? "(.+?)"', text)
    return [*re.findall(r"\w+ (?:\w+ )?patch(?:es)? of this series|[Tt]he \w+ \w+ patches", text),
            *(name for name in named if name not in fixes)]


@pytest.mark.parametrize("base", BASES)
def test_what_is_in_another_series_is_named_by_its_subject(base: str, tmp_path: Path) -> None:
    """The number of a patch says nothing where the patch went out with others."""
    fixes = set(series.subjects([text for _name, text in mailing.patches(base, "fixes")]))
    found = 0
    for part in PARTS[1:]:
        [made] = mailing.write(base, tmp_path / part, part)
        for path in [*made.patches, *([made.cover] if made.cover else [])]:
            log = path.read_text(encoding="utf-8").partition("\ndiff --git ")[0]
            assert not others(log, fixes), path
            found += log.count("fix \"")
    assert found > 4
    assert others("fails without the first patch of this series", fixes)
    assert others("The first three patches prepare", fixes)
    assert others('Without the fix "hugetlb: no such\n thing"', fixes)


def test_a_letter_that_wants_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                               ) -> None:
    monkeypatch.setattr(testseries, "COVER", tmp_path / "cover-letter")
    (tmp_path / "cover-letter.kunit").write_text("title\n\n#after nothing\ntext\n")
    with pytest.raises(LabError, match="cover-letter.kunit: #after nothing: there is no such part"):
        mailing.write("7.3", tmp_path / "s", "kunit")


def test_a_changelog_has_its_figures_from_records(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(record.RECORDS, tmp_path / "records")
    monkeypatch.setattr(record, "RECORDS", tmp_path / "records")
    path = tmp_path / "records/thp-numa-notifier/4.18.0.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    told["variants"]["vulnerable"] |= {"migrations": 77, "lost_migrations": 5}
    path.write_text(json.dumps(told))
    for part, folder in (("device", tmp_path / "s"), ("", tmp_path / "all")):
        [made] = mailing.write("7.3", folder, part) if part else [series.write("7.3", folder)]
        [patch] = [one for one in made.patches if one.name.endswith("thp_numa_notifier.patch")]
        log = " ".join(patch.read_text(encoding="utf-8").split())
        assert "lost writes in 5 of 77 such migrations; " in log
        assert not any("{lost " in one.read_text(encoding="utf-8") for one in made.patches)
    path.unlink()
    with pytest.raises(LabError, match="thp_numa_notifier.patch asks for a figure of "
                                       "thp-numa-notifier on 4.18.0, and there is no record of it"):
        mailing.write("7.3", tmp_path / "t", "device")


def test_a_letter_has_its_figures_from_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                               ) -> None:
    shutil.copytree(record.RECORDS, tmp_path / "records")
    monkeypatch.setattr(record, "RECORDS", tmp_path / "records")
    path = tmp_path / "records/thp-numa-notifier/4.18.0.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    told["variants"]["vulnerable"] |= {"migrations": 77, "lost_migrations": 5}
    told["variants"]["fixed"] |= {"migrations": 88}
    path.write_text(json.dumps(told))
    [made] = mailing.write("7.3", tmp_path / "s", "device")
    assert made.cover
    text = made.cover.read_text(encoding="utf-8")
    assert "writes were lost in 5 of 77 such migrations" in text and "in 0 of 88." in text
    # No patch asks for this one.
    (tmp_path / "records/pmd-share-notifier/6.12.117.json").unlink()
    with pytest.raises(LabError, match="cover-letter.device asks for a figure of pmd-share-notifier "
                                       "on 6.12.117, and there is no record of it"):
        mailing.write("7.3", tmp_path / "t", "device")


def test_the_letter_of_fixes_says_which_figures_are_stale(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its fixed kernel had other patches than are sent.  Of `#if stale figures` nothing is left
    where none is, and a letter without it is refused."""
    def stale(*names: str) -> None:
        monkeypatch.setattr(record, "stale", lambda run: "changed" * (run.defect in names))

    def said(folder: str) -> str:
        [made] = mailing.write("7.3", tmp_path / folder, mailing.FIXES)
        assert made.cover
        letter = made.cover.read_text(encoding="utf-8")
        assert max(map(len, letter.partition("These bugs")[0].splitlines())) <= 75
        return " ".join(letter.split())
    stale()
    assert "Do not send it like this" not in said("fresh")
    stale("hugetlb-fork-sizes", "pmd-share-protect", "pmd-share-gup")
    text = said("stale")
    assert text.index("Do not send it like this. What") < text.index("These bugs are in 7.3 and")
    assert "now, of hugetlb-fork-sizes 7.3.4, pmd-share-protect 7.3.4. Prove these again" in text
    told = (testseries.ROOM / "cover-letter.fixes").read_text(encoding="utf-8")
    monkeypatch.setattr(testseries, "COVER", tmp_path / "cover-letter")
    (tmp_path / "cover-letter.fixes").write_text(told.replace("#if stale figures", "#if no such"))
    with pytest.raises(LabError, match="asks for the fixed kernel of pmd-share-protect on 7.3.4|"
                                       "asks for the fixed kernel of hugetlb-fork-sizes on 7.3.4"):
        said("refused")


# No figure in a letter is written by hand.
@pytest.mark.parametrize("letter", sorted(
    [*testseries.ROOM.glob("cover-letter*"), *testseries.ROOM.parent.glob("cover-letter*")]),
    ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_a_letter_says_was_seen_is_on_record(letter: Path) -> None:
    assert not re.search(r"\b\d+ of (?:its )?\d+\b|\d %", letter.read_text(encoding="utf-8"))


@pytest.mark.parametrize("base", BASES)
def test_each_changelog_says_how_its_test_was_seen_to_fail(base: str) -> None:
    found = set()
    for part in ("selftests", "hugetlb", "device"):
        for name, text in mailing.patches(base, part):
            log = " ".join(text.partition("\ndiff --git ")[0].split())
            test = re.search(r"(?m)^Subject: \S+ selftests/mm: add (\w+)$", text)
            if not test:
                continue
            found.add(test[1])
            seen = re.search(r"\b\d+ of \d+\b|lost writes|loses? writes|died of a BUG", log)
            assert seen and "not seen to fail" not in log, name
    assert len(found) > 30


def test_a_figure_of_one_test(tmp_path: Path) -> None:
    told = json.loads((record.RECORDS / "pmd-share-split/6.1.192.json").read_text(encoding="utf-8"))
    of_it = told["variants"]["vulnerable"]["by_test"]["hugetlb_pmd_split.mbind.unshared"]
    asked = "vulnerable pmd-share-split 6.1.192 hugetlb_pmd_split.mbind.unshared"
    assert series.recorded(f"{{lost {asked}}}", "x") == \
        f"{of_it['lost_migrations']} of {of_it['migrations']}"
    with pytest.raises(LabError, match="x asks for lost of none.at.all, which pmd-share-split on"):
        series.recorded("{lost fixed pmd-share-split 6.1.192 none.at.all}", "x")
    with pytest.raises(LabError, match="x asks for boots of hugetlb_pmd_split.mbind.unshared"):
        series.recorded(f"{{boots {asked}}}", "x")


def test_a_paragraph_with_a_figure_is_filled_again() -> None:
    """And what has none, a table or a list is not."""
    asked = "{lost fixed thp-numa-notifier 4.18.0}"
    figure = series.recorded(asked, "x")
    assert re.fullmatch(r"\d+ of \d+", figure)
    text = series.recorded(f"one\ntwo\n\nWrites were lost in\n{asked}\nmigrations. Since commit\n"
                           f"7066f0f933a1 (\"a\nb\").\n\n  {asked}\n  b\n\n- {asked}\n  c\n---\nx\n", "x")
    assert text.startswith(f'one\ntwo\n\nWrites were lost in {figure} migrations. Since commit ')
    assert text.endswith(f"\n\n  {figure}\n  b\n\n- {figure}\n  c\n---\nx\n")
    assert "commit 7066f0f933a1" in text and "\0" not in text
    wide = series.recorded(" ".join(["words"] * 40) + f" {asked}.\n---\nAdds: x\n", "x")
    assert max(map(len, wide.splitlines())) <= 72 and wide.endswith(f" {figure}.\n---\nAdds: x\n")
    assert series.recorded("  " + asked.replace("}", ":20}"), "x") == "  " + figure.rjust(20)


# ---- stable --------------------------------------------------------------------------------


def in_order(folder: Path) -> Path:
    """Where all patches of a series are, in the order in which they are applied."""
    return folder / "private" if (folder / "private" / "0000-cover-letter.patch").exists() \
        else folder


def test_the_branches_of_stable(tmp_path: Path) -> None:
    done = make("series", "SERIES=stable", f"O={tmp_path}/s")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == \
        sorted(f"{branch(base)}.y" for base in STABLE)
    for base in STABLE:
        top = tmp_path / "s" / f"{branch(base)}.y"
        folder = in_order(top)
        mails = sorted(folder.glob("0*.patch"))
        # The last release of 5.4 has the last of its patches.
        total = len(variant.series(base)) - (base == "5.4")
        tags = {f"[PATCH {branch(base)}.y {numbered(number, total)}]" for number in range(total + 1)} \
            if total > 1 else {f"[PATCH {branch(base)}.y]"}
        found = {re.findall(r"(?m)^Subject: (\[.*?\])", path.read_text(encoding="utf-8"))[0]
                 for path in mails}
        assert found <= tags and len(found) >= total
        ended = base not in ("5.10", "5.15", "6.1", "6.6", "6.12", "6.18")
        if top == folder:
            # That of 2.6.34 has been public for long.
            assert base == "2.6.34" and "--to=" not in (top / mailing.RECIPIENTS).read_text()
            assert f"  {top.name} has ended, and stable@ takes" in done.stdout
        elif ended:
            assert [path.name for path in top.iterdir() if path.name[:6] != "report"] == ["private"]
            assert f"  {top.name} has ended: it goes to who keeps that, and to no list" in done.stdout
        else:
            said = (top / mailing.RECIPIENTS).read_text()
            assert said.startswith("--to=stable@vger.kernel.org\n")
            lacks = any(map(upstream.of_lab, (one.read_text() for one in top.glob("0*.patch"))))
            assert (f"$(cat {top}/recipients) {top}/*.patch" in done.stdout) == (not lacks)
        if (folder / "0000-cover-letter.patch").exists():
            assert (f"\n{top.name} has ended.  This is for those who keep it.\n" in
                    (folder / "0000-cover-letter.patch").read_text(encoding="utf-8")) == ended
    assert "still-mapped" not in "".join(path.name for path in (tmp_path / "s/5.4.y").rglob("*"))
    assert "  leave out 0008-mm-hugetlb-preserve-mremap-address-delta" in done.stdout


def test_what_only_the_last_releases_have_is_in_the_queue(tmp_path: Path) -> None:
    """It is for who has an older one."""
    done = make("series", "BASE=5.4", "SERIES=fixes", f"O={tmp_path}/s")
    assert done.returncode == 0, done.stderr
    assert "  leave out 0021-mm-hugetlb-fix-folio-is-still-mapped-when-deleted.patch for a tree " \
        "that has it" in done.stdout


@pytest.fixture(scope="module")
def stable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What make writes for all branches, as it is mailed."""
    out = tmp_path_factory.mktemp("stable") / "s"
    done = make("series", "SERIES=stable", f"O={out}")
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("base", STABLE)
def test_a_letter_is_short_enough_to_be_read(base: str, stable: Path) -> None:
    """As it is sent, and without what git counts."""
    cover = in_order(stable / f"{branch(base)}.y") / "0000-cover-letter.patch"
    if not cover.exists():
        # One patch alone, which says it all.
        assert len(variant.series(base)) == 1
        return
    text = cover.read_text(encoding="utf-8").split("\n\n", 1)[1]
    text = re.split(r"(?m)^ \S+ +\| +\d+ [+-]", text)[0]
    text, taken_out = re.subn(r"(?ms)\A\[ Take this out before you send\..*?\]\n", "", text)
    assert taken_out == 1
    lines = text.strip().splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 75
    # The subject is one of git's, and goes on in a second line.
    assert "\n  1. " in text and "make prove" in text


@pytest.mark.parametrize("base", STABLE)
def test_git_am_takes_each_branch(base: str, stable: Path, tmp_path: Path) -> None:
    """On the newest release that there is: Debian's, or that in TREES=."""
    folder = in_order(stable / f"{branch(base)}.y")
    mails = sorted(folder.glob("0*.patch"))
    touched = {path for mail in mails
               for path in re.findall(r"(?m)^--- a/(\S+)$", mail.read_text(encoding="utf-8"))}
    tree = debian_files(base) if load(base).package else released_tree(base)
    repo = repository(tree, tmp_path / "linux", touched)
    # As the command that is printed has it; the letter is no patch.
    patches = [mail for mail in mails if mail.name[:4] != "0000"]
    git(repo, "am", "-q", "-s", *patches)
    assert int(git(repo, "rev-list", "--count", "HEAD")) == len(patches) + 1
    assert [f"Subject: {line}" for line in git(repo, "log", "--reverse", "--format=%s").split("\n")
            if line and line != "released"] == \
        [f"Subject: {mailinfo(mail, tmp_path)['Subject']}" for mail in patches]


@pytest.mark.parametrize("base", STABLE)
def test_each_patch_says_what_it_is_upstream(base: str) -> None:
    """The commit, and what differs; or what upstream has instead of it, if anything."""
    for path in variant.series(base):
        text = path.read_text(encoding="utf-8").partition("\ndiff --git ")[0].split("\n\n", 1)[1]
        notes = " ".join(" ".join(re.findall(r"(?ms)^\[ .*? \]$", text)).split())
        upstream = re.match(r"commit [0-9a-f]{40} upstream\.\n\n", text)
        assert upstream or re.search(r"[Uu]pstream|Independent implementation|commit [0-9a-f]{12}",
                                     notes), path
        # Not where there is none: upstream goes first, and says what differs below.
        assert "upstream." not in text.partition("\n")[0] or upstream, path
        assert re.search(r"(?m)^Cc: stable@vger\.kernel\.org", text), path


# ---- what is for no list -------------------------------------------------------------------


@pytest.mark.parametrize("base", series.queues())
def test_nothing_public_says_what_is_private(base: str, tmp_path: Path) -> None:
    """Neither a patch, nor a letter, nor whom it is mailed to; and no report is beside them."""
    [made] = mailing.write(base, tmp_path / "s", "fixes")
    back, hold = series.kept_back(), mailing.held(base)
    assert "hugetlb: mremap() must not wait for its own lock" in back
    assert bool(hold) == (base != "2.6.34")
    if not hold:
        assert made.mailed() == made and made.public is None
        return
    assert {path.name[5:] for path in made.held} == {name[5:] for name in hold}
    assert all(path.parent == tmp_path / "s" / "private" for path in made.patches)
    public = made.public.patches if made.public else ()
    assert len(public) + len(made.held) == len(made.patches)
    assert bool(public) != mailing.ended(base)
    for path in (tmp_path / "s").iterdir():
        if path.is_dir():
            continue
        text = " ".join(path.read_text(encoding="utf-8").split())
        assert not path.name.startswith("report-") or not series.private(path.read_text())
        if path.name.endswith(".patch"):
            assert not [one for one in (*back, *set(back.values())) if one in text], path
    total = len(public)
    lead = "PATCH" if base == "7.3" else f"PATCH {branch(base)}.y"
    for number, path in enumerate(public, 1):
        assert path.name.startswith(f"{number:04}-")
        assert f"\nSubject: [{lead} {numbered(number, total)}] " in path.read_text()
    if made.public and made.public.cover:
        text = made.public.cover.read_text(encoding="utf-8")
        assert f"\nSubject: [{lead} {numbered(0, total)}] " in text
        assert not re.search(r"(?m)[{}]|^#", text) and too_wide(text) == []


def test_what_mends_something_private_is_private_in_each_queue() -> None:
    """Whether or not the report names that queue, and with all that mends it."""
    back = series.kept_back()
    for base in series.queues():
        queue = variant.series(base)
        for name, text in series.reports(base).items():
            one = defect.load(name)
            if series.private(text) and not one.queue.form:
                theirs = variant.mending(queue, one)
                assert theirs and {path.name for path in theirs} <= set(mailing.held(base)), name
        there = series.subjects([path.read_text(encoding="utf-8") for path in queue])
        names = [path.name for path, subject in zip(queue, there) if subject in back]
        assert set(names) <= set(mailing.held(base))
    assert "pmd-share-mprotect" in mailing.held("4.14").values()


@pytest.mark.parametrize("base", series.queues())
def test_tables_are_not_shared_again_without_what_mends_that(base: str) -> None:
    """In public no patch lets mappings share PMD tables while one behind it is held back."""
    queue, hold = variant.series(base), mailing.held(base)
    shares = [number for number, path in enumerate(queue) if kconfig.lets_share(path)]
    assert bool(shares) == (base == "6.6")
    for number in shares:
        behind = [path.name for path in queue[number + 1:] if path.name in hold]
        assert not behind or queue[number].name in hold
    if base == "6.6":
        assert hold[queue[1].name] == "goes out with 0010 and 0011"


def test_a_report_says_whether_it_is_private() -> None:
    for head, said in (("To: A <a@suse.de>\nCc: security@kernel.org\n", True),
                       ("To: a@suse.de,\n b@suse.de\n", True), ("", True),
                       ("To: a@suse.de,\n linux-mm@kvack.org\n", False),
                       ("To: a@suse.de\nCc: B <b@c.d>,\n stable@vger.kernel.org\n", False),
                       ("To: security@kernel.org,\n linux-mm@kvack.org\n", True)):
        assert series.private(f"{head}Subject: x linux-mm@kvack.org\n\nTo: y@vger.kernel.org\n") \
            is said, head
    assert series.private(REPORTS["hugetlb-punch-fault"])
    assert not series.private(REPORTS["pmd-share-split"])


REPORTS = {one.name: one.report.read_text(encoding="utf-8")
           for one in map(defect.load, defect.names()) if one.report}


@pytest.mark.parametrize("base", [base for base in series.queues() if mailing.held(base)])
def test_what_is_public_applies_without_the_others(base: str, tmp_path: Path) -> None:
    """And all of them do in the folder that has them."""
    tree = debian_files(base) if load(base).package else released_tree(base)
    [made] = mailing.write(base, tmp_path / "s", "fixes")
    touched = {path for mail in made.patches
               for path in re.findall(r"(?m)^--- a/(\S+)$", mail.read_text(encoding="utf-8"))}
    repo = repository(tree, tmp_path / "linux", touched)
    for one in (made.public, made):
        if one:
            git(repo, "am", "-q", *one.patches)
            git(repo, "reset", "-q", "--hard", git(repo, "rev-list", "--max-parents=0", "HEAD").strip())


def test_what_is_public_is_what_is_mailed(tmp_path: Path) -> None:
    """The reports come first, and the command has no other folder in it."""
    done = make("series", "BASE=5.15", "SERIES=fixes", f"O={tmp_path}/s")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "s"
    assert done.stdout.count("git send-email") == 1
    told, command = done.stdout.split("  git send-email ")
    assert command.startswith(f"$(cat {out}/recipients) {out}/*.patch\n")
    for path in [*out.glob("report-*"), *out.glob("private/report-*")]:
        assert f"    {path}" in told
    assert f"{out}/private/report-hugetlb-punch-fault.txt (no list)\n" in told
    assert "for no list yet: 0005-hugetlbfs-punch-a-hole-without-a-lock-that-faults-wai.patch " \
        "(hugetlb-punch-fault)\n" in told
    assert "(goes out after 0005)\n" in told and f"git am -s {out}/private/000[1-9]-*" in told
    assert not [path for path in out.glob("*.patch") if "punch-a-hole" in path.name]


def test_a_report_that_names_a_list_keeps_nothing_back(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "private", lambda _text: False)
    [made] = mailing.write("5.15", tmp_path / "s", "fixes")
    assert not made.held and made.mailed() == made and not (tmp_path / "s/private").exists()
    assert mailing.shows("7.3", "hugetlb") == {}


def test_a_second_version_says_nothing_of_what_is_private(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = tmp_path / "tests"
    shutil.copytree(testseries.ROOM, room)
    monkeypatch.setattr(testseries, "ROOM", room)
    (room / "changes.fixes.5.15").write_text("v2:\n- 0005: a secret\n- 0006: a comment\n")
    [made] = mailing.write("5.15", tmp_path / "s", "fixes")
    assert made.cover and made.public and made.public.cover
    assert "a secret" in made.cover.read_text()
    text = made.public.cover.read_text()
    assert "- a comment\n" in text and "secret" not in text


# ---- a tree that has some of it ------------------------------------------------------------


def vendor(base: str, folder: Path, numbers: tuple[str, ...]) -> Path:
    """A tree of the released files that the fixes touch, with those of these numbers applied."""
    tree = some(released_tree(base), folder, ["Makefile", *series.files(base, alone=True)])
    for path in variant.series(base):
        if path.name[:4] in numbers:
            apply(tree, path)
    return tree


def test_what_a_tree_has_is_left_out(tmp_path: Path) -> None:
    """The state of a vendor's tree.  What is left has new numbers, and applies."""
    tree = vendor("5.15", tmp_path / "linux", ("0001", "0007"))
    done = make("series", f"KERNEL={tree}", "SERIES=fixes", f"O={tmp_path}/s",
                LAB_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    names = [path.name for path in variant.series("5.15")]
    for name in (names[0], names[6]):
        assert f"  left out: {name}, which the tree has\n" in done.stdout
    assert "for a tree that has it" not in done.stdout
    mails = sorted((tmp_path / "s" / "private").glob("000[1-9]-*.patch"))
    assert [path.name for path in mails] == [
        f"{number:04}{name[4:]}" for number, name in enumerate([*names[1:6], *names[7:]], 1)]
    assert f"\nSubject: [PATCH 5.15.y 1/{len(names) - 2}] " in mails[0].read_text()
    for path in mails:
        apply(tree, path)


def test_a_tree_that_was_looked_at_needs_no_such_advice(tmp_path: Path) -> None:
    """What applies to it is not there."""
    tree = vendor("5.4", tmp_path / "linux", ())
    done = make("series", f"KERNEL={tree}", "SERIES=fixes", f"O={tmp_path}/s",
                LAB_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert "still-mapped" in "".join(path.name for path in (tmp_path / "s/private").iterdir())
    assert "leave out" not in done.stdout and "1 of the 22 patches is a commit of" in done.stdout


def test_a_tree_that_one_does_not_fit_is_told_what_to_do(tmp_path: Path) -> None:
    tree = vendor("5.15", tmp_path / "linux", ())
    (tree / "mm/mmap.c").write_text("")
    done = make("series", f"KERNEL={tree}", "SERIES=fixes", f"O={tmp_path}/s",
                LAB_CACHE=str(tmp_path / "cache"))
    said = done.stderr
    assert done.returncode != 0 and said.startswith("error: 5.15/0001-")
    assert "5.15/0001-mm-hugetlb-unshare-page-tables" in said and " does not apply " in said
    assert "Without KERNEL=, BASE=5.15 SERIES=fixes writes them unchecked" in said
    assert not (tmp_path / "s").exists()


def test_a_tree_that_has_all_needs_nothing(tmp_path: Path) -> None:
    tree = vendor("5.15", tmp_path / "linux", tuple(
        path.name[:4] for path in variant.series("5.15")))
    for words in (["SERIES=fixes"], []):
        done = make("series", f"KERNEL={tree}", *words, f"O={tmp_path}/s",
                    LAB_CACHE=str(tmp_path / "cache"))
        assert done.returncode == 0, done.stderr
        assert f"{len(variant.series('5.15'))} patches of queue/5.15 are in " in done.stdout
        assert "there is nothing to do" in done.stdout and not (tmp_path / "s").exists()


def test_an_old_tree_is_not_asked_for_people(tmp_path: Path) -> None:
    """Its script fails on what the lab asks it, and its people have gone."""
    tree = vendor("5.15", tmp_path / "linux", ())
    (tree / "scripts").mkdir()
    (tree / "scripts/get_maintainer.pl").write_text("die 'Unknown option: mpath';")
    done = make("series", f"KERNEL={tree}", "SERIES=fixes", f"O={tmp_path}/s",
                LAB_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "s" / mailing.RECIPIENTS).read_text() == \
        mailing.STABLE_RECIPIENTS.read_text()
    assert f"Recipients are those of queue/recipients, who keep hugetlb today: MAINTAINERS of " \
        f"{tree} was not asked." in done.stdout


@pytest.mark.parametrize("text, asked", [
    ("'mpath|maintainer-path=s' => \\$maintainer_path,", True), ("'tree!' => \\$tree,", False)])
def test_a_script_that_is_too_old(text: str, asked: bool, tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/get_maintainer.pl").write_text(text)
    on = mailing.Ground(tmp_path, "")
    assert on.asked("7.3") is asked and not on.asked("5.15")
    if not asked:
        mailing.write("7.3", tmp_path / "s", "kunit", on)
        assert (tmp_path / "s" / mailing.RECIPIENTS).read_text().splitlines() == \
            mailing.STABLE_RECIPIENTS.read_text().splitlines()[1:]


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not the folder was there; the second try finds nothing in its way."""
    def fail(*_words: object) -> list[str]:
        assert list(tmp_path.rglob("0*.patch"))
        raise LabError("no recipients")

    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        with monkeypatch.context() as patched:
            patched.setattr(mailing, "_authors", fail)
            with pytest.raises(LabError, match="no recipients"):
                mailing.write("5.15", tmp_path / name, "fixes")
        assert [path.name for path in tmp_path.iterdir()] == ["empty"]
        assert not list((tmp_path / "empty").iterdir())
    for name in ("new", "empty"):
        [made] = mailing.write("5.15", tmp_path / name, "fixes")
        assert all(path.is_file() for path in (*made.patches, *made.reports, *made.held))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "new"]


# ---- errors --------------------------------------------------------------------------------


@pytest.mark.parametrize("words, reason", [
    (["BASE=7.3", "SERIES=none"], "SERIES=none: for 7.3 there are fixes, selftests, hugetlb, device"),
    (["BASE=4.14", "SERIES=kunit"], "SERIES=kunit: for 4.14 there are fixes, all; without BASE= and KERNEL= stable and ltp"),
    (["SERIES=fixes"], "name a base with BASE="),
    (["BASE=7.3", "SERIES=stable"], "SERIES=stable is for all branches"),
    (["BASE=7.3", "FORM=flush", "SERIES=fixes"], "leave FORM= out"),
    (["BASE=2.6.35", "SERIES=fixes"], "no series for 2.6.35"),
])
def test_errors_are_one_line(words: list[str], reason: str, tmp_path: Path) -> None:
    assert reason in refused("series", *words, f"O={tmp_path}/s")
    assert not (tmp_path / "s").exists()


def test_the_front_door(tmp_path: Path) -> None:
    done = make("series", "BASE=7.3", "SERIES=all", f"O={tmp_path}/s")
    assert done.returncode == 0, done.stderr
    for part in PARTS:
        # Before it is there: to ask for recipients may take minutes.
        assert f"writing {part}\n" in done.stdout
        assert (tmp_path / "s" / part / "0000-cover-letter.patch").is_file()
    # Nobody has said to whom.
    assert "git send-email" not in done.stdout
    assert "  to mail it: name the kernel tree that it is for with KERNEL=" in done.stdout
    assert f"    {tmp_path}/s/fixes/private/report-pmd-share-protect.txt (no list)" in done.stdout
    assert "name a kernel tree that git keeps with KERNEL=" in done.stdout
    for part in ("selftests", "hugetlb", "device"):
        assert re.search(rf"/{part}: .*\n.*\n  not to be mailed before what it shows is public: .*"
                         r"hugetlb_pmd_mremap \(hugetlb-mremap-hang\)", done.stdout), part


def test_nothing_is_written_over(tmp_path: Path) -> None:
    for _time in range(2):
        done = make("series", "BASE=7.3", "SERIES=all", f"O={tmp_path}/s")
    assert done.returncode != 0 and "name an empty folder with O=" in done.stderr


def test_a_folder_with_anything_in_it_is_not_taken(tmp_path: Path) -> None:
    """O= may have been meant for another thing, and the files would be lost among its own."""
    (tmp_path / ".hidden").touch()
    said = refused("series", "BASE=5.15", "SERIES=fixes", f"O={tmp_path}")
    assert f"{tmp_path} holds .hidden already: name an empty folder with O=" in said
    assert [path.name for path in tmp_path.iterdir()] == [".hidden"]
