# SPDX-License-Identifier: GPL-2.0
"""make series UPSTREAM=: what is a commit of mainline is mailed with its author and changelog.

The clone of mainline is a small one that is made up: in it `refs/replace/` gives a commit the name
that a patch of the queue has for it.
"""

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import debian_files, make, refused
from test_mailing import in_order
from test_series import mailinfo
from trees import git, nobody

from lab.errors import LabError
from lab.kernel import variant
from lab.paths import REPO
from lab.verbs import mailing, series, upstream

TEXT = "Why it is so.\n\n  an example\n\nFixes: 123456789abc (\"x\")\nCc: stable@vger.kernel.org\n" \
       "Signed-off-by: Zoë <zoe@invalid>"
OTHER = "mm: migrate: fix THP's mapcount on isolation"
STILL_MAPPED = "mm/hugetlb: fix folio is still mapped when deleted"


@dataclass(frozen=True)
class Made:
    """A commit that is made up."""

    subject: str
    text: str = TEXT
    author: str = "Zoë Q. Writer"


def of_queue() -> dict[str, dict[str, str]]:
    """By base: the subject of each commit of mainline that its queue has."""
    found: dict[str, dict[str, str]] = {}
    for base in series.queues():
        for path in variant.series(base):
            text = path.read_text(encoding="utf-8")
            if commit := upstream.commit_of(text):
                [subject] = series.subjects([text])
                # The one that has another there.
                if "mapcount on isolation" in text:
                    subject = OTHER
                found.setdefault(base, {})[commit] = subject
    return found


