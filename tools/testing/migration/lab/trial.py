# SPDX-License-Identifier: GPL-2.0
"""Boots a kernel that was made for what the user wants, and reads what its boots left behind."""

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab import fragment
from lab.arch import Arch
from lab.base import load as load_base
from lab.defect import Defect, Machine, why_not
from lab.errors import LabError
from lab.guest import initramfs, ltp, qemu, selftest
from lab.judge import klog, ktap, ltp as ltp_judge, verdict
from lab.kernel import build, unmapped, variant
from lab.kernel.build import Kernel
from lab.kernel.source import Source, from_base, from_tree
from lab.kernel.variant import Variant
from lab.paths import need_plain_cache
from lab.progress import Progress
from lab.wanted import BASE, KERNELS, Wanted

# MiB a node more: KASAN's shadow of all memory, an eighth of it, cannot be in movable memory.
DEBUG_MIB = 512

# Seconds that a vulnerable kernel gets to come to its end once it has died of the defect: locks
# that the dead hold may keep it from that for good.
LAST_WORDS = 20.0

# Whether a boot has shown all that it is asked for, from its results and complaints so far.
Enough = Callable[[ktap.Transcript, list[klog.Complaint]], bool]


def with_room(machine: Machine, debug: bool, more: int = 0) -> Machine:
    """The machine, with the memory that a debug kernel takes, and `more` MiB a node."""
    more += DEBUG_MIB if debug else 0
    return dataclasses.replace(machine, nodes=(machine.nodes[0] + more, machine.nodes[1] + more))


