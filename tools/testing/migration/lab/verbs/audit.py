# SPDX-License-Identifier: GPL-2.0
"""Says from a kernel's source alone which of the defects it has.  Builds nothing.

A defect's audit.cocci is run on the files that its [audit] section names, and prints what it finds,
a line each:

    EXISTS function file:line   code that the defect cannot do without
    SEEN function file:line     a function in which the protection may have to be
    NEEDS function file:line    a place that must be protected
    HAS function file:line      the protection of such a place

A rule that matches nothing may be one that coccinelle could not parse the code for, and silence
must not pass for safety.  So what the rules do not find is looked for in the text as well: a
function that is there in the text and that coccinelle does not see makes the answer "unknown".
"""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lab import base as bases, defect as defects
from lab.defect import Defect
from lab.errors import LabError
from lab.kernel import kconfig, spatch, variant
from lab.kernel.source import kernel_version
from lab.paths import REPO

VULNERABLE, PROTECTED = "VULNERABLE", "protected"
NOT_AFFECTED, UNKNOWN = "not affected", "unknown"

_LINE = re.compile(r"(EXISTS|SEEN|NEEDS|HAS) (\w+) (\S+):(\d+)")


@dataclass(frozen=True)
class Finding:
    """What a tree's source says about one defect."""

    defect: str
    status: str                     # one of the four above
    why: str                        # in words
    places: tuple[str, ...]         # "mm/rmap.c:1336 try_to_unmap_one"
    apply: tuple[str, ...]          # what mends it: patches of a queue, or upstream commits; none
                                    # where it is vulnerable: nobody has fixed it yet


def audit(tree: Path) -> tuple[str, list[Finding]]:
    """The version of the kernel in `tree`, and a finding a defect.  The tree is only read.

    LabError where it is no kernel tree, or where coccinelle is not installed.
    """
    version = kernel_version(tree)
    known = [defects.load(name) for name in defects.names()]
    with ThreadPoolExecutor(max_workers=2) as pool:
        found = list(pool.map(lambda one: look(tree, version, one),
                              [one for one in known if one.audit]))
    return version, found


def look(tree: Path, version: str, defect: Defect) -> Finding:
    """What the source of kernel `version` in `tree` says about `defect`."""
    rules = defect.audit
    assert rules is not None
    files = [name for name in rules.files if (tree / name).is_file()]
    if not files:
        return _unknown(defect, f"none of {' '.join(rules.files)} is there")
    try:
        said = spatch.find(rules.rule, tree, files)
    except spatch.Failed as err:
        return _unknown(defect, f"coccinelle {err.did}")
    found: dict[str, dict[str, list[str]]] = {
        "EXISTS": {}, "SEEN": {}, "NEEDS": {}, "HAS": {}}
    for kind, name, path, line in (match.groups() for match in map(_LINE.fullmatch, said) if match):
        found[kind].setdefault(name, []).append(f"{path}:{line} {name}")

    text = "\n".join((tree / path).read_text(encoding="utf-8", errors="replace") for path in files)
    for names in rules.exist:
        either = names.split("|")
        if any(name in found["EXISTS"] for name in either):
            continue
        if blind := [name for name in either if _defines(text, name)]:
            return _unknown(defect, f"coccinelle cannot parse {blind[0]}()")
        return Finding(defect.name, NOT_AFFECTED, f"there is no {either[0]}()", (), ())
    if defect.shares_tables and (why := kconfig.unshared(tree)):
        return Finding(defect.name, NOT_AFFECTED, why, (), ())
    if blind := [name for name in rules.see
                if name not in found["SEEN"] and _defines(text, name)]:
        return _unknown(defect, f"coccinelle cannot parse {blind[0]}()")
    if not found["NEEDS"]:
        return _unknown(defect, "nothing was found that would have to be protected")
    lacking = [place for name, places in found["NEEDS"].items() if name not in found["HAS"]
               for place in places]
    if lacking:
        return Finding(defect.name, VULNERABLE, "not protected", tuple(lacking),
                       tuple(_remedy(version, defect)))
    return Finding(defect.name, PROTECTED, "protected",
                   tuple(places[0] for name, places in found["HAS"].items()
                         if name in found["NEEDS"]), ())


def report(tree: Path, version: str, findings: Sequence[Finding]) -> dict[str, object]:
    """What `make audit AUDIT=json` prints."""
    return {"tree": str(tree), "version": version,
            "defects": [{"defect": one.defect, "status": one.status, "why": one.why,
                         "places": list(one.places), "apply": list(one.apply)}
                        for one in findings]}


def summary(version: str, findings: Sequence[Finding]) -> str:
    """The same for a person."""
    lines = [f"Linux {version}", ""]
    for one in findings:
        lines.append(f"{one.status:12}  {one.defect}")
        lines += [f"{'':14}{place}" for place in one.places]
        if one.status in (UNKNOWN, NOT_AFFECTED):
            lines.append(f"{'':14}{one.why}")
        if one.apply:
            lines.append(f"{'':14}to apply:")
            lines += [f"{'':16}{what}" for what in one.apply]
        elif one.status == VULNERABLE:
            lines.append(f"{'':14}nobody has fixed it yet")
    return "\n".join(lines)


def _unknown(defect: Defect, why: str) -> Finding:
    return Finding(defect.name, UNKNOWN, why, (), ())


def _defines(text: str, name: str) -> bool:
    """Whether the text looks as if it had a function `name`, however broken."""
    return re.search(rf"(?m)^(?:[A-Za-z_].*\b)?{name}\s*\([^;]*?\{{", text) is not None


def _remedy(version: str, defect: Defect) -> list[str]:
    """The patches of the nearest queue that mend the defect, or else the upstream commits."""
    try:
        queue = variant.series(bases.for_version(version).name)
    except LabError:
        queue = []
    if own := variant.mending(queue, defect):
        # What comes before them is needed by them.
        return [str(patch.relative_to(REPO)) for patch in queue[:queue.index(own[-1]) + 1]]
    return list(defect.upstream)
