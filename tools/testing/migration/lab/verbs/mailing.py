# SPDX-License-Identifier: GPL-2.0
"""Writes what a kernel gets as it is mailed: one series a subject, each in a folder of its own.

    fixes       queue/<base>, with the reports
    selftests   and what else queue/tests/series names as a part: hugetlb, device and so on
    stable      the fixes of each stable branch, a folder a branch
    all         for mainline, each of its parts, a folder a part
    ltp         queue/ltp: tests for LTP, which is no kernel

The cover letter of a part is queue/tests/cover-letter.<part>.  A line `#after <part>` in it says
that the patches need those of another part.  What is known of the tree goes to its end: its
commit, and the patches that have to be there first.

queue/tests/changes.<part> begins a second version, and changes.fixes.<base> one of the fixes of a
stable branch.  It has the newest version first:

    v2:
    - what is another now
    - 0024: what is another in the patch of that number in the queue

All of it goes to the letter, and what is of a patch also below the `---` of that one.
"""

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.guest import ltp
from lab.kernel import testseries, variant
from lab.paths import REPO, scratch_dir
from lab.verbs import series, upstream

FIXES, ALL, STABLE = "fixes", "all", "stable"
# Whoever knows hugetlb, as MAINTAINERS of mainline says: that of an old tree names others.
STABLE_RECIPIENTS = REPO / "queue" / "recipients"
_LTP = ("--to=ltp@lists.linux.it",)
RECIPIENTS = "recipients"
_NOT_YET = "[ There is no such commit upstream yet. ]\n\n"


@dataclass(frozen=True)
class Ground:
    """The kernel tree that the patches are for."""

    tree: Path
    commit: str     # "" where git does not keep it

    def maintainers(self) -> Path:
        return self.tree / "scripts" / "get_maintainer.pl"


def parts(base: str) -> list[str]:
    """What there is to be mailed for a base."""
    return [FIXES, *(testseries.parts() if base in testseries.names() else [])]


