# SPDX-License-Identifier: GPL-2.0
"""The kernel's own check of what migration unmaps, as a second witness of a proof.

The patches are in queue/unmapped/, laid out as queue/tests/ is.  They are no part of a fix: they
are added to both kernels alike, to any form of the fix, and to what is left of a kernel without its
protection.  What the check finds it says in the kernel's log, once, at the first migration that
leaves somebody a way to the old page, whether or not anybody writes to it then.
"""

from pathlib import Path

from lab.arch import Arch
from lab.defect import Defect
from lab.kernel import testseries, variant
from lab.kernel.source import Source
from lab.kernel.variant import Variant
from lab.paths import REPO

ROOM = REPO / "queue" / "unmapped"
# As another form of a queue is named, for `make series`.
FORM = "unmapped"
# KUnit tests the check when the kernel boots.
OPTIONS = ("CONFIG_DEBUG_VM_UNMAPPED=y", "CONFIG_KUNIT=y", "CONFIG_DEBUG_VM_UNMAPPED_KUNIT_TEST=y")
# A word of the kernel's command line.
CMDLINE = "debug_vm_unmapped"
# Where its warning comes from, as an expression for a complaint.
SAID = r"\bmm/debug_vm_unmapped\.c:\d+"

# Where kernels count flushes.  On others it looks for entries alone, and what was not flushed is not
# seen: see mm_flushes() in mm/debug_vm_unmapped.c.
COUNTS = ("x86_64",)

# What its KUnit tests say where they failed, as an expression for a line of the log.
FAILED = r"(?:\[ *\d+\.\d+\] )?(not ok \d+ debug_vm_unmapped)\b"


def names() -> list[str]:
    """The bases that have it."""
    return testseries.names(ROOM)


def there(base: str) -> bool:
    """Whether a base has it."""
    return base in names()


def sees(one: Defect, arch: Arch) -> bool:
    """Whether it sees a defect in each boot of a vulnerable kernel on an architecture."""
    return one.show.witness and arch.name in COUNTS


def options(others: tuple[str, ...]) -> tuple[str, ...]:
    """Lines of .config for a kernel with the check, which may ask for some of them already."""
    return tuple(dict.fromkeys((*others, *OPTIONS)))


def selftests(base: str) -> tuple[str, ...]:
    """What reads its counters, and is run beside the selftests of a defect."""
    return tuple(Path(path).stem for patch in testseries.files(base, ROOM)
                 if ROOM in patch.parents for path in testseries.adds(patch)
                 if path.startswith("tools/testing/selftests/"))


def added(source: Source, one: Variant) -> Variant:
    """A variant with the check; its selftest is no part of a kernel.  LabError where a patch does not apply to it."""
    texts = [text for name, text in testseries.patches(source.base.name, ROOM)
             if "selftests" not in name]
    return variant.make(one.name, f"{one.how}, and queue/{ROOM.name}",
                        variant.on_top(source, one.diff, texts), one.places)