@dataclass(frozen=True)
class Trial:
    """A kernel, and all that decides what its boots show."""

    wanted: Wanted
    source: Source
    variant: Variant
    kernel: Kernel
    initrd: Path                            # the guest's file system, with the selftests
    arch: Arch
    accel: str
    witness: bool = False                   # it has the check of lab.kernel.unmapped

    @property
    def name(self) -> str:
        """That of the variant."""
        return self.variant.name

    @property
    def defect(self) -> Defect:
        """The one that the kernel was made for."""
        return self.wanted.defect

    def keep(self, folder: Path) -> dict[str, Path]:
        """Put what the boots are made of into `folder`, so that it can be moved."""
        try:
            folder.mkdir(parents=True)
            kept = {"image": folder / "image", "initrd": folder / "initrd",
                    "config": folder / "config", "diff": folder / "variant.diff"}
            shutil.copyfile(self.kernel.image, kept["image"])
            shutil.copyfile(self.initrd, kept["initrd"])
            shutil.copyfile(self.kernel.config, kept["config"])
            kept["diff"].write_text(self.variant.diff, "utf-8", "surrogateescape")
            (folder / "identity.json").write_text(
                json.dumps(self.kernel.identity, indent=2) + "\n", "utf-8")
        except OSError as err:
            raise LabError(f"cannot write to {folder} ({err.strerror}): free some space, or name "
                           "another folder with OUT=") from err
        return kept

    def tests(self, number: int) -> tuple[str, ...]:
        """Arguments for the selftests in boot `number`, from 1.

        A kernel that dies of its first test never comes to the others, so that each of its boots
        is one test's, in turn, after those that it does not die of.  Else all are run that are
        about the defect; what the user asks for is run in any case.
        """
        turns = self.defect.show.turns
        # Variants are those of the kernel's harness.
        if self.wanted.tests or self.wanted.ltp:
            return self.wanted.tests
        if turns and self.name == "vulnerable":
            return self.defect.arguments(turns[(number - 1) % len(turns)])
        return self.defect.arguments()

    def machine(self) -> Machine:
        """What all that is asked for needs."""
        options = fragment.parse("\n".join(self.defect.kernel.options), "the options")
        return with_room(self.defect.guest, self.wanted.debug, self.arch.room(options))

    def guest(self, tests: tuple[str, ...]) -> qemu.Guest:
        """The guest that boots run in, with arguments for its selftests; its files are named as
        from the folder of a boot."""
        debug = self.wanted.debug
        machine = self.machine()
        env = [*machine.env, *(["LTP_COLORIZE_OUTPUT=n"] if self.wanted.ltp else []),
               *qemu.monitor_env(self.arch, machine)]
        programs = self.wanted.programs()
        if self.witness:
            programs += unmapped.selftests(self.source.base.name)
        words = [f"lab.run={','.join(programs)}",
                 f"lab.env={','.join(env)}" if env else "",
                 # A base on which page poisoning cannot be had says so later in the line.
                 "page_poison=1" if debug else "",
                 unmapped.CMDLINE if self.witness else "", self.source.base.cmdline,
                 self.defect.kernel.cmdline,
                 f"lab.args={','.join(tests)}" if tests else ""]
        return qemu.Guest(self.arch, self.accel, Path("../image"), Path("../initrd"),
                          " ".join(word for word in words if word), machine)

    def boot(self, home: Path, number: int, progress: Progress, enough: Enough | None = None
             ) -> verdict.Boot:
        """One boot in a folder of its own in `home`, which has what it was made of.  The caller
        ends the step with what came of it.

        A guest that has shown `enough` is ended; without that it runs to its end, unless the
        defect is fatal to it.
        """
        folder = home / f"boot-{number:02d}"
        folder.mkdir()
        for name in ("config", "identity.json"):
            (folder / name).hardlink_to(home / name)
        tests = self.tests(number)
        turn = "" if tests in (self.wanted.tests, self.defect.arguments()) else \
            f", its turn is {tests[-1]}"
        progress.step(f"booting the {self.name} kernel, {number} of {self.wanted.boots} "
                      f"({self.accel.upper()}){turn}")

        def watch(log: str, said: str) -> bool:
            seen = self._transcript(said)
            planned = sum(program.planned or 0 for program in seen.programs)
            if planned:
                progress.update(f"{len(seen.tests())} of {planned} tests")
            # Half a line may turn out to be harmless.
            complaints, symptoms = self._complaints(log[:log.rfind("\n") + 1])
            if enough is None:
                return bool(verdict.sort_out(symptoms, self.defect.show.fatal)[1])
            return enough(seen, complaints)

        ended = qemu.boot(self.guest(tests), folder, self.wanted.limit(), watch,
                          LAST_WORDS if enough is None else qemu.GRACE)
        return self.read(number, folder, ended)

    def read(self, number: int, folder: Path, ended: qemu.Outcome) -> verdict.Boot:
        """The boot that left its logs in `folder`, and ended so."""
        transcript = self._transcript((folder / "ktap.log").read_text("utf-8", "replace"))
        console = (folder / "console.log").read_text("utf-8", "replace")
        complaints, symptoms = self._complaints(console)
        state = verdict.boot_state(transcript, complaints, ended.timed_out, ended.status,
                                   ended.ended_early)
        return verdict.Boot(variant=self.name, number=number, folder=str(folder),
                            seconds=ended.seconds, accel=self.accel, transcript=transcript,
                            complaints=complaints, timed_out=ended.timed_out,
                            guest_exit=ended.status, state=state, symptoms=symptoms,
                            ended_early=ended.ended_early)

    def _transcript(self, said: str) -> ktap.Transcript:
        return ktap.read(ltp_judge.as_ktap(said) if self.wanted.ltp else said)

    def _complaints(self, log: str) -> tuple[list[klog.Complaint], list[klog.Complaint]]:
        """The complaints in a log, and those that are to be expected of this kernel."""
        # What the defect makes a kernel say of itself is evidence, but only where the defect is.
        # What its version says now and then in any case is told, and counts for nothing.
        expected = self.source.base.noise
        fatal: tuple[str, ...] = ()
        if self.name == "vulnerable":
            expected += self.defect.show.symptoms + ((unmapped.SAID,) if self.witness else ())
            fatal = self.defect.show.fatal
        complaints, symptoms = verdict.sort_out(klog.read(log), expected, fatal)
        return complaints + (_failed(log) if self.witness else []), symptoms


