# SPDX-License-Identifier: GPL-2.0
"""Booting, with a stand-in for QEMU: a shell script that fails in all the ways that QEMU can."""

import dataclasses
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lab import arch
from lab.defect import Machine
from lab.errors import LabError
from lab.guest import qemu
from lab.paths import HOME, cache_dir, locked
from lab.progress import Progress

# By the clock, what stands for QEMU is told from what hangs.
pytestmark = pytest.mark.alone
ROW = arch.load()


def stand_in(tmp_path: Path, body: str) -> arch.Arch:
    """A row whose QEMU is a shell script with `body`; it runs in the boot's folder."""
    path = tmp_path / "qemu"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return dataclasses.replace(ROW, qemu=str(path))


def boot(tmp_path: Path, body: str, limit: float = 20) -> tuple[qemu.Outcome, Path]:
    what = qemu.Guest(stand_in(tmp_path, body), "tcg", Path("image"), Path("initrd"), "x")
    folder = tmp_path / "boot"
    folder.mkdir()
    return qemu.boot(what, folder, limit, lambda _log, _ktap: False), folder


def test_two_nodes_with_cpus_and_memory_and_two_serial_lines() -> None:
    what = qemu.Guest(ROW, "tcg", Path("image"), Path("initrd"), "lab.run=x")
    words = qemu.command(what, "console.log", "ktap.log")
    assert [word for word in words if word.startswith("node,")] == [
        "node,nodeid=0,cpus=0-1,memdev=node0", "node,nodeid=1,cpus=2-3,memdev=node1"]
    assert [words[at + 1] for at, word in enumerate(words) if word == "-serial"] == [
        "file:console.log", "file:ktap.log"]
    append = words[words.index("-append") + 1]
    assert "console=ttyS0" in append and "lab.tty=ttyS1" in append and "lab.run=x" in append
    assert "-no-reboot" in words and "tcg,thread=multi" in words


def test_a_defect_may_want_another_machine() -> None:
    machine = Machine(nodes=(3072, 2048), dimms=(0, 0), cpu="+pdpe1gb", virtio_mem=256)
    what = qemu.Guest(ROW, "tcg", Path("image"), Path("initrd"), "lab.run=x", machine)
    words = qemu.command(what, "console.log", "ktap.log")
    assert words[words.index("-m") + 1] == "5120M,slots=2,maxmem=5376M"
    assert words[words.index("-cpu") + 1] == f"{ROW.cpu_tcg},+pdpe1gb"
    assert not [word for word in words if word.startswith("pc-dimm")]
    assert "virtio-mem-pci,id=vm0,memdev=vmem0,node=0,requested-size=0" in words
    assert [words[at + 1] for at, word in enumerate(words) if word == "-serial"] == [
        "file:console.log", "file:ktap.log", "chardev:line"]


@pytest.mark.parametrize("slow", [False, True])
def test_a_dimm_may_be_there_to_be_plugged_and_ejected(slow: bool) -> None:
    """Nothing of it is there at first but a node, a slot, and who gives it."""
    usual = qemu.Guest(ROW, "tcg", Path("image"), Path("initrd"), "x", Machine(slow=slow))
    machine = Machine(slow=slow, eject=256)
    before, words = (qemu.command(what, "console.log", "ktap.log") for what in (
        usual, dataclasses.replace(usual, machine=machine)))
    assert before[before.index("-m") + 1] == "512M,slots=2,maxmem=2560M"
    assert words[words.index("-m") + 1] == "512M,slots=3,maxmem=2816M"
    assert "node,nodeid=2" + (",initiator=0" if slow else "") in words
    assert "memory-backend-ram,id=eject0,size=256M" in words
    assert [word for word in words if word.startswith("pc-dimm")] == [
        word for word in before if word.startswith("pc-dimm")]
    assert "chardev=qmp,mode=control" in words and "chardev:line" in words
    added = {"-m", "-numa", "-object", "-mon", "-chardev", "-serial"}
    assert set(words) - set(before) - added == {word for word in words if re.search(
        r"slots=3|nodeid=2|eject0|qmp|id=line|chardev:line", word)}
    assert qemu.monitor_env(ROW, machine) == ["MIGRATE_EJECT_QMP=/dev/ttyS2"]
    assert qemu.monitor_env(ROW, Machine()) == []
    # One line is enough for both.
    both = dataclasses.replace(machine, virtio_mem=256)
    assert qemu.monitor_env(ROW, both) == ["VIRTIO_MEM_QMP=/dev/ttyS2",
                                           "MIGRATE_EJECT_QMP=/dev/ttyS2"]
    words = qemu.command(dataclasses.replace(usual, machine=both), "console.log", "ktap.log")
    assert words.count("chardev:line") == 1


