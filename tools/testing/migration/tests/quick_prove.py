# SPDX-License-Identifier: GPL-2.0
"""Stands in for lab/verbs/prove.py in a repository that a test made: a verdict without a kernel.

What it says is in stand-in.json, beside the lab.  A file in the home folder makes it do more:
`slow` has seconds that something is at work in the meantime, and the defect that this is for, if not
all; `fill` says to fill the disk.
"""

import dataclasses
import json
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

from lab import provenance
from lab.arch import Arch
from lab.errors import LabError
from lab.judge.summary import Summary
from lab.kernel import variant
from lab.paths import HOME
from lab.progress import Progress
from lab.tell import result
from lab.wanted import Wanted


def run(wanted: Wanted, arch: Arch, _progress: Progress) -> Summary:
    """A verdict at once."""
    started = datetime.now(timezone.utc)
    base = wanted.base or ""
    if wanted.defect.name == "exec-temp-stack":
        raise LabError(f"{variant.NOTHING} {wanted.defect.name} in {base}.1: a test says so")
    slow = Path.home() / "slow"
    seconds, *only = slow.read_text(encoding="utf-8").split() if slow.exists() else ["0"]
    if float(seconds) and only in ([], [wanted.defect.name]):
        # As QEMU: another process, which is to be gone when this one is.
        subprocess.run([sys.executable, "-c", "import sys, time; time.sleep(float(sys.argv[1]))",
                        seconds, "stands-in-for-qemu"], check=False)
    if (Path.home() / "fill").exists():
        wanted.out.mkdir(parents=True)
        with open(wanted.out / "large", "wb") as large:
            while True:
                large.write(bytes(1 << 20))
                large.flush()
    one = Summary.load(json.loads((HOME / "stand-in.json").read_text(encoding="utf-8")))
    made = dataclasses.replace(
        one, defect=wanted.defect.name, base=base, arch=arch.name, debug=wanted.debug,
        command=wanted.command, started=started.isoformat(timespec="microseconds"),
        source={"version": f"{base}.1"},
        provenance=provenance.of_run(arch, wanted.defect.show.selftests, ["as it is"],
                                     provenance.rules_of(wanted.defect)),
        variants={name: dataclasses.replace(kernel, boots=wanted.boots)
                  for name, kernel in one.variants.items()})
    home = wanted.out / f"{started:%Y%m%d-%H%M%S}-{made.defect}-{base}.1"
    for name in ("vulnerable", "fixed"):
        (home / name).mkdir(parents=True)
        (home / name / "image").write_text("image")
    result.write(made, home)
    result.write(made, wanted.out)
    return made
