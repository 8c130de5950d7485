# SPDX-License-Identifier: GPL-2.0
"""Boots a guest: two NUMA nodes, four CPUs, two serial lines, and never without a time limit."""

import dataclasses
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.arch import Arch
from lab.defect import Machine
from lab.errors import LabError
from lab.paths import cache_dir, locked, replace
from lab.progress import Progress

CPUS = 4

# Seconds that a guest goes on for once it has shown enough: for the rest of a splat.
GRACE = 2.0
# Seconds that a guest gets to show its first sign of life under KVM: it takes about one.
_PROBE_SECONDS = 10
# In the cache's folder of what came of that.
_KVM_LOCK = ".lock"
ACCELS = ("kvm", "tcg")
# What the nodes of a machine with slow memory are said to be: nanoseconds, and bytes a second.
_HMAT = (("10", "10G"), ("40", "2G"))


@dataclass(frozen=True)
class Guest:
    """What to boot. `append` is the command line without the consoles."""

    arch: Arch
    accel: str
    image: Path
    initrd: Path
    append: str
    machine: Machine = Machine()


@dataclass(frozen=True)
class Outcome:
    """How a boot ended: QEMU's exit status, None if it was killed; wall-clock seconds."""

    status: int | None
    timed_out: bool
    seconds: float
    ended_early: bool = False   # killed because it had shown enough


def command(guest: Guest, console: str, ktap: str | None) -> list[str]:
    """The QEMU command; `console` and `ktap` are files, or "stdio" for a person's terminal."""
    arch, half = guest.arch, CPUS // 2
    machine = guest.machine if arch.dimms else _without_dimms(guest.machine)
    boots_with = sum(machine.nodes)
    added = sum(machine.dimms) + machine.virtio_mem + machine.eject
    slots = len(machine.dimms) + bool(machine.eject)
    slow = machine.slow and arch.tiers
    cpu = arch.cpu_tcg if guest.accel == "tcg" else arch.cpu_kvm
    accel = "tcg,thread=multi" if guest.accel == "tcg" else guest.accel
    if machine.virtual and arch.virtual and guest.accel == "tcg":
        cpu += f",{arch.virtual}"
    # An architecture that knows no such feature has what it stands for in every CPU.
    cpu = ",".join([cpu, *(word for word in machine.cpu.split(",") if word in arch.cpu_features)])
    words = [
        arch.qemu, *arch.machine[:-1], arch.machine[-1] + (",hmat=on" if slow else ""),
        *(("-bios", arch.firmware) if arch.firmware else ()),
        "-accel", accel,
        "-cpu", cpu,
        "-smp", f"{CPUS},sockets=2,cores={half}",
        "-m", f"{boots_with}M" + (f",slots={slots},maxmem={boots_with + added}M" if added else ""),
    ]
    for node, (mib, dimm) in enumerate(zip(machine.nodes, machine.dimms)):
        cpus = f"cpus={node * half}-{node * half + half - 1}," if not slow else \
            "" if node else f"cpus=0-{CPUS - 1},"
        words += [
            "-object", f"memory-backend-ram,id=node{node},size={mib}M",
            "-numa", f"node,nodeid={node},{cpus}memdev=node{node}" +
                     (",initiator=0" if slow else ""),
        ]
        if dimm:
            words += ["-object", f"memory-backend-ram,id=dimm{node},size={dimm}M",
                      "-device", f"pc-dimm,memdev=dimm{node},node={node}"]
    if machine.eject:
        # The DIMM has the next node for itself, which has nothing as long as that is not there.
        words += ["-numa", f"node,nodeid={len(machine.nodes)}" + (",initiator=0" if slow else ""),
                  "-object", f"memory-backend-ram,id=eject0,size={machine.eject}M"]
    if slow:
        for node, (latency, bandwidth) in enumerate(_HMAT):
            line = f"hmat-lb,initiator=0,target={node},hierarchy=memory"
            words += ["-numa", f"{line},data-type=access-latency,latency={latency}",
                      "-numa", f"{line},data-type=access-bandwidth,bandwidth={bandwidth}"]
    if machine.virtio_mem:
        words += ["-object", f"memory-backend-ram,id=vmem0,size={machine.virtio_mem}M",
                  "-device", "virtio-mem-pci,id=vm0,memdev=vmem0,node=0,requested-size=0"]
    words += ["-nodefaults", "-display", "none", "-no-reboot"]
    if console == "stdio":
        words += ["-serial", "mon:stdio"]
    else:
        words += ["-monitor", "none", "-serial", f"file:{console}"]
    if ktap is not None:
        words += ["-chardev", f"file,id=ktap,path={ktap}", *_line(arch, "ktap")] \
            if arch.line_device else ["-serial", f"file:{ktap}"]
        if _has_monitor(machine):
            # The guest is to change its own memory: its third line is QEMU's monitor, by way of a
            # socket with QEMU at both ends.
            words += ["-chardev", "socket,id=qmp,path=qmp.sock,server=on,wait=off",
                      "-mon", "chardev=qmp,mode=control",
                      "-chardev", "socket,id=line,path=qmp.sock", *_line(arch, "line")]
    words += ["-kernel", str(guest.image), "-initrd", str(guest.initrd), "-append",
              f"console={arch.console} lab.tty={arch.second_console} panic=-1 nokaslr {arch.cmdline} "
              + guest.append]
    return words


