# SPDX-License-Identifier: GPL-2.0
"""Boots and runs that never were, made from the logs in golden/ or from text."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from conftest import wanted

from lab import arch, base
from lab.judge import klog, ktap, summary
from lab.judge.summary import Summary
from lab.judge.verdict import Boot, boot_state, decide
from lab.kernel.build import Kernel
from lab.kernel.source import Source
from lab.kernel.variant import make
from lab.trial import Trial

GOLDEN = Path(__file__).resolve().parent / "golden"


def golden(name: str) -> str:
    """One of the logs, byte for byte as far as it can be."""
    return (GOLDEN / name).read_bytes().decode("utf-8", "replace")


def boot(variant: str, number: int = 1, text: str | None = None, log: str = "",
         late: bool = False, status: int | None = 0, **changes: Any) -> Boot:
    """A boot of which `text` came on the KTAP line, by default that of golden/<variant>.ktap."""
    transcript = ktap.read(golden(f"{variant}.ktap") if text is None else text)
    complaints = klog.read(log)
    made = Boot(variant, number, f"out/{variant}-{number}", 11.26, "tcg", transcript, complaints,
                late, status, boot_state(transcript, complaints, late, status))
    return dataclasses.replace(made, **changes)


def trial(folder: Path, name: str, on: str = "6.12", qemu: str = "", **asked: object) -> Trial:
    """A kernel that was not built, and in folder/<name> what its boots are made of."""
    home = folder / name
    home.mkdir()
    for file in ("config", "identity.json"):
        (home / file).write_text("")
    source = Source(base.load(on), f"{on}.1", {}, "k", folder)
    kernel = Kernel(folder / "image", folder / "config", {}, True, 0.0)
    machine = dataclasses.replace(arch.load(), **({"qemu": qemu} if qemu else {}))
    return Trial(wanted(folder, **asked), source, make(name, "as it is", ""), kernel,
                 folder / "initrd", machine, "tcg")


def run(left: list[Boot], right: list[Boot], wanted: int = 1, **changes: Any) -> Summary:
    words = {key: changes[key] for key in ("harm", "counts") if key in changes}
    verdict, why = decide(left, right, wanted, **words)
    variants = {
        name: summary.kernel(
            how, places, boots, diff=Path(f"out/{name}.diff"), initrd=Path("out/initrd"),
            image=Path(f"out/{name}-1/bzImage"), config=Path(f"out/{name}-1/config"))
        for name, how, places, boots in (
            ("vulnerable", "revert.cocci (2 places)",
             ("mm/rmap.c:1775 try_to_unmap_one", "mm/rmap.c:2164 try_to_migrate_one"), left),
            ("fixed", "as it is", (), right))}
    made = Summary(
        defect="pmd-share-migrate", title="a migration of a hugetlb page loses writes", base="6.12",
        arch="x86_64", accel="tcg", debug=False, command="make prove BASE=6.12",
        source={"package": "linux-source-6.12", "version": "6.12.57-1"}, compiler="gcc 12.2.0",
        started="2025-01-02T01:04:05+00:00", seconds=301.3, variants=variants, verdict=verdict,
        why=why)
    return dataclasses.replace(made, **changes)


def told(made: Summary) -> dict[str, Any]:
    """As verdict.json has it."""
    report: dict[str, Any] = json.loads(json.dumps(made.report()))
    return report
