# SPDX-License-Identifier: GPL-2.0
"""Writes what a kernel gets as it is mailed: one series a subject, each in a folder of its own.

    fixes       queue/<base>, with the reports
    selftests   and what else queue/tests/series names as a part: hugetlb, device and so on
    stable      the fixes of each stable branch, a folder a branch
    all         for mainline, each of its parts, a folder a part
    ltp         queue/ltp: tests for LTP, which is no kernel

Fixes for mainline have little to do with each other: each names in its headers who gets it, and the
letter goes to all of them.  Any other series goes to one list of recipients.

A report that goes to no list is private, and so are the patches that mend what it is about, in each
queue.  Then all fixes are in the folder `private`, in their order and under their letter, to be
applied.  Those that may go to lists are beside it, as a series of their own with a letter that says
nothing of the others.  A patch that goes out after a private one, or not without it, as the series
of its queue says, is held back with it, and so is the whole of a branch that has ended: what is
sent of it goes to who keeps that.  A part with a test that shows what is private is written, and
not to be mailed.  Where a report names a list, all of this is over.

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
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import base as bases, defect
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
# Nobody makes releases of these any more, and stable@ takes nothing for them.
ENDED = ("2.6.34", "4.4", "4.9", "4.14", "4.18", "4.19", "5.4")
_TO_STABLE = "--to=stable@vger.kernel.org"
# What a patch says that some releases of its branch have, and that all later ones have.
_HAVE, _HAVE_ALL = re.compile(r"leave\s+it\s+out|not\s+to\s+get\s+it\s+again"), \
    re.compile(r"\d+\.\d+\.\d+\s+and\s+later\s+have\s+this")
_KSELFTEST = "--cc=linux-kselftest@vger.kernel.org"
# The roles of get_maintainer.pl, other than those of reviewers and lists.
_KEEPS = re.compile(r"(?:^|,)(?:maintainer|supporter|odd fixer|\w+ minder|chief penguin)\b")


@dataclass(frozen=True)
class Ground:
    """The kernel tree that the patches are for."""

    tree: Path
    commit: str     # "" where git does not keep it

    def maintainers(self) -> Path:
        return self.tree / "scripts" / "get_maintainer.pl"

    def asked(self, base: str) -> bool:
        """Whether its MAINTAINERS says who gets the patches for a base.

        Only for mainline: in an old tree, people have other addresses, or are long gone.  And old
        scripts cannot read a MAINTAINERS that has what the patches add.
        """
        return not series.branch(base) and self.maintainers().is_file() and \
            '"mpath' in self.maintainers().read_text(encoding="utf-8", errors="replace") \
            .replace("'", '"')


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


def unknown(base: str, part: str) -> LabError | None:
    """The error where a base, which may be "", has no such part; None where it has."""
    alone = (STABLE, ltp.NAME)
    if part in alone:
        return None if not base else LabError(
            f"SERIES={part} is for {'all branches' if part == STABLE else 'no kernel'}: leave "
            "BASE= and KERNEL= out")
    if not base:
        return None
    if base not in series.queues():
        return LabError(f"no series for {base}: there are {', '.join(series.queues())}")
    have = [*parts(base), ALL]
    return None if part in have else LabError(
        f"SERIES={part}: for {base} there are {', '.join(have)}; without BASE= and KERNEL= "
        f"{' and '.join(alone)}")


def held(base: str) -> dict[str, str]:
    """The fixes for a base that must not go to a list, by file name, and why."""
    queue = variant.series(base)
    back, later = series.kept_back(), variant.after(base)
    found = dict[str, str]()
    for path in queue:
        [subject] = series.subjects([path.read_text(encoding="utf-8")])
        if subject in back:
            found[path.name] = back[subject]
    if not found:
        return {}
    size = 0
    # One that is held back may hold others, before it or behind it.
    while size != len(found):
        size, numbers = len(found), {name[:4] for name in found}
        for path in queue:
            needs = [one for one in later.get(path.name, ()) if one in numbers]
            if path.name not in found and needs:
                word = "after" if needs[0] < path.name[:4] else "with"
                found[path.name] = f"goes out {word} {' and '.join(needs)}"
    if ended(base):
        for path in queue:
            found.setdefault(path.name, f"{series.branch(base)} has ended, and it goes to who "
                                        "keeps that")
    return {path.name: found[path.name] for path in queue if path.name in found}


def shows(base: str, part: str) -> dict[str, str]:
    """Of a part, the tests that show what is private, each with the name of that; the tests of a
    part that has to be there first count, too."""
    back = set(series.kept_back().values())
    by_test = {test: name for name in sorted(back) for test in defect.load(name).show.selftests}
    return {Path(path).stem: by_test[Path(path).stem]
            for one in (*first(base, part), part) if one != FIXES
            for patch in testseries.files(base, part=one)
            for path in testseries.adds(patch) if Path(path).stem in by_test}


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


def ended(base: str) -> bool:
    """Whether the branch of a base has ended."""
    return bases.branch(base) in ENDED


def left_out(mail: str, by: re.Pattern[str] = _HAVE) -> bool:
    """Whether some releases of the branch have what is in this patch."""
    return bool(by.search(mail.partition("\ndiff --git ")[0]))


def write(base: str, out: Path, part: str, on: Ground | None = None,
          clone: upstream.Clone | None = None, say: Callable[[str], None] = lambda _name: None,
          without: Collection[str] = (), hold: Mapping[str, str] | None = None
          ) -> list[series.Series]:
    """Write the series that `part` names to `out`, or each to a folder there; `say` is told which.

    What is a commit of mainline is written as that is in `clone`, if there is one.  The patches
    `without`, by name, are left out, and a part that has no others is not written.  `hold` has the
    fixes that are for no list, if more are than held() says.  LabError where there is no such part
    or commit, or a folder holds patches already.
    """
    if wrong := unknown(base, part):
        raise wrong
    with series.whole(out) as work:
        made = _write(base, work, part, on, clone, say, without, hold)
        return [one.moved(work, out) for one in made]


def _write(base: str, out: Path, part: str, on: Ground | None, clone: upstream.Clone | None,
           say: Callable[[str], None], without: Collection[str],
           hold: Mapping[str, str] | None) -> list[series.Series]:
    if part == ltp.NAME:
        return [_for_ltp(out, on)]
    if part == STABLE:
        # Who keeps a branch takes what is for its last release.
        last = {series.branch(name): name for name in series.queues()}
        found = {name: [one for one in _mails(name, FIXES, clone)
                        if not left_out(one[1], _HAVE_ALL)]
                 for branch, name in last.items() if branch}
        return [_one(name, out / series.branch(name), FIXES, None, mails)
                for name, mails in found.items()]
    have = parts(base) if part == ALL else [part]
    each = {name: [one for one in _mails(base, name, clone) if one[0] not in without]
            for name in have}
    written = []
    for name, mails in each.items():
        if mails:
            say(name)
            written.append(_one(base, out / name if part == ALL else out, name, on, mails, hold))
    return written


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


def commits(base: str, form: str, clone: upstream.Clone) -> None:
    """LabError where a clone lacks a commit that a patch of a queue is, or has another one."""
    queue = variant.series(base, f"series.{form}" if form else "series")
    series.restored(base, [(path.name, path.read_text(encoding="utf-8")) for path in queue], clone)


def _mails(base: str, part: str, clone: upstream.Clone | None) -> list[tuple[str, str]]:
    return series.restored(base, patches(base, part), clone)


def _one(base: str, out: Path, part: str, on: Ground | None, mails: list[tuple[str, str]],
         hold: Mapping[str, str] | None = None) -> series.Series:
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
    if part == FIXES and ended(base) and len(mails) > 1:
        end = f"\n{series.branch(base)} has ended.  This is for those who keep it.\n{end}"
    letter = letter_of(base, part)
    # That of mainline says which patch does what by its number.
    if part == FIXES and not series.branch(base) and len(mails) < len(patches(base, part)):
        letter = series.PUBLIC
    hold = (hold or held(base)) if part == FIXES else {}
    made = series.put(base, out, mails, letter, told, _version(base, part), end,
                      hold={name: hold[name] for name, _text in mails if name in hold})
    mailed = made.mailed()
    if not mailed:
        return made
    mails = [one for one in mails if one[0] not in hold]
    lines: list[str] = []
    if on and on.asked(base):
        before = [text for need in needs for _name, text in patches(base, need)]
        apart = part == FIXES and not series.branch(base)
        groups = [[one] for one in mails] if apart else [mails]
        asked = _recipients(on, before, groups)
        lines = [line for line in asked[0] if all(line in one for one in asked)]
        if apart:
            _address(mailed, asked, lines)
    elif series.branch(base) or on and on.maintainers().is_file():
        known = STABLE_RECIPIENTS.read_text(encoding="utf-8").split()
        if part != FIXES or not series.branch(base) or ended(base):
            known.remove(_TO_STABLE)
        if any("\n+++ b/tools/testing/" in text for _name, text in mails):
            known.append(_KSELFTEST)
        # One to whom it goes gets no copy.
        sent = {line.partition("=")[2] for line in known}
        lines = [*known, *(line for line in _authors(mails)
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


def _version(base: str, part: str) -> series.Version:
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
    have = {name[:4] for name, _text in patches(base, part)}
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


def _address(made: series.Series, asked: Sequence[Sequence[str]], common: Sequence[str]) -> None:
    """Write to the headers of each patch who gets it beside those who get all, and to the letter's
    who gets any."""
    union = list(dict.fromkeys(line for one in asked for line in one))
    # Who is to act on one of them is asked to look at the letter, too.
    union = [line for line in union if line.replace("--cc=", "--to=") not in union
             or line.startswith("--to=")]
    mails = [*zip(made.patches, asked), *([(made.cover, union)] if made.cover else [])]
    for path, lines in mails:
        head, empty, rest = path.read_text(encoding="utf-8").partition("\n\n")
        for word in ("To", "Cc"):
            option = f"--{word.lower()}="
            own = [line.removeprefix(option) for line in lines
                   if line.startswith(option) and line not in common]
            if own:
                head += f"\n{word}: " + ",\n ".join(own)
        path.write_text(head + empty + rest, encoding="utf-8")


def _recipients(on: Ground, before: Sequence[str], groups: Sequence[Sequence[tuple[str, str]]]
                ) -> list[list[str]]:
    """Options of git send-email for each group of mails, as the tree's MAINTAINERS says with what
    the patches add to it."""
    with scratch_dir("lab-mail-") as work:
        file = work / "MAINTAINERS"
        file.write_bytes((on.tree / "MAINTAINERS").read_bytes())
        for text in [*before, *(text for mails in groups for _name, text in mails)]:
            done = subprocess.run(["git", "apply", "--include=MAINTAINERS", "-"], input=text,
                                  text=True, encoding="utf-8", cwd=work, capture_output=True,
                                  check=False, env=_nowhere(work))
            if done.returncode != 0:
                raise LabError(f"MAINTAINERS of {on.tree} does not take the patches: "
                               f"{done.stderr.strip()}")
        for mails in groups:
            for name, text in mails:
                (work / name).write_text(text, encoding="utf-8")
        return [_asked(on, work, [name for name, _text in mails]) for mails in groups]


def _asked(on: Ground, work: Path, names: Sequence[str]) -> list[str]:
    """What get_maintainer.pl says of these patches in the folder `work`."""
    done = subprocess.run(
        ["perl", str(on.maintainers()), "--no-tree", "--no-git", "--no-git-fallback",
         "--no-rolestats", "--roles", "--no-n", "--mpath", str(work / "MAINTAINERS"), *names],
        cwd=work, text=True, encoding="utf-8", capture_output=True, check=False)
    if done.returncode != 0:
        raise LabError(f"{on.maintainers()} failed: {done.stderr.strip()}")
    # One who keeps it is asked, and who reviews it, or a list, gets a copy.
    said = re.findall(r"(?m)^(\S+@\S+) \((.*)\)$", done.stdout)
    return [*(f"--to={who}" for who, role in said if _KEEPS.search(role)),
            *(f"--cc={who}" for who, role in said if not _KEEPS.search(role))]


def _nowhere(folder: Path) -> dict[str, str]:
    """An environment in which a folder is in no repository."""
    return {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}


def _git(tree: Path, *words: str) -> str:
    """What git says of a tree; nothing where it is none of git's."""
    done = subprocess.run(["git", "-C", str(tree), *words], text=True, encoding="utf-8",
                          capture_output=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