def _failed(log: str) -> list[klog.Complaint]:
    """What the log says of the check of lab.kernel.unmapped where it failed its own tests."""
    return [klog.Complaint("KUnit", number, found[1], (line,))
            for number, line in enumerate(log.split("\n"), 1)
            if (found := re.match(unmapped.FAILED, line))]


def find_source(wanted: Wanted, progress: Progress) -> Source:
    """The source that BASE= and KERNEL= name; Debian's of the first base where neither does."""
    need_plain_cache()
    if wanted.kernel is not None:
        return from_tree(wanted.kernel, wanted.base, progress)
    base = load_base(wanted.base or BASE)
    if base.package is None:
        raise LabError(f"no package has the source of {base.name}: name a tree with "
                       "KERNEL=/path/to/linux")
    return from_base(base, progress)


def image(wanted: Wanted, source: Source, named: dict[str, str], arch: Arch, progress: Progress,
          other: Path | None = None) -> Path:
    """The guest's file system with the selftests, or with `other` alone.

    LabError where there is none of those that are `named`: by whom is said with each.
    """
    if wanted.ltp:
        programs, where = ltp.build(wanted.ltp, arch, progress), ltp.FOLDER
    else:
        programs = selftest.build(arch, progress, source, wanted.harness, other=other).programs
        where = selftest.FOLDER
    for name, who in named.items():
        if name not in programs:
            raise LabError(f"{who} names the test {name}, and {where} has none of that name")
    return initramfs.initramfs(programs, arch, progress)


def prepare(wanted: Wanted, arch: Arch, progress: Progress, only: tuple[str, ...] = KERNELS
            ) -> list[Trial]:
    """The kernels of wanted.defect, vulnerable and fixed, those of them that are asked for."""
    source = find_source(wanted, progress)
    if why := why_not(wanted.defect, arch, source.base.name):
        raise LabError(f"{wanted.defect.name}: {why}; another ARCH= may do")
    progress.step(f"making the variants of {source.version}")
    variants = variant.plan(source, wanted.defect, wanted.form)
    witness = has_witness(wanted, source)
    if witness:
        variants = (unmapped.added(source, variants[0]), unmapped.added(source, variants[1]))
    progress.done("; ".join(f"{one.name}: {one.how}" for one in variants))
    initrd = image(wanted, source, dict.fromkeys(
        wanted.programs(), f"defects/{wanted.defect.name}"), arch, progress)
    made = [one for one in variants if one.name in only]
    options = wanted.defect.kernel.options
    if witness:
        options = unmapped.options(options)
    kernels = {one.name: build.kernel(source, one, arch, wanted.debug, progress, options)
               for one in made}
    differ(kernels)
    # The last is the fixed one, where there are two.
    accel = qemu.choose_accel(wanted.accel, arch, kernels[made[-1].name].image, initrd, progress)
    return [Trial(wanted, source, one, kernels[one.name], initrd, arch, accel, witness)
            for one in made]


def has_witness(wanted: Wanted, source: Source) -> bool:
    """Whether the kernels get the check.  LabError where it was asked for, and there is none.

    With DEBUG=1 they get it if there is one: that asks for all that a kernel can check.
    """
    there = unmapped.there(source.base.name)
    if wanted.witness and not there:
        raise LabError(f"WITNESS=1: queue/{unmapped.ROOM.name} has nothing for "
                       f"{source.base.name}, only for {', '.join(unmapped.names())}")
    return there and (wanted.witness or wanted.debug)


def differ(kernels: dict[str, Kernel]) -> None:
    """LabError where two kernels came out the same: whatever they say, no verdict is in it."""
    images: dict[str, str] = {}
    for name, kernel in kernels.items():
        other = images.setdefault(kernel.identity["image_sha256"], name)
        if other != name:
            raise LabError(
                f"the {other} and the {name} kernel came out the same, byte for byte: what differs "
                "in their source is not built with this configuration, or was not when they were "
                f"made. For the latter, remove {kernel.image.parent} and "
                f"{kernels[other].image.parent} and run again")
