# SPDX-License-Identifier: GPL-2.0
"""The boots of one kernel, with all that decides what they show, so that a later run can use them.

A run of hours may be interrupted.  What it has booted is evidence all the same, but only of that
very kernel in that very guest: boots are taken over where all of their identity is the same, and
where their logs are still there.  The logs are read anew, by the rules of today.
"""

import hashlib
import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.guest import qemu
from lab.judge import summary
from lab.judge.verdict import Boot
from lab.trial import Trial


@dataclass
class Booted:
    """The boots of one kernel."""

    identity: dict[str, str] = field(default_factory=dict)
    folder: str = ""
    ran: str = ""               # when the run began that booted it
    boots: list[Boot] = field(default_factory=list)

    def report(self) -> dict[str, object]:
        """As JSON holds it."""
        return {"identity": self.identity, "folder": self.folder, "ran": self.ran,
                "runs": [summary.boot_report(boot) for boot in self.boots]}


def identity(one: Trial) -> dict[str, str]:
    """All that decides what the boots of a kernel show.

    Of the kernel: its source, the diff, the configuration, the compiler, the image.  Of the guest:
    its file system with the selftests and init, and QEMU with all that it is told.
    """
    guest = one.guest(one.wanted.tests)
    return {
        **one.kernel.identity,
        "initrd_sha256": hashlib.sha256(one.initrd.read_bytes()).hexdigest(),
        "qemu": qemu.version(one.arch),
        "qemu_command": shlex.join(qemu.command(guest, "console.log", "ktap.log")),
        "seconds_a_boot": str(one.wanted.limit()),
        "boots": str(one.wanted.boots),
    }


def earlier(out: Path, name: str, rows_in: str = "mutants") -> dict[str, list[dict[str, Any]]]:
    """What the runs in `out` have booted, by kernel, the last run first.

    `name` is that of their reports, each in a folder whose name begins with the date, and `rows_in`
    is where a report has its kernels.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(out.glob(f"*/{name}"), reverse=True):
        try:
            report = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            continue            # What cannot be read is booted anew.
        rows = report.get(rows_in, [])
        for row in [*rows, *(row.get("measure", {}) for row in rows), report.get("measure", {})]:
            if row.get("runs") and row.get("identity"):
                found.setdefault(row["name"], []).append(row)
    return found


def take_over(rows: list[dict[str, Any]], like: dict[str, str], kernel: Trial) -> Booted | None:
    """The boots of the first of `rows` that has the identity `like` and still has its logs."""
    for row in rows:
        folders = [Path(run["folder"]) for run in row["runs"]]
        if row["identity"] != like or len(folders) != kernel.wanted.boots or not all(
                (folder / log).is_file() for folder in folders
                for log in ("console.log", "ktap.log")):
            continue
        boots = [kernel.read(number, folder, qemu.Outcome(
            run["guest_exit"], run["timed_out"], run["seconds"], run["ended_early"]))
            for number, (folder, run) in enumerate(zip(folders, row["runs"]), 1)]
        return Booted(like, row["folder"], row["ran"], boots)
    return None