def test_one_node_may_be_slower_and_without_cpus() -> None:
    what = qemu.Guest(ROW, "tcg", Path("image"), Path("initrd"), "lab.run=x", Machine(slow=True))
    words = qemu.command(what, "console.log", "ktap.log")
    assert words[words.index("-machine") + 1] == "pc,hmat=on"
    assert [word for word in words if word.startswith("node,")] == [
        "node,nodeid=0,cpus=0-3,memdev=node0,initiator=0",
        "node,nodeid=1,memdev=node1,initiator=0"]
    says = [dict(part.split("=") for part in word.split(",")[1:]) for word in words
            if word.startswith("hmat-lb,")]
    latency, bandwidth = ([int(one[kind].rstrip("G")) for one in says if kind in one]
                          for kind in ("latency", "bandwidth"))
    assert [one["target"] for one in says] == ["0", "0", "1", "1"]
    assert latency[0] < latency[1] and bandwidth[0] > bandwidth[1]
    # Where no machine can say so, it is as any other.
    row = dataclasses.replace(ROW, tiers=False)
    assert qemu.command(dataclasses.replace(what, arch=row), "console.log", "ktap.log") == \
        qemu.command(dataclasses.replace(what, arch=row, machine=Machine()), "console.log",
                     "ktap.log")


def test_a_guest_may_have_virtual_machines_of_its_own() -> None:
    def cpu(accel: str, machine: Machine, row: arch.Arch = ROW) -> str:
        what = qemu.Guest(row, accel, Path("image"), Path("initrd"), "lab.run=x", machine)
        words = qemu.command(what, "console.log", "ktap.log")
        return words[words.index("-cpu") + 1]

    assert cpu("tcg", Machine(virtual=True)) == "kvm64,vendor=AuthenticAMD,+svm,+npt"
    assert cpu("tcg", Machine(virtual=True, cpu="+pdpe1gb")).endswith(",+npt,+pdpe1gb")
    # KVM lets its guests have what the host's CPU has, if it may.
    assert cpu("kvm", Machine(virtual=True)) == cpu("kvm", Machine()) == "host"
    other = arch.load("arm64")
    assert cpu("tcg", Machine(virtual=True), other) == cpu("tcg", Machine(), other)


def test_a_boot_that_ends(tmp_path: Path) -> None:
    ended, folder = boot(tmp_path, "echo log > console.log; echo lab: done > ktap.log")
    assert (ended.status, ended.timed_out) == (0, False)
    assert (folder / "ktap.log").read_text() == "lab: done\n"
    assert not (folder / "qemu.err").exists()


def test_the_script_makes_the_same_boot_by_itself(tmp_path: Path) -> None:
    _ended, folder = boot(tmp_path, 'echo "$@" > console.log; pwd > ktap.log')
    first = (folder / "console.log").read_text()
    for name in ("console.log", "ktap.log"):
        (folder / name).unlink()
    subprocess.run([folder / "qemu.sh"], cwd="/", check=True)
    assert (folder / "console.log").read_text() == first
    assert (folder / "ktap.log").read_text().strip() == str(folder)


