# SPDX-License-Identifier: GPL-2.0
"""Writes the patches of a queue as a series with a cover letter, to be mailed or applied."""

import re
import subprocess
import textwrap
from dataclasses import dataclass
from pathlib import Path

from lab import variant
from lab.errors import LabError
from lab.paths import REPO
from lab.source import Source

COVER = REPO / "queue" / "cover-letter"
# The first patch that is about shared tables; what comes before it is needed by it.
_FIRST = "mm-add-range_in_vma"


@dataclass(frozen=True)
class Series:
    """What was written."""

    cover: Path | None          # a patch that is alone needs none
    patches: tuple[Path, ...]


def write(base: str, out: Path) -> Series:
    """Write queue/<base> to the folder `out`, as `git format-patch --cover-letter` would.

    LabError where there is no such queue, and where `out` holds patches already: two series in one
    folder would be mailed together.
    """
    patches = variant.series(base)
    if not patches:
        have = sorted((path.name for path in variant.QUEUE.iterdir() if path.is_dir()),
                      key=lambda name: [int(part) for part in name.split(".")])
        raise LabError(f"no queue/{base}: there are {', '.join(have) or 'none'}")
    out.mkdir(parents=True, exist_ok=True)
    if old := sorted(out.glob("*.patch")):
        raise LabError(f"{out} holds {old[0].name} already: name an empty folder with O=")
    texts = [patch.read_text(encoding="utf-8") for patch in patches]
    total = len(patches)
    written = []
    for number, (patch, text) in enumerate(zip(patches, texts), 1):
        dest = out / patch.name
        tag = f"[PATCH {base} {number}/{total}]" if total > 1 else f"[PATCH {base}]"
        dest.write_text(_subject(text, tag), encoding="utf-8")
        written.append(dest)
    if total == 1:
        return Series(None, tuple(written))
    cover = out / "0000-cover-letter.patch"
    cover.write_text(_cover(base, patches, texts), encoding="utf-8")
    return Series(cover, tuple(written))


def check(source: Source) -> None:
    """LabError where a patch of the source's queue does not apply to it: which, where, and why."""
    patches = variant.series(source.base.name)
    if not patches:
        raise LabError(f"no queue for {source.version} (base {source.base.name})")
    variant.queue_diff(source, patches)


def subjects(texts: list[str]) -> list[str]:
    """The subject of each patch, on one line and without the tag."""
    found = []
    for text in texts:
        head = text.split("\n\n", 1)[0]
        subject = re.search(r"(?ms)^Subject: \[PATCH\] (.*?)(?=^\S|\Z)", head)
        if not subject:
            raise LabError("a patch has no line Subject: [PATCH]")
        found.append(" ".join(subject[1].split()))
    return found


def _subject(text: str, tag: str) -> str:
    """The mail with `tag` in its subject, folded as mail headers are."""
    line = f"Subject: {tag} {subjects([text])[0]}"
    folded = "\n ".join(textwrap.wrap(line, 74))
    return re.sub(r"(?ms)^Subject: .*?(?=^\S|^$)", lambda _found: folded + "\n", text, count=1)


def _cover(base: str, patches: list[Path], texts: list[str]) -> str:
    title, body = COVER.read_text(encoding="utf-8").split("\n\n", 1)
    before = next((number for number, patch in enumerate(patches)
                   if re.sub(r"^\d+-", "", patch.stem) == _FIRST), 0)
    shortlog = "\n".join(f"  {number}. {subject}"
                         for number, subject in enumerate(subjects(texts), 1))
    how_many = ("patch is" if before == 1 else
                f"{('', '', 'two', 'three', 'four')[before]} patches are")
    body = body.format(base=base, shortlog=shortlog, prerequisites=how_many)
    head = texts[0].split("\n\n", 1)[0]
    sender, date = (re.search(rf"(?m)^{name}: (.+)$", head) for name in ("From", "Date"))
    if not sender or not date:
        raise LabError(f"{patches[0].name} has no From: or no Date:")
    subject = "\n ".join(textwrap.wrap(f"Subject: [PATCH {base} 0/{len(texts)}] {title.strip()}",
                                       74))
    return (f"From {'0' * 40} Mon Sep 17 00:00:00 2001\nFrom: {sender[1]}\nDate: {date[1]}\n"
            f"{subject}\n\n{body.rstrip()}\n\n{_diffstat(texts)}")


def _diffstat(texts: list[str]) -> str:
    """Lines added and removed by all patches together, a file a line."""
    done = subprocess.run(["git", "apply", "--numstat", "-"], input="".join(texts),
                          text=True, encoding="utf-8", capture_output=True, check=False)
    if done.returncode != 0:
        raise LabError(f"git apply --numstat failed: {done.stderr.strip()}")
    sums: dict[str, tuple[int, int]] = {}
    for line in done.stdout.splitlines():
        added, removed, name = line.split("\t")
        have = sums.get(name, (0, 0))
        sums[name] = (have[0] + int(added), have[1] + int(removed))
    width = max(map(len, sums))
    lines = [f" {name:{width}} | {added:3} + {removed:3} -"
             for name, (added, removed) in sorted(sums.items())]
    return "\n".join([*lines, f" {len(sums)} files changed", ""])