def mainline(folder: Path, commits: dict[str, Made]) -> Path:
    """A repository that has these commits."""
    git(folder.parent, "init", "-q", folder)
    tree = git(folder, "mktree").strip()
    for number, (name, one) in enumerate(commits.items()):
        done = subprocess.run(
            ["git", "-C", folder, "commit-tree", tree], text=True, encoding="utf-8", check=True,
            input=f"{one.subject}\n\n{one.text}\n", capture_output=True,
            env={**nobody(), "GIT_AUTHOR_NAME": one.author, "GIT_AUTHOR_EMAIL": f"z{number}@invalid",
                 "GIT_AUTHOR_DATE": "1500000000 -0730"})
        git(folder, "update-ref", f"refs/replace/{name}", done.stdout.strip())
    return folder


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with all that the queues name."""
    named = {name: Made(subject) for one in of_queue().values() for name, subject in one.items()}
    assert len(named) > 6
    return mainline(tmp_path_factory.mktemp("upstream") / "linux", named)


def log_of(mail: Path) -> str:
    """A mail up to its diff."""
    return mail.read_text(encoding="utf-8").partition("\ndiff --git ")[0]


def test_what_differs_has_one_form() -> None:
    """It can be found, and says nothing of a changelog that is not mailed."""
    count = 0
    for base in series.queues():
        for path in variant.series(base):
            text = path.read_text(encoding="utf-8")
            if upstream.commit_of(text):
                notes = upstream.differs(text)
                assert notes.startswith("[ ") and notes.endswith(" ]"), path
                assert all(line.startswith(("[ ", "  ")) or not line for line in notes.splitlines())
                assert not re.search(r"changelog|\btext\b|From:|\btags\b", notes), path
                assert upstream.of_lab(text), path
                count += 1
            else:
                assert not re.search(r"(?m)^commit [0-9a-f]+ upstream", text), path
    assert count > 20


@pytest.mark.parametrize("log", [
    "no brackets\n\nFixes: x\n", "[ at the beginning ]\n\nand more\n\nFixes: x\n",
    "a\n\n[ one ]\n\n[ and another ]\n", "a\n\n[ without an end\n\nFixes: x\n",
])
def test_what_has_another_form_is_no_such_part(log: str) -> None:
    assert upstream.differs(f"From: x\n\n{log}\ndiff --git a/x b/x\n") == ""
    assert upstream.differs("From: x\n\na\n\n[ so\n\n  and so ]\n\nFixes: x\n\ndiff --git a b\n") \
        == "[ so\n\n  and so ]"


def test_the_mails_for_stable_are_those_commits(clone: Path, tmp_path: Path) -> None:
    """And all others are as they are without a clone."""
    done = make("series", "SERIES=stable", f"UPSTREAM={clone}", f"O={tmp_path}/with")
    assert done.returncode == 0, done.stderr
    assert "UPSTREAM" not in done.stdout and "Not to be mailed" not in done.stdout
    mailing.write("", tmp_path / "without", mailing.STABLE)
    seen = 0
    for top in sorted((tmp_path / "without").iterdir()):
        # Those for no list are with all the others.
        folder = in_order(top)
        own, authors = in_order(tmp_path / "with" / top.name), set()
        for path in sorted(folder.glob("*.patch")):
            mail, plain = (one / path.name for one in (own, folder))
            text, was = (one.read_text(encoding="utf-8") for one in (mail, plain))
            commit = upstream.commit_of(was)
            if path.name.startswith("0000-"):
                assert text.startswith(f"From {'0' * 40} Mon Sep 17 00:00:00 2001\n"
                                       f"From: {upstream.LAB}\n")
                assert "UPSTREAM" not in text
                continue
            if not commit:
                assert text == was
                continue
            seen += 1
            assert "\nContent-Type: text/plain; charset=UTF-8\n" in text.partition("\n\n")[0]
            found = mailinfo(mail, tmp_path)
            assert found["Author"] == "Zoë Q. Writer" and found["Email"].endswith("@invalid")
            assert found["Date"] == "Thu, 13 Jul 2017 19:10:00 -0730"
            if any(one.name[5:] == path.name[5:] for one in top.glob("*.patch")):
                authors.add(found["Email"])
            [subject] = series.subjects([re.sub(r"\[PATCH.*?\]", "[PATCH]", was, count=1)])
            assert found["Subject"] == (OTHER if top.name == "5.10.y" else subject)
            said = (tmp_path / "log").read_text(encoding="utf-8")
            assert said == f"commit {commit} upstream.\n\n{TEXT}\n{upstream.differs(was)}\n"
            assert text.partition("\n---\n")[2] == was.partition("\n---\n")[2]
        if not (top / mailing.RECIPIENTS).exists():
            assert not list(top.glob("*.patch"))
            continue
        lines = (tmp_path / "with" / top.name / mailing.RECIPIENTS).read_text().splitlines()
        assert {f"--cc={one}" for one in authors} <= set(lines)
        assert set(lines) - {f"--cc={one}" for one in authors} == \
            set((top / mailing.RECIPIENTS).read_text().splitlines())
    # The last release of 5.4 has the one of its queue.
    assert list(of_queue()["5.4"].values()) == [STILL_MAPPED]
    assert seen == sum(len(of_queue().get(base, {})) for base in
                       {series.branch(name): name for name in series.queues()}.values()
                       if base != "5.4")


def test_the_sign_off_of_who_sends_it_is_below_what_differs(clone: Path, tmp_path: Path) -> None:
    name, subject = next(iter(of_queue()["5.4"].items()))
    mail = upstream.Clone(clone).restored("x", (
        f"From {'0' * 40} Mon Sep 17 00:00:00 2001\nFrom: {upstream.LAB}\nDate: x\n"
        f"Subject: [PATCH] {subject}\n\ncommit {name} upstream.\n\nOurs.\n\n[ It differs. ]\n\n"
        "Fixes: x\n\ndiff --git a/f b/f\nnew file mode 100644\n--- /dev/null\n+++ b/f\n"
        "@@ -0,0 +1 @@\n+x\n"), subject)
    (tmp_path / "mail").write_text(mail, encoding="utf-8")
    repo = tmp_path / "repo"
    git(tmp_path, "init", "-q", repo)
    git(repo, "commit", "-q", "--allow-empty", "-m", "first")
    git(repo, "am", "-q", "-s", tmp_path / "mail")
    assert git(repo, "log", "-1", "--format=%an %s%n%b").strip() == \
        f"Zoë Q. Writer {subject}\ncommit {name} upstream.\n\n{TEXT}\n[ It differs. ]\n" \
        "Signed-off-by: A <a@invalid>"


@pytest.mark.parametrize("words, lacks", [
    (["SERIES=stable"], 17), (["BASE=4.19", "SERIES=fixes"], 2), (["BASE=4.19"], 2),
    (["BASE=5.15", "SERIES=fixes"], 0), (["BASE=7.3", "SERIES=kunit"], 0),
])
def test_what_is_missing_without_it_is_said(words: list[str], lacks: int, tmp_path: Path) -> None:
    done = make("series", *words, f"O={tmp_path}/s")
    assert done.returncode == 0, done.stderr
    found = re.findall(r"(?m)^Not to be mailed yet: (\d+) of the \d+ patches (?:are commits|is a commit) of mainline "
                       r"with the lab's author and text\. Name .* with UPSTREAM=\.$", done.stdout)
    assert found == ([str(lacks)] if lacks else [])
    letters = sorted((tmp_path / "s").rglob("0000-*"))
    assert letters
    for letter in letters:
        own = any(upstream.of_lab(path.read_text(encoding="utf-8"))
                  for path in letter.parent.glob("*.patch"))
        text = " ".join(letter.read_text(encoding="utf-8").split())
        assert ("Write the series again with UPSTREAM= first" in text) == own


def test_it_takes_the_one_for_a_tree_too(clone: Path, tmp_path: Path) -> None:
    done = make("series", "BASE=5.10", f"UPSTREAM={clone}", f"O={tmp_path}/s")
    assert done.returncode == 0, done.stderr
    [first] = (tmp_path / "s").glob("0001-*")
    assert mailinfo(first, tmp_path)["Subject"] == OTHER
    letter = (tmp_path / "s/0000-cover-letter.patch").read_text(encoding="utf-8")
    assert f"\n  1. {OTHER}\n" in letter


# ---- errors --------------------------------------------------------------------------------

FIRST = "7066f0f933a1fd707bb38781866657769cff7efc"
TOLD = "mm: thp: fix mmu_notifier in migrate_misplaced_transhuge_page()"


def empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize("prepare, reason", [
    (lambda top: top / "none", "linux/none: there is no such folder"),
    (empty, "this is no clone of mainline: not a git repository"),
    (lambda top: mainline(top, {}), f"commit {FIRST[:12]} is not there: name a clone of mainline"),
    (lambda top: mainline(top, {FIRST: Made("mm: another")}),
     f'the subject of {FIRST[:12]} is "mm: another" there, and "{TOLD}" in queue/4.19/0004-mm-'),
    (lambda top: mainline(top, {FIRST: Made(TOLD, "a\n---\nb")}),
     f"the changelog of {FIRST[:12]} has a line \"---\""),
], ids=["no folder", "no repository", "no commit", "another commit", "the end of a log"])
def test_a_bad_clone_is_one_line(prepare: Callable[[Path], Path], reason: str, tmp_path: Path
                                 ) -> None:
    """And nothing is written."""
    top = prepare(tmp_path / "linux")
    said = refused("series", "BASE=4.19", "SERIES=fixes", f"UPSTREAM={top}", f"O={tmp_path}/s",
                   GIT_CEILING_DIRECTORIES=str(tmp_path))
    assert reason in said.replace(str(tmp_path / "linux/none"), "linux/none")
    assert "UPSTREAM=" in said
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("coding, message, want", [
    ("latin1", b"mm: sp\xe4t\n\nZo\xeb\n", "mm: sp\xe4t"),
    ("none-such", "mm: sp\xe4t\n\nZo\xeb\n".encode(), "mm: sp\xe4t"),
    ("", b"mm: sp\xe4t\n\nx\n", ""),
    ("", b"mm: late\n\nZo\xeb\n", ""),
    ("none-such", b"mm: late\n\nZo\xeb\n", "")])
def test_of_a_name_that_cannot_be_read_none_is_made_up(
        coding: str, message: bytes, want: str, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", tmp_path / "linux")
    tree = git(tmp_path / "linux", "mktree").strip()
    raw = f"tree {tree}\nauthor A <a@invalid> 1500000000 +0000\n".encode() + \
        b"committer Zo\xeb <z@invalid> 1500000000 +0000\n" + \
        (f"encoding {coding}\n".encode() if coding else b"") + b"\n" + message
    (tmp_path / "raw").write_bytes(raw)
    name = git(tmp_path / "linux", "hash-object", "-t", "commit", "-w", tmp_path / "raw").strip()
    clone = upstream.clone(tmp_path / "linux")
    if want:
        said = clone.commit(name)
        assert (said.subject, said.text) == (want, "Zo\xeb")
    else:
        with pytest.raises(LabError, match=f"^UPSTREAM=.*: the author or the changelog of "
                           f"{name[:12]} is not in the encoding that the commit has$"):
            clone.commit(name)


def test_of_all_branches_none_is_written_where_one_commit_is_missing(
        clone: Path, tmp_path: Path) -> None:
    commits = {name: Made(subject) for one in of_queue().values() for name, subject in one.items()}
    commits.popitem()
    top = mainline(tmp_path / "linux", commits)
    assert "is not there: name a clone of mainline" in refused(
        "series", "SERIES=stable", f"UPSTREAM={top}", f"O={tmp_path}/s")
    assert clone.exists() and not (tmp_path / "s").exists()


def test_a_patch_without_what_differs(clone: Path) -> None:
    with pytest.raises(LabError, match="^4.19/x.patch does not end with what differs, in brackets"):
        upstream.Clone(clone).restored(
            "4.19/x.patch", f"From: x\n\ncommit {FIRST} upstream.\n\nOurs.\n\ndiff --git a b\n",
            TOLD)


def test_it_is_for_kernels(tmp_path: Path) -> None:
    assert "UPSTREAM= goes with patches of a kernel" in refused(
        "series", "SERIES=ltp", f"UPSTREAM={tmp_path}", f"O={tmp_path}/s")
    # What the environment has is for others.
    done = make("series", "SERIES=ltp", f"O={tmp_path}/s", UPSTREAM=str(tmp_path))
    assert done.returncode == 0, done.stderr


# ---- who gets it, and who is the author --------------------------------------------------------


def test_it_goes_to_whom_mainline_names(tmp_path: Path) -> None:
    """MAINTAINERS of the newest base, of a patch to hugetlb."""
    tree = debian_files("7.3")
    (tmp_path / "x.patch").write_text(
        "From: A <a@invalid>\nSubject: [PATCH] x\n\nx\n---\ndiff --git a/mm/hugetlb.c "
        "b/mm/hugetlb.c\n--- a/mm/hugetlb.c\n+++ b/mm/hugetlb.c\n@@ -1 +1 @@\n-x\n+y\n")
    done = subprocess.run(
        ["perl", tree / "scripts/get_maintainer.pl", "--no-tree", "--no-git", "--no-git-fallback",
         "--no-rolestats", "--no-n", "--mpath", tree / "MAINTAINERS", "x.patch"], cwd=tmp_path,
        text=True, capture_output=True, check=True)
    assert mailing.STABLE_RECIPIENTS.read_text().splitlines() == [
        "--to=stable@vger.kernel.org", *(f"--cc={one}" for one in done.stdout.split())]


def test_only_what_is_ours_gets_another_author(tmp_path: Path) -> None:
    """By the command that the document has."""
    text = (REPO / "Documentation/applying.rst").read_text(encoding="utf-8")
    [command] = re.findall(r"(?m)^\t(ours=.*\n(?:\t.*\n)*\tgit rebase .* BASE)$", text)
    repo = tmp_path / "repo"
    git(tmp_path, "init", "-q", repo)
    for number, author in enumerate(("B <b@invalid>", upstream.LAB, "Zoë <z@invalid>", upstream.LAB)):
        (repo / str(number)).write_text("x")
        git(repo, "add", "-A")
        git(repo, "commit", "-q", "--author", author, "-m", author)
    subprocess.run(["bash", "-ec", command.replace("BASE", "HEAD~3")], cwd=repo, check=True,
                   env={**nobody(), "GIT_SEQUENCE_EDITOR": "true", "PATH": os.environ["PATH"]},
                   capture_output=True)
    assert git(repo, "log", "--reverse", "--format=%an").split() == ["B", "A", "Zoë", "A"]