@pytest.mark.slow
def test_a_boot_that_never_ends_is_killed(tmp_path: Path) -> None:
    began = time.monotonic()
    ended, folder = boot(tmp_path, "echo log > console.log; echo $$ > pid; sleep 1000 & wait", 1)
    assert ended.timed_out and ended.status is None and time.monotonic() - began < 10
    with pytest.raises(ProcessLookupError):
        os.kill(int((folder / "pid").read_text()), 0)


@pytest.mark.slow
class TestEnoughSeen:
    """A guest whose boot has shown enough goes on for a moment, and is ended."""

    @pytest.fixture(autouse=True)
    def grace(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(qemu, "GRACE", 1.0)

    def watched(self, tmp_path: Path, body: str, limit: float = 20) -> tuple[qemu.Outcome, Path]:
        what = qemu.Guest(stand_in(tmp_path, body), "tcg", Path("image"), Path("initrd"), "x")
        return qemu.boot(what, tmp_path, limit,
                         lambda log, ktap: "BUG" in log or "not ok" in ktap), tmp_path

    @pytest.mark.parametrize("word", ["BUG > console.log", "not ok > ktap.log"])
    def test_it_is_ended(self, tmp_path: Path, word: str) -> None:
        ended, folder = self.watched(
            tmp_path, f"echo $$ > pid; echo {word}; sleep 0.5; echo rest >> console.log; "
                      "exec sleep 1000")
        assert (ended.status, ended.timed_out, ended.ended_early) == (None, False, True)
        assert 1 <= ended.seconds < 10
        # What it says in that moment is kept.
        assert "rest\n" in (folder / "console.log").read_text()
        with pytest.raises(ProcessLookupError):
            os.kill(int((folder / "pid").read_text()), 0)

    def test_one_that_ends_by_itself_has_not_been_ended(self, tmp_path: Path) -> None:
        ended, _folder = self.watched(tmp_path, "echo BUG > console.log; sleep 0.4")
        assert (ended.status, ended.timed_out, ended.ended_early) == (0, False, False)

    def test_what_turns_out_to_be_nothing_ends_nothing(self, tmp_path: Path) -> None:
        ended, _folder = self.watched(
            tmp_path, "echo BUG > console.log; sleep 0.6; echo none > console.log; sleep 1.5")
        assert (ended.status, ended.ended_early) == (0, False)

    def test_it_is_no_excuse_for_one_that_is_late(self, tmp_path: Path) -> None:
        ended, _folder = self.watched(
            tmp_path, "sleep 1.5; echo BUG > console.log; exec sleep 1000", 2)
        assert (ended.timed_out, ended.ended_early) == (True, False)


def test_qemu_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="QEMU did not start: qemu: no such machine"):
        boot(tmp_path, "echo qemu: no such machine >&2; exit 1")


def test_qemu_that_dies_later_is_a_result(tmp_path: Path) -> None:
    ended, _folder = boot(tmp_path, "echo log > console.log; kill -SEGV $$")
    assert ended.status == -signal.SIGSEGV and not ended.timed_out


def test_ctrl_c_ends_qemu(tmp_path: Path) -> None:
    threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        boot(tmp_path, "echo log > console.log; echo $$ > pid; exec sleep 1000")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "boot" / "pid").read_text()), 0)


@pytest.mark.slow
def test_a_killed_run_takes_qemu_along(tmp_path: Path) -> None:
    row = stand_in(tmp_path, "echo $$ > pid; exec sleep 1000")
    run = subprocess.Popen([sys.executable, "-B", "-c", (
        "import dataclasses; from pathlib import Path; from lab import arch; from lab.guest import qemu\n"
        f"row = dataclasses.replace(arch.load(), qemu={row.qemu!r})\n"
        f"qemu.boot(qemu.Guest(row, 'tcg', Path('i'), Path('i'), ''), Path({str(tmp_path)!r}), 60,"
        " lambda log, ktap: False)")], cwd=HOME)
    pid = tmp_path / "pid"
    for _ in range(100):
        if pid.exists() and pid.read_text():
            break
        time.sleep(0.1)
    run.kill()
    run.wait()
    for _ in range(50):
        if not Path(f"/proc/{pid.read_text().strip()}").exists():
            return
        time.sleep(0.1)
    pytest.fail("QEMU lives on")


