# SPDX-License-Identifier: GPL-2.0
"""What of this repository decides what a run shows, as hashes: a record whose hashes are not those
of today speaks of other tests, or of other kernels, than there are now."""

import hashlib
import math
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from lab.arch import Arch
from lab.defect import Defect
from lab.guest import qemu, selftest
from lab.judge.summary import Provenance
from lab.kernel import variant
from lab.paths import REPO

# Of C: a string or a character, which may hold what looks like a comment; or blanks and comments.
_C_WORDS = re.compile(
    rb"""("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|(?:\s|/\*.*?\*/|//[^\n]*)+""", re.DOTALL)


# Of a patch: the hash of a file, where a hunk is, and a line that is blank or nothing but a comment.
_NOT_CODE = re.compile(
    rb"(?m)^(?:index .*|@@ -.*|"
    rb"[-+ ][ \t]*(?:/\*.*\*/|/\*(?:(?!\*/).)*|\*(?: .*)?|\*/|))(?:\n|$)")


# Between the name of a list of patches and the last of them that was used.
_PART = ", patches 1 to "


def of_run(arch: Arch, tests: Iterable[str], hows: Iterable[str], rules: Iterable[Path],
           others: Sequence[Path] = ()) -> Provenance:
    """The provenance of a run that begins now.

    `tests` are its selftests, or `others` the files that other tests are made of.  `hows` is how
    its kernels were made, as their variants say, and `rules` what they were made with besides
    patches.
    """
    lists = _lists(hows)
    commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain")
    return Provenance(commit, None if changes is None else bool(changes), qemu.version(arch),
                      _hash(others) if others else selftests(tests), queue(lists, rules), lists)


def stale(made: Provenance, tests: Iterable[str], rules: Iterable[Path]) -> str:
    """Why what was made so says nothing of what there is now; "" if it does."""
    if made.selftests is None or made.queue is None:
        return "with which tests and patches it was made was not recorded"
    changed = [name for name, then, now in (
        ("the selftests", made.selftests, selftests(tests)),
        ("the patches or rules", made.queue, queue(made.series, rules))) if then != now]
    return f"{' and '.join(changed)} have changed since" if changed else ""


def rules_of(one: Defect) -> list[Path]:
    """What makes the kernels of a defect, besides patches: its rules, and files that both get."""
    return [*(path for path in one.folder.glob("*.cocci") if path.name != "audit.cocci"),
            *(REPO / name for name in one.kernel.add)]


def selftests(tests: Iterable[str]) -> str:
    """A hash of the sources of the selftests `tests`, and of what of this repository they use."""
    return _hash(selftest.used_by(tests))


def queue(lists: Iterable[str], rules: Iterable[Path]) -> str:
    """A hash of the patches in `lists`, such as "queue/6.1/series", and of `rules`.

    Of "queue/6.1/series, patches 1 to 3" the rest may change.
    """
    patches: list[Path] = []
    for one in lists:
        name, _, last = one.partition(_PART)
        all_of_it = variant.series(Path(name).parent.name, Path(name).name)
        patches += all_of_it[:int(last)] if last else all_of_it
    return _hash(patches + sorted(rules))


def _lists(hows: Iterable[str]) -> list[str]:
    """Of which lists of patches kernels were made, and of how much of each."""
    most: dict[str, float] = {}
    for how in hows:
        for base, form, last in re.findall(
                r"\bqueue/([^/ ]+)(?:/(\S+))? \((?:patches 1 to (\d+)\))?", how):
            name = f"queue/{base}/{form or 'series'}"
            most[name] = max(most.get(name, 0), int(last) if last else math.inf)
    return [name if last == math.inf else f"{name}{_PART}{last}"
            for name, last in sorted(most.items())]


def _hash(paths: Iterable[Path]) -> str:
    """Of what the files say, and of their order; their folders may move."""
    key = hashlib.sha256()
    for path in paths:
        key.update(hashlib.sha256(_decides(path)).digest())
    return key.hexdigest()


def _decides(path: Path) -> bytes:
    """What of a file decides what a run shows: of a patch what it changes, and of C all but
    comments and blanks.  A changelog or a comment that is put better makes no record stale."""
    held = path.read_bytes()
    if path.suffix == ".patch":
        start = held.find(b"\ndiff --git ")
        kept, _, _ = held[start:].partition(b"\n-- \n")
        return _NOT_CODE.sub(b"", kept).rstrip() if start >= 0 else held
    if path.suffix in (".c", ".h"):
        return _C_WORDS.sub(lambda found: found[1] or (b"\n" if b"\n" in found[0] else b" "), held)
    return held


def git(*words: str) -> str | None:
    """What git says of this repository; None where it is none."""
    done = subprocess.run(["git", "-C", str(REPO), *words], text=True, capture_output=True,
                          stdin=subprocess.DEVNULL, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