def _line(arch: Arch, name: str) -> list[str]:
    """One more serial line, whose other end is the character device `name`."""
    return ["-device", f"{arch.line_device},chardev={name}"] if arch.line_device \
        else ["-serial", f"chardev:{name}"]


def _has_monitor(machine: Machine) -> bool:
    return bool(machine.virtio_mem or machine.eject)


def monitor_env(arch: Arch, machine: Machine) -> list[str]:
    """What tells the selftests of QEMU's monitor, "NAME=value" each, as far as they need it."""
    machine = machine if arch.dimms else _without_dimms(machine)
    return [f"{name}=/dev/{arch.third_console}" for name, wanted in (
        ("VIRTIO_MEM_QMP", machine.virtio_mem), ("MIGRATE_EJECT_QMP", machine.eject)) if wanted]


def _without_dimms(machine: Machine) -> Machine:
    """The same memory, all of it there from the start, and none that could be ejected."""
    first, second = (node + dimm for node, dimm in zip(machine.nodes, machine.dimms))
    return dataclasses.replace(machine, nodes=(first, second), dimms=(0, 0), eject=0)


def script(guest: Guest) -> str:
    """A shell script that makes the same boot again, from its own folder, into files there."""
    words = command(guest, "console.log", "ktap.log")
    lines, line = [], ""
    for word in words:
        quoted = shlex.quote(word)
        if line and len(line) + len(quoted) > 90:
            lines.append(line)
            line = ""
        line = f"{line} {quoted}" if line else quoted
    lines.append(line)
    return ("#!/bin/sh\n"
            "# Writes console.log and ktap.log beside itself.\n"
            'cd "$(dirname "$0")" || exit 1\n'
            "exec " + " \\\n\t".join(lines) + "\n")


def boot(guest: Guest, folder: Path, limit: float, watch: Callable[[str, str], bool],
         grace: float = GRACE) -> Outcome:
    """Boot `guest` in `folder`, which gets console.log, ktap.log and qemu.sh.

    `limit` is in seconds. `watch` is called now and then with what the log and the KTAP line have
    so far, and says whether that is enough: once it has said so for `grace` seconds on end, the guest
    is killed. LabError where QEMU itself does not start.
    """
    (folder / "qemu.sh").write_text(script(guest), "utf-8")
    (folder / "qemu.sh").chmod(0o755)
    console, ktap, errors = folder / "console.log", folder / "ktap.log", folder / "qemu.err"
    for path in (console, ktap):
        path.write_bytes(b"")
    began = time.monotonic()
    with open(errors, "wb") as stderr:
        # Its own process group: Ctrl-C reaches this process, which ends QEMU itself. And should
        # this process be killed, the kernel ends QEMU.
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command(guest, "console.log", "ktap.log")],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, process_group=0)
        timed_out = ended_early = False
        enough_since: float | None = None
        try:
            while True:
                try:
                    process.wait(0.25)
                    break
                except subprocess.TimeoutExpired:
                    pass
                enough = watch(console.read_text("utf-8", "replace"),
                               ktap.read_text("utf-8", "replace"))
                now = time.monotonic()
                if not enough:
                    enough_since = None
                elif enough_since is None:
                    enough_since = now
                elif now - enough_since >= grace:
                    ended_early = True
                    break
                if now - began > limit:
                    timed_out = True
                    break
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    seconds = time.monotonic() - began
    said = errors.read_text("utf-8", "replace").strip()
    if not said:
        errors.unlink()
    killed = timed_out or ended_early
    if process.returncode and not killed and not console.read_bytes():
        first = said.splitlines()[0] if said else "no reason given"
        raise LabError(f"QEMU did not start: {first}", str(errors) if said else None)
    return Outcome(None if killed else process.returncode, timed_out, seconds, ended_early)


