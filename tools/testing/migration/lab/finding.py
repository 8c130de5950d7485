# SPDX-License-Identifier: GPL-2.0
"""What an audit says of a defect, whatever it was decided from."""

from dataclasses import dataclass

VULNERABLE, PROTECTED = "VULNERABLE", "protected"
NOT_AFFECTED, UNKNOWN = "not affected", "unknown"

SOURCE, BINARY, BOTH = "source", "binary", "both"


@dataclass(frozen=True)
class Finding:
    """What a kernel says about one defect."""

    defect: str
    status: str                     # one of the four above
    why: str                        # in words
    places: tuple[str, ...]         # "mm/rmap.c:1336 try_to_unmap_one"
    apply: tuple[str, ...]          # what fixes it: patches of a queue, or upstream commits; none
                                    # where it is vulnerable: nothing here mends it
    source: str = SOURCE            # what it was decided from
    title: str = ""                 # what the defect does
    risk: str = ""                  # who can make it do so, or what, and what it is to others
    only_slow: bool = False         # it does no more than make migration slow
    note: str = ""                  # why all of `apply` or none; without it, what there is instead
