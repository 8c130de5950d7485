# SPDX-License-Identifier: GPL-2.0
"""b4 prep takes each series as it is mailed, and has nothing to say against sending it.

That of Debian 12 has no --check, so it is Debian 13's, unpacked in the cache: it asks for no other
libraries.  What needs the network is left out.  Who sends is the author of the patches here, as
Documentation/applying.rst says.
"""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import FULL, debian_tree
from trees import git, released

from lab import arch
from lab.errors import NoSource
from lab.kernel import apt, testseries
from lab.progress import Progress
from lab.verbs import mailing

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not FULL, reason="downloads b4: with FULL=1")]

BASES = testseries.names()
CASES = [(base, part) for base in BASES for part in mailing.parts(base)]
SCRIPTS = re.compile(r"scripts/(?:checkpatch\.pl|const_structs\.checkpatch|spelling\.txt|"
                     r"get_maintainer\.pl)$|Documentation/dev-tools/checkpatch\.rst$|"
                     # By these it knows the top of a kernel.
                     r"(?:COPYING|CREDITS|Kbuild|MAINTAINERS|Makefile|README)$|"
                     r"(?:arch|drivers|fs|include|init|ipc|kernel|lib)/"
                     r"(?:Kconfig|Kbuild|Makefile)$")
# There is no history here to find commits in.  That MAINTAINERS has all files, whatever the patch
# that adds them changes there, is tested in test_testseries.py.
IGNORED = "UNKNOWN_COMMIT_ID,GIT_COMMIT_ID,FILE_PATH_CHANGES"
WHO = {"GIT_AUTHOR_NAME": "A B", "GIT_AUTHOR_EMAIL": "a@example.org",
       "GIT_COMMITTER_NAME": "A B", "GIT_COMMITTER_EMAIL": "a@example.org"}
B4 = Callable[..., str]