def ground(tree: Path, touched: Sequence[str] = ()) -> Ground:
    """A kernel tree, with its commit.  LabError where `touched` are not as that has them."""
    top = _git(tree, "rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != tree.resolve():
        return Ground(tree, "")
    if changed := _git(tree, "status", "--porcelain", "--untracked-files=no", "--", *touched):
        raise LabError(f"{tree} has changes that are in no commit ({changed.split()[-1]}): commit "
                       "or remove them, for the series is to name the commit that it is for")
    return Ground(tree, _git(tree, "rev-parse", "HEAD"))


def to_apply(patches: Sequence[Path], tree: Path | None) -> str:
    """The commands that apply these patches to a tree, or to one that the reader knows.

    git am wants a tree that git keeps, and who has unpacked a source has none.
    """
    out = patches[0].parent
    numbers = "000[1-9]" if len(patches) < 10 else "{000[1-9],00[1-9]?}"
    command = f"git am -s {out}/{numbers}-*.patch"
    if not tree:
        return f"To apply it, with your sign-off:  {command}\n"
    top = _git(tree, "rev-parse", "--show-toplevel")
    first = "" if top and Path(top).resolve() == tree.resolve() and _git(tree, "rev-parse", "HEAD") \
        else f"First let git keep the tree:      cd {tree} && git init -q && git add -Af && " \
             "git commit -qm released\n"
    return f"{first}To apply it, with your sign-off:  cd {tree} && {command}\n"


def write(base: str, out: Path, part: str, on: Ground | None = None,
          clone: upstream.Clone | None = None) -> list[series.Series]:
    """Write the series that `part` names to `out`, or each to a folder there.

    What is a commit of mainline is written as that is in `clone`, if there is one.  LabError where
    there is no such part or commit, or a folder holds patches already.
    """
    if part == ltp.NAME:
        return [_for_ltp(out, on)]
    if part == STABLE:
        # Who keeps a branch takes what is for its last release.
        last = {series.branch(name): name for name in series.queues()}
        found = {name: _mails(name, FIXES, clone) for branch, name in last.items() if branch}
        return [_one(name, out / series.branch(name), FIXES, None, mails)
                for name, mails in found.items()]
    if base not in series.queues():
        raise LabError(f"no series for {base}: there are {', '.join(series.queues())}")
    have = parts(base)
    if part == ALL:
        each = {name: _mails(base, name, clone) for name in have}
        return [_one(base, out / name, name, on, mails) for name, mails in each.items()]
    if part not in have:
        raise LabError(f"SERIES={part}: for {base} there are {', '.join([*have, ALL, STABLE, ltp.NAME])}")
    return [_one(base, out, part, on, _mails(base, part, clone))]


def patches(base: str, part: str) -> list[tuple[str, str]]:
    """The patches of a part, as file name and whole mail."""
    if part != FIXES:
        return [(name, series.recorded(text, name))
                for name, text in testseries.patches(base, part=part)]
    found = [(path.name, path.read_text(encoding="utf-8")) for path in variant.series(base)]
    if series.branch(base):
        return found
    # Where it goes to mainline, this says nothing.
    return [(name, text.replace(_NOT_YET, "", 1)) for name, text in found]


def first(base: str, part: str) -> list[str]:
    """The parts that have to be applied before this one."""
    letter = letter_of(base, part)
    text = letter.read_text(encoding="utf-8") if letter.exists() else ""
    found = re.findall(r"(?m)^#after (\S+)$", text)
    if wrong := set(found) - set(parts(base)):
        raise LabError(f"{letter}: #after {min(wrong)}: there is no such part")
    return found


def letter_of(base: str, part: str) -> Path:
    """The cover letter of a part, which need not be there."""
    if part == FIXES and series.branch(base):
        return series.COVER
    return testseries.COVER.with_name(f"{testseries.COVER.name}.{part}")


def _mails(base: str, part: str, clone: upstream.Clone | None) -> list[tuple[str, str]]:
    return series.restored(base, patches(base, part), clone)


def _one(base: str, out: Path, part: str, on: Ground | None, mails: list[tuple[str, str]]
         ) -> series.Series:
    needs = first(base, part)
    end = ""
    if on and on.commit:
        end = f"\nbase-commit: {on.commit}\n"
    elif not series.branch(base):
        end = f"\nbase: Linux {base}\n"
    for need in needs:
        end += "".join(f"prerequisite-patch-id: {_patch_id(text)}\n"
                       for _name, text in patches(base, need))
    told = series.reports(base) if part == FIXES else {}
    made = series.put(base, out, mails, letter_of(base, part), told, _version(base, part, mails),
                      end)
    if on and on.maintainers().is_file():
        before = [text for need in needs for _name, text in patches(base, need)]
        lines = _recipients(on, before, mails)
    else:
        lines = []
    if series.branch(base) and part == FIXES:
        known = STABLE_RECIPIENTS.read_text(encoding="utf-8").split()
        # One to whom it goes gets no copy.
        sent = {line.partition("=")[2] for line in known}
        lines = [*known, *(line for line in [*lines, *_authors(mails)]
                           if line.partition("=")[2] not in sent)]
        lines = list(dict.fromkeys(lines))
    if lines:
        (out / RECIPIENTS).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return made


def _authors(mails: Sequence[tuple[str, str]]) -> list[str]:
    """Options of git send-email, for who wrote upstream what is in these patches."""
    senders = [found[1] for _name, text in mails
               if upstream.commit_of(text) and not upstream.of_lab(text)
               and (found := re.search(r"(?m)^From: .*<(\S+@\S+)>$", text))]
    return [f"--cc={address}" for address in senders]


def _for_ltp(out: Path, on: Ground | None) -> series.Series:
    """The series for LTP; `on` is a tree of it."""
    end = f"\nbase-commit: {on.commit}\n" if on and on.commit else ""
    made = series.put(ltp.NAME, out, ltp.patches(), ltp.COVER, {}, end=end)
    (out / RECIPIENTS).write_text("".join(f"{line}\n" for line in _LTP), encoding="utf-8")
    return made


def _version(base: str, part: str, mails: Sequence[tuple[str, str]]) -> series.Version:
    """The version of a part, and what is said of the versions before."""
    own = f".{base}" if part == FIXES and series.branch(base) else ""
    path = testseries.ROOM / f"changes.{part}{own}"
    if not path.exists():
        return series.FIRST
    text = path.read_text(encoding="utf-8").strip()
    numbers = [int(number) for number in re.findall(r"(?m)^v(\d+):$", text)]
    if not numbers or numbers != list(range(numbers[0], 1, -1)) or not text.startswith("v"):
        raise LabError(f"{path}: sections v3:, v2: are wanted, the newest first, down to v2")
    sections = []
    for number, said in zip(numbers, re.split(r"(?m)^v\d+:$", text)[1:]):
        items = re.split(r"(?m)^(?=- )", said.strip())
        # Each item with the lines that go on, less the line feed at its end.
        sections.append((number, tuple(item.strip() for item in items if item.strip())))
    have = {name[:4] for name, _text in mails}
    named = {one[1] for _number, items in sections for item in items
             if (one := re.match(r"- (\d{4}): ", item))}
    if wrong := sorted(named - have):
        raise LabError(f"{path}: - {wrong[0]}: there is no such patch in {part}")
    return series.Version(numbers[0], tuple(sections))


def _patch_id(mail: str) -> str:
    done = subprocess.run(["git", "patch-id", "--stable"], input=mail, text=True, cwd="/",
                          encoding="utf-8", capture_output=True, check=False)
    if done.returncode != 0 or not done.stdout:
        raise LabError(f"git patch-id failed: {done.stderr.strip()}")
    return done.stdout.split()[0]


def _recipients(on: Ground, before: Sequence[str], mails: Sequence[tuple[str, str]]) -> list[str]:
    """Options of git send-email, as the tree's MAINTAINERS says with what the patches add to it."""
    with scratch_dir("lab-mail-") as work:
        file = work / "MAINTAINERS"
        file.write_bytes((on.tree / "MAINTAINERS").read_bytes())
        for text in [*before, *(text for _name, text in mails)]:
            done = subprocess.run(["git", "apply", "--include=MAINTAINERS", "-"], input=text,
                                  text=True, encoding="utf-8", cwd=work, capture_output=True,
                                  check=False, env=_nowhere(work))
            if done.returncode != 0:
                raise LabError(f"MAINTAINERS of {on.tree} does not take the patches: "
                               f"{done.stderr.strip()}")
        names = []
        for name, text in mails:
            (work / name).write_text(text, encoding="utf-8")
            names.append(name)

        def ask(*words: str) -> list[str]:
            done = subprocess.run(
                ["perl", str(on.maintainers()), "--no-tree", "--no-git", "--no-git-fallback",
                 "--no-rolestats", "--no-n", "--mpath", str(file), *words, *names], cwd=work,
                text=True, encoding="utf-8", capture_output=True, check=False)
            if done.returncode != 0:
                raise LabError(f"{on.maintainers()} failed: {done.stderr.strip()}")
            return [line for line in done.stdout.splitlines() if "@" in line]

        to = ask("--no-l", "--no-r")
        return [*(f"--to={one}" for one in to),
                *(f"--cc={one}" for one in ask() if one not in to)]


def _nowhere(folder: Path) -> dict[str, str]:
    """An environment in which a folder is in no repository."""
    return {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}


def _git(tree: Path, *words: str) -> str:
    """What git says of a tree; nothing where it is none of git's."""
    done = subprocess.run(["git", "-C", str(tree), *words], text=True, encoding="utf-8",
                          capture_output=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