@pytest.mark.slow
class TestAccelerator:
    """KVM counts only where a guest was seen to come up with it."""

    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(os, "access", lambda *_args: True)
        monkeypatch.setattr(qemu, "_PROBE_SECONDS", 1)

    def choose(self, wanted: str | None, row: arch.Arch) -> str:
        return qemu.choose_accel(wanted, row, Path("image"), Path("initrd"), Progress())

    @pytest.mark.parametrize("body", ["echo cannot set MSR >&2; exit 1", "sleep 1000",
                                      "echo booting > console.log; sleep 1000"])
    def test_falls_back(self, tmp_path: Path, body: str) -> None:
        assert self.choose(None, stand_in(tmp_path, body)) == "tcg"

    def test_uses_it_where_it_works_and_remembers(self, tmp_path: Path) -> None:
        row = stand_in(tmp_path, f"echo x >> {tmp_path}/count; echo lab: done > ktap.log")
        assert self.choose(None, row) == "kvm"
        assert self.choose("kvm", row) == "kvm"
        assert (tmp_path / "count").read_text() == "x\n"

    def test_one_answer_does_not_drive_out_another(self, tmp_path: Path) -> None:
        """Each QEMU has its own, and what was seen before the host booted goes."""
        rows = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            rows.append(stand_in(tmp_path / name, f"echo x >> {tmp_path}/{name}/count; "
                                                  "echo lab: done > ktap.log"))
        known = cache_dir() / "kvm"
        known.mkdir(parents=True)
        (known / "qemu-system-x-of-another-boot").write_text("yes")
        assert [qemu.kvm_seen(row) for row in rows] == [None, None]
        for row in (*rows, *rows):
            assert self.choose(None, row) == "kvm" and qemu.kvm_seen(row)
        for name in ("one", "two"):
            assert (tmp_path / name / "count").read_text() == "x\n"
        assert not (known / "qemu-system-x-of-another-boot").exists()

    def test_two_runs_try_it_one_after_the_other(
            self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The second one must not take away the folder that the first one's guest is in."""
        monkeypatch.setattr(qemu, "_PROBE_SECONDS", 60)
        row = stand_in(tmp_path, f"echo x >> {tmp_path}/count; sleep 0.5; "
                                 "echo lab: done > ktap.log")
        said: list[str] = []
        both = [threading.Thread(target=lambda: said.append(self.choose(None, row)))
                for _ in range(2)]
        for one in both:
            one.start()
        for one in both:
            one.join()
        assert said == ["kvm", "kvm"] and (tmp_path / "count").read_text() == "x\n"

    def test_who_waits_for_another_run_says_so(self, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(qemu, "_PROBE_SECONDS", 60)
        row, told = stand_in(tmp_path, "echo lab: done > ktap.log"), io.StringIO()
        said: list[str] = []
        one = threading.Thread(target=lambda: said.append(qemu.choose_accel(
            None, row, Path("image"), Path("initrd"), Progress(told))))
        with locked(cache_dir() / "kvm" / qemu._KVM_LOCK):
            one.start()
            end = time.monotonic() + 60
            while not told.getvalue() and time.monotonic() < end:
                time.sleep(0.01)
            assert told.getvalue().endswith("] another run tries KVM: waiting\n")
        one.join()
        assert said == ["kvm"]

    def test_asked_for_and_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(LabError, match="use ACCEL=tcg"):
            self.choose("kvm", stand_in(tmp_path, "exit 1"))

    def test_tcg_asks_nobody(self, tmp_path: Path) -> None:
        row = stand_in(tmp_path, f"echo x > {tmp_path}/count; echo lab: done > ktap.log")
        assert self.choose("tcg", row) == "tcg" and not (tmp_path / "count").exists()
