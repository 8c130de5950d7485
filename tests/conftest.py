# SPDX-License-Identifier: GPL-2.0
"""What several tests need: Debian's trees and, from them, the kernels and the guest."""

import os
import signal
from pathlib import Path

import pytest

from lab import apt, arch, base, defect, prove, source
from lab.errors import LabError
from lab.paths import REPO
from lab.progress import Progress

# Who starts a job in the background of a script has it ignore Ctrl-C, and all that it starts; the
# tests of what Ctrl-C does start from there.
signal.signal(signal.SIGINT, signal.default_int_handler)


def outside_make() -> dict[str, str]:
    """The environment without what `make check` adds for a make below it."""
    return {name: value for name, value in os.environ.items()
            if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")}


def debian_tarball(name: str) -> Path:
    """Debian's source of base `name`, packed; skips the test where it cannot be had."""
    try:
        return apt.source_package(base.load(name), Progress())[0]
    except LabError as err:
        pytest.skip(f"no source of {name}: {err}")


def debian_tree(name: str) -> source.Source:
    """The unpacked source of base `name`; skips the test where it cannot be had."""
    try:
        return source.from_base(base.load(name), Progress())
    except LabError as err:
        pytest.skip(f"no source of {name}: {err}")


def wanted(out: Path, **changes: object) -> prove.Wanted:
    """What `make prove` with no variables asks for."""
    values: dict[str, object] = {
        "defect": defect.load("pmd-share-migrate"), "base": "6.12", "kernel": None, "boots": 1,
        "accel": None, "debug": False, "limit": None, "tests": (), "out": out,
        "command": "make prove"}
    return prove.Wanted(**(values | changes))      # type: ignore[arg-type]


@pytest.fixture(scope="session")
def tree612() -> Path:
    return debian_tree("6.12").tree


@pytest.fixture(scope="session")
def prepared() -> prove.Prepared:
    """6.12, both variants, built or from the cache."""
    debian_tree("6.12")
    return prove.prepare(wanted(REPO / "out"), arch.load(), Progress())