def version(arch: Arch) -> str:
    """QEMU's own version line; LabError where there is none."""
    try:
        done = subprocess.run([arch.qemu, "--version"], text=True, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as err:
        raise LabError(f"no {arch.qemu} for {arch.name}: install it") from err
    return (done.stdout.splitlines() or ["QEMU, of which version it does not say"])[0]


def choose_accel(wanted: str | None, arch: Arch, image: Path, initrd: Path,
                 progress: Progress) -> str:
    """The accelerator to use: `wanted`, or KVM where a guest has been seen to come up with it.

    A /dev/kvm that opens says nothing: on some hosts QEMU aborts, or the guest hangs before its
    first line. So a guest is booted; what came of it is remembered until the host boots anew.
    """
    if wanted == "tcg":
        return "tcg"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        if wanted == "kvm":
            raise LabError("ACCEL=kvm, but /dev/kvm cannot be opened: join the group kvm, or use "
                           "ACCEL=tcg")
        return "tcg"
    works = _kvm_works(arch, image, initrd, progress)
    if wanted == "kvm" and not works:
        raise LabError("ACCEL=kvm, but no guest comes up with KVM here within "
                       f"{_PROBE_SECONDS} s: use ACCEL=tcg")
    return "kvm" if works else "tcg"


def _kvm_known(arch: Arch) -> Path:
    """Where the cache keeps whether a guest comes up with KVM, since this host was booted."""
    # lab/matrix/hosts.py asks hosts for the same name.
    return cache_dir() / "kvm" / (re.sub(r"\W+", "-", arch.qemu) + f"-{_boot_id()}")


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def kvm_seen(arch: Arch) -> bool | None:
    """Whether a guest was seen to come up with KVM here; None where none was tried."""
    try:
        return _kvm_known(arch).read_text("ascii").strip() == "yes"
    except OSError:
        return None


def _kvm_works(arch: Arch, image: Path, initrd: Path, progress: Progress) -> bool:
    known = _kvm_known(arch)
    # One at a time: another run must not remove the folder that a guest is in.
    with locked(known.parent / _KVM_LOCK,
                lambda: progress.note("another run tries KVM: waiting")):
        if not known.exists():
            _try_kvm(known, arch, image, initrd, progress)
    return known.read_text("ascii").strip() == "yes"


def _try_kvm(known: Path, arch: Arch, image: Path, initrd: Path, progress: Progress) -> None:
    """Boot a guest with KVM, and keep in `known` what came of it."""
    progress.step("trying KVM")
    # What other QEMUs did since the boot stays.
    for old in known.parent.iterdir():
        if old.is_dir():
            shutil.rmtree(old, ignore_errors=True)
        elif old.name != _KVM_LOCK and not old.name.endswith(_boot_id()):
            old.unlink()
    folder = known.parent / "probe"
    folder.mkdir()
    guest = Guest(arch, "kvm", image, initrd, "lab.probe")
    try:
        boot(guest, folder, _PROBE_SECONDS, lambda _log, _ktap: False)
        works = "lab: done" in (folder / "ktap.log").read_text("utf-8", "replace")
    except LabError:
        works = False
    replace(known, "yes\n" if works else "no\n")
    progress.done("it does" if works else "no guest comes up with it: using TCG")
