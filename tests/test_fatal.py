# SPDX-License-Identifier: GPL-2.0
"""A vulnerable kernel that dies of its defect need not come to its end; a fixed one must."""

from pathlib import Path

import pytest

from lab import arch, base, build, defect, prove, qemu, variant
from lab.progress import Progress
from lab.source import Source

BUG = "[    4.1] kernel BUG at include/linux/swapops.h:505!\n"
OOPS = "[    4.2] Oops: invalid opcode: 0000 [#2] SMP\n[    4.2] ---[ end trace 0 ]---\n"
KTAP = "lab: start exec_temp_stack\nTAP version 13\n1..3\n"


@pytest.mark.parametrize(("name", "log", "said", "state"), [
    ("vulnerable", BUG, True, "ENDED"),
    ("vulnerable", BUG.rstrip("\n"), False, "LOST"),            # half a line may be anything
    # Of two that die at once the second's BUG is lost in the first's; it ends nothing by itself.
    ("vulnerable", BUG + OOPS, True, "ENDED"),
    ("vulnerable", OOPS, False, "LOST"),
    ("vulnerable", "", False, "LOST"),
    ("fixed", BUG, False, "CRASHED"),
])
def test_a_boot_that_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, log: str,
                          said: bool, state: str) -> None:
    home = tmp_path / name
    home.mkdir()
    for file in ("config", "identity.json"):
        (home / file).write_text("")
    graces: list[float] = []

    def qemu_boot(_what: qemu.Guest, folder: Path, _limit: float, watch: object,
                  grace: float) -> qemu.Outcome:
        (folder / "console.log").write_text(log)
        (folder / "ktap.log").write_text(KTAP)
        graces.append(grace)
        enough = watch(log, KTAP)                                       # type: ignore[operator]
        assert enough is said
        return qemu.Outcome(None, False, 9.0, enough)

    monkeypatch.setattr(qemu, "boot", qemu_boot)
    one = variant.make(name, "as it is", "")
    source = Source(base.load("6.12"), "6.12.1", {}, "k", tmp_path)
    kernel = build.Kernel(tmp_path / "image", tmp_path / "config", {}, True, 0.0)
    made = prove.Prepared(source, (one,), {name: kernel}, {}, tmp_path / "initrd", arch.load())
    wanted = prove.Wanted(defect=defect.load("exec-temp-stack"), base="6.12", kernel=None, boots=1,
                          accel="tcg", debug=False, limit=None, tests=(), out=tmp_path, command="x")
    boot = prove.boot(wanted, made, one, home, 1, "tcg", Progress())
    assert boot.state == state
    assert graces == [prove.LAST_WORDS]
