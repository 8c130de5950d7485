# SPDX-License-Identifier: GPL-2.0
"""What the code of an image says of a defect, in one of the audit's four words."""

import fnmatch
import re
from dataclasses import dataclass

from lab.binary import rules
from lab.binary.code import Code, base_name
from lab.defect import Binary, Defect
from lab.finding import NOT_AFFECTED, PROTECTED, UNKNOWN, VULNERABLE

# Without these no kernel shares PMD tables, and what stands for the function then does nothing.
NO_SHARING = (
    ("the config has none of ARCH_WANT_HUGE_PMD_SHARE|HUGETLB_PMD_PAGE_TABLE_SHARING",
     "it was made without the sharing of PMD tables"),
    ("huge_pmd_share calls nothing", "its huge_pmd_share() does nothing: no PMD table is shared"),
    ("there is no huge_pmd_share; there is no hugetlb_fault", "it has no hugetlb pages"),
)


# A function that a form asks for, or a pattern of several.
_ASKED = re.compile(r"[\w*?]*\w[\w*?]*")


@dataclass(frozen=True)
class Decision:
    """What an image says of a defect."""

    status: str
    why: str
    places: tuple[str, ...] = ()


def asks_for(defect: Defect, function: str) -> bool:
    """Whether what an image says of `defect` may be said of `function`, or a piece of it."""
    binary = defect.binary
    if binary is None:
        return False
    forms = (*binary.unaffected, *binary.protected, *binary.vulnerable, *binary.names,
             *(form for form, _why in NO_SHARING if defect.shares_tables))
    return any(fnmatch.fnmatchcase(name, asked) for asked in _ASKED.findall(" ".join(forms))
               for name in (function, base_name(function)))


def decide(image: Code, defect: Defect) -> Decision:
    """What `image` says of `defect`: for certain, or else UNKNOWN and where to look."""
    binary = defect.binary
    if binary is None:
        return Decision(UNKNOWN, "no rule says what the code of an image tells of it: audit the "
                                 "source with KERNEL=")
    for form in binary.unaffected:
        if rules.fits(form, image, binary.names).true:
            return Decision(NOT_AFFECTED, _sentence(form, binary))
    if defect.shares_tables:
        for form, why in NO_SHARING:
            if rules.fits(form, image).true:
                return Decision(NOT_AFFECTED, why)
    if image.image.missing:
        return Decision(UNKNOWN, "its code cannot be read")
    bad = [seen for form in binary.vulnerable
           if (seen := rules.fits(form, image, binary.names)).true]
    good = [seen for form in binary.protected
            if (seen := rules.fits(form, image, binary.names)).true]
    if bad and good:
        return Decision(UNKNOWN, f"its code looks protected and vulnerable; look at {binary.look}")
    if bad:
        return Decision(VULNERABLE, "not protected", _places(bad))
    if good:
        return Decision(PROTECTED, "protected", _places(good))
    return Decision(UNKNOWN, f"look at {binary.look}" if not binary.undecided
                    else f"{binary.undecided}; look at {binary.look}")


def _sentence(form: str, binary: Binary) -> str:
    # For a person: names that are put together are a word longer than a line.
    return ", and ".join(one.text.replace("|", " or ") for one in rules.parse(form, binary.names))


def _places(seen: list[rules.Seen]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(place for one in seen for place in one.places))
