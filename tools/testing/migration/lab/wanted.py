# SPDX-License-Identifier: GPL-2.0
"""What the user can ask for, and what is done where nothing is said."""

from dataclasses import dataclass
from pathlib import Path

from lab.defect import Defect

DEFECT, BASE = "pmd-share-migrate", "6.12"
# Those whose selftests are run at each step of a queue: see lab/verbs/steps.py.
STEP_DEFECTS = (DEFECT, "pmd-share-walkers")
# Boots of a proof, of mutants, of a proof of the matrix, and of a bench.
BOOTS, MUTANT_BOOTS, MATRIX_BOOTS, ROUNDS = 1, 5, 5, 3
# The two kernels of a defect, and one with the whole series, the tests included.
KERNELS, SERIES = ("vulnerable", "fixed"), "series"
# Seconds a boot may take. A boot takes 15 to 20 s on an idle machine with TCG; KASAN and lockdep
# make it several times that.
LIMIT, DEBUG_LIMIT = 300, 1500


@dataclass(frozen=True)
class Wanted:
    """What the user asked for; None is the default of the lab."""

    defect: Defect
    base: str | None
    kernel: Path | None
    boots: int
    accel: str | None
    debug: bool
    timeout: int | None         # seconds a boot
    tests: tuple[str, ...]      # arguments for the selftests, such as "-t" "name"
    out: Path
    command: str                # how to repeat this
    harness: Path | None = None     # kernel tree whose harness the selftests are built with
    ltp: Path | None = None     # the tree of LTP whose tests are run, and not the selftests
    form: str = ""              # the form of the queue that is the fixed one, "" for the usual one
    witness: bool = False       # both kernels check themselves what migration unmaps

    def programs(self) -> tuple[str, ...]:
        """The tests that show the defect."""
        return self.defect.show.ltp if self.ltp else self.defect.show.selftests

    def limit(self, usual: int = LIMIT) -> int:
        """Seconds that a boot may take; `usual` without DEBUG=1."""
        return self.timeout or (DEBUG_LIMIT if self.debug else usual)