@pytest.fixture(scope="module")
def b4(tmp_path_factory: pytest.TempPathFactory) -> B4:
    """Run b4 in a repository; what it says."""
    try:
        files = apt.unpacked("b4", arch.load("x86_64"), Progress(), "trixie") / "usr"
    except NoSource as err:
        pytest.skip(f"no b4 that can check: {err}")
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text("[user]\n\tname = A B\n\temail = a@example.org\n")

    def run(repo: Path, *words: str, **more: str) -> str:
        done = subprocess.run(
            ["/usr/bin/python3", files / "bin/b4", *words], cwd=repo, text=True,
            capture_output=True, check=False, stdin=subprocess.DEVNULL,
            env={**os.environ, **WHO, **more, "HOME": str(home), "LC_ALL": "C.UTF-8",
                 "PYTHONPATH": str(files / "lib/python3/dist-packages")})
        assert done.returncode == 0, done.stdout + done.stderr
        return re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)

    return run


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Per base: a repository of the released files that a series changes, and the scripts."""
    made: dict[str, Path] = {}

    def get(base: str) -> Path:
        if base not in made:
            touched = {path for part in mailing.parts(base)
                       for _name, mail in mailing.patches(base, part)
                       for path in re.findall(r"(?m)^--- a/(\S+)$", mail)}
            repo = released(debian_tree(base), tmp_path_factory.mktemp(base) / "linux",
                            lambda path: path in touched or bool(SCRIPTS.match(path)))
            git(repo, "init", "-q", "-b", "master")
            git(repo, "add", "-A", "-f")
            git(repo, "commit", "-qm", "released")
            git(repo, "config", "b4.prep-perpatch-check-cmd",
                f"scripts/checkpatch.pl -q --terse --strict --no-summary --mailback --showfile "
                f"--ignore {IGNORED}")
            # Who depends on a series that is nowhere yet cannot have that looked up.
            git(repo, "config", "b4.prep-pre-flight-checks", "disable-needs-checking-deps")
            made[base] = repo
        git(made[base], "checkout", "-q", "-f", "master")
        return made[base]

    return get


def prepared(repo: Path, base: str, part: str, folder: Path, b4: B4) -> list[Path]:
    """A branch of b4 with a series, its letter and its recipients."""
    # On the released files: to MAINTAINERS it adds what it needs, too.
    [made] = mailing.write(base, folder / part, part, mailing.ground(repo))
    needs = [path for need in mailing.first(base, part)
             for path in mailing.write(base, folder / need, need)[0].patches]
    if needs:
        git(repo, "checkout", "-q", "-B", f"before-{part}")
        git(repo, "am", "-q", *needs)
    b4(repo, "prep", "-n", f"{part}-{folder.name.replace('_', '-')}", "-f",
       git(repo, "rev-parse", "--abbrev-ref", "HEAD").strip())
    for path in made.patches:
        mail = folder / "mail"
        mail.write_text(re.sub(r"(?m)^From: .+$", "From: A B <a@example.org>",
                               path.read_text(encoding="utf-8"), count=1))
        subprocess.run(["git", "am", "-q", "-s", mail], cwd=repo, check=True,
                       env={**os.environ, **WHO})
    lines = (folder / part / mailing.RECIPIENTS).read_text().splitlines()
    if made.cover:
        text = made.cover.read_text(encoding="utf-8")
        subject = re.sub(r"\n ", " ", text.partition("\nSubject: ")[2].split("\n\n")[0])
        title = subject.split("\n")[0].partition("] ")[2]
        letter = re.split(r"(?m)^ \S+ +\| +\d+ [+-]", text.split("\n\n", 1)[1])[0].strip()
    else:
        title, letter = "hugetlb: fixes", "No letter."
    trailers = "\n".join(re.sub(r"^--(to|cc)=", lambda one: f"{one[1].title()}: ", line)
                         for line in lines)
    (folder / "letter").write_text(f"{title}\n\n{letter}\n\n{trailers}\n", encoding="utf-8")
    b4(repo, "prep", "--edit-cover", GIT_EDITOR=f"cp {folder / 'letter'}",
       EDITOR=f"cp {folder / 'letter'}")
    return list(made.patches)


@pytest.mark.parametrize("base, part", CASES)
def test_b4_finds_nothing(base: str, part: str, pristine: Callable[[str], Path], tmp_path: Path,
                          b4: B4) -> None:
    repo = pristine(base)
    patches = prepared(repo, base, part, tmp_path, b4)
    said = b4(repo, "prep", "--check")
    assert f"Success: {len(patches)}, Warning: 0, Error: 0" in said, said
    info = dict(line.split(": ", 1) for line in b4(repo, "prep", "--show-info").splitlines())
    assert info["revision"] == "1" and info["cover-subject"].strip()
    for what in ("needs-editing", "needs-recipients", "needs-checking"):
        assert info[what] == "False", info
    # It would send what make series writes.
    b4(repo, "prep", "-p", str(tmp_path / "out"))
    written = sorted((tmp_path / "out").glob("*.patch"))
    # It puts the letter of a single patch below the `---` of that one.
    assert len(written) == len(patches) + (len(patches) > 1)
    for ours, theirs in zip(patches, written[-len(patches):]):
        assert diff(ours) == diff(theirs)


def diff(mail: Path) -> str:
    """The lines that a mail changes, by file."""
    text = mail.read_text(encoding="utf-8").partition("\n-- \n")[0]
    # What b4 has below a single patch.
    text = text.partition("\n---\nbase-commit: ")[0].rstrip("\n")
    # What is for several bases has less of what is around it.
    return "\n".join(line for line in text.partition("\ndiff --git ")[2].splitlines()
                     if line.startswith(("diff --git ", "+", "-")))


def test_what_is_wrong_is_found(pristine: Callable[[str], Path], tmp_path: Path, b4: B4) -> None:
    repo = pristine("7.3")
    prepared(repo, "7.3", "tracepoints", tmp_path, b4)
    path = repo / "include/trace/events/hugetlb_pmd.h"
    text = path.read_text(encoding="utf-8")
    assert "\n\tpid_t pid = 0;" in text
    path.write_text(text.replace("\n\tpid_t pid = 0;", "\n    pid_t pid = 0;"))
    subprocess.run(["git", "commit", "-q", "-a", "--amend", "--no-edit"], cwd=repo, check=True,
                   env={**os.environ, **WHO})
    said = b4(repo, "prep", "--check")
    assert "no spaces at the start of a line" in said and "Success: 0, Warning: 1" in said
