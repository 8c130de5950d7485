# SPDX-License-Identifier: GPL-2.0
"""make series: mails that git takes, with a cover letter, and words for a tree they do not fit."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import outside_make
from test_queue import released_tree

from lab import series, variant
from lab.base import load
from lab.errors import LabError
from lab.paths import REPO
from lab.source import Source

BASES = sorted(path.name for path in variant.QUEUE.iterdir() if path.is_dir())


def make(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "--no-print-directory", "series", *words], cwd=REPO, text=True,
                          env=outside_make(), capture_output=True, check=False)


def git(folder: Path, *words: str | Path) -> str:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_AUTHOR_NAME": "A",
                   "GIT_AUTHOR_EMAIL": "a@invalid", "GIT_COMMITTER_NAME": "A",
                   "GIT_COMMITTER_EMAIL": "a@invalid"}
    return subprocess.run(["git", "-C", folder, *words], env=environment, text=True,
                          capture_output=True, check=True).stdout


@pytest.mark.parametrize("base", BASES)
def test_every_queue_can_be_written(base: str, tmp_path: Path) -> None:
    made = series.write(base, tmp_path / "new" / "series")
    texts = [path.read_text(encoding="utf-8") for path in made.patches]
    total = len(texts)
    if total == 1:
        assert f"\nSubject: [PATCH {base}] " in texts[0]
    assert [path.name for path in made.patches] == [path.name for path in variant.series(base)]
    for number, (text, patch) in enumerate(zip(texts, variant.series(base)), 1):
        assert total == 1 or f"\nSubject: [PATCH {base} {number}/{total}] " in text
        # Nothing but the subject is another.
        body = patch.read_text(encoding="utf-8").split("\n\n", 1)[1]
        assert text.split("\n\n", 1)[1] == body
    # Patches that have nothing to do with each other have no cover letter.
    assert (made.cover is None) == (base in ("2.6.34", "5.10", "6.1"))
    if made.cover is None:
        return
    cover = made.cover.read_text(encoding="utf-8")
    assert f"\nSubject: [PATCH {base} 0/{total}] " in cover
    assert not re.search(r"[{}]", cover), "a placeholder is left"
    for subject in series.subjects([patch.read_text() for patch in variant.series(base)]):
        assert subject in cover
    assert cover.count("mm/hugetlb.c") == 1 and "mm/rmap.c" in cover
    assert max(len(line) for line in cover.splitlines()) <= 80


@pytest.mark.parametrize("base", BASES)
def test_git_reads_the_mails(base: str, tmp_path: Path) -> None:
    made = series.write(base, tmp_path)
    for path in made.patches:
        done = subprocess.run(["git", "mailinfo", "/dev/null", "/dev/null"], text=True,
                              input=path.read_text(encoding="utf-8"), capture_output=True,
                              check=True)
        assert "Author: " in done.stdout and "Subject: " in done.stdout


@pytest.mark.parametrize("base", BASES)
def test_git_am_takes_it(base: str, tmp_path: Path) -> None:
    """On the files of the released tree that it touches, with a sign-off."""
    tree = released_tree(base)
    made = series.write(base, tmp_path / "series")
    repo = tmp_path / "repo"
    names = {name for path in made.patches
             for name in re.findall(r"(?m)^--- a/(.+)$", path.read_text(encoding="utf-8"))}
    for name in names:
        (repo / name).parent.mkdir(parents=True, exist_ok=True)
        (repo / name).write_bytes((tree / name).read_bytes())
    git(tmp_path, "init", "-q", repo)
    git(repo, "add", "-A")
    git(repo, "commit", "-qm", "released")
    git(repo, "am", "-s", *made.patches)
    log = git(repo, "log", "--format=%s%n%b")
    assert log.count("Signed-off-by: A <a@invalid>") == len(made.patches)
    assert "\nmm: migration: " in f"\n{log}"


def test_the_front_door(tmp_path: Path) -> None:
    done = make("BASE=4.14", f"O={tmp_path}/s")
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/s/0000-cover-letter.patch\n" in done.stdout
    # All but the cover letter, of ten patches.
    assert f"git am -s {tmp_path}/s/{{000[1-9],00[1-9]?}}-*.patch" in done.stdout
    again = make("BASE=4.14", f"O={tmp_path}/s")
    assert again.returncode != 0
    assert "name an empty folder with O=" in again.stderr


@pytest.mark.parametrize("words, reason", [
    (["BASE=4.14"], "name an empty folder for the series with O="),
    (["O=/nonexistent/x"], "name a base with BASE="),
    (["BASE=2.6.35", "O=/nonexistent/x"], "2.6.35"),
    (["KERNEL=/nonexistent", "O=/nonexistent/x"], "/nonexistent"),
])
def test_errors_are_one_line(words: list[str], reason: str) -> None:
    done = make(*words)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make: ")]
    assert len(lines) == 1 and lines[0].startswith("error: ") and reason in lines[0]


def test_a_tree_that_has_a_patch_is_told_so(tmp_path: Path) -> None:
    """A vendor's tree: it names the patch, the place, and that its reverse applies."""
    tree = released_tree("4.14")
    copy = tmp_path / "linux"
    names = {name for path in variant.series("4.14")
             for name in re.findall(r"(?m)^--- a/(.+)$", path.read_text(encoding="utf-8"))}
    for name in names:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((tree / name).read_bytes())
    first = variant.series("4.14")[0]
    subprocess.run(["git", "apply", first], cwd=copy, check=True,
                   env={**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path)})
    vendor = Source(load("4.14"), "4.14.113", {}, "k", copy)
    with pytest.raises(LabError, match=rf"4.14/{first.name} does not apply to 4.14.113 at "
                                       r"mm/hugetlb.c, hunk \d of \d .*has it already"):
        series.check(vendor)
