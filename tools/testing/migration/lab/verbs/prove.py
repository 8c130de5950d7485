# SPDX-License-Identifier: GPL-2.0
"""The main job: two kernels from one source, booted, and a verdict on what tells them apart."""

import dataclasses
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from lab import provenance
from lab.arch import Arch
from lab.base import Base, load as load_base
from lab.defect import Defect
from lab.errors import LabError
from lab.guest import initramfs, qemu, selftest
from lab.judge import klog, ktap, summary, verdict
from lab.judge.summary import Summary
from lab.kernel import build, variant
from lab.kernel.build import Kernel
from lab.kernel.source import Source, from_base, from_tree
from lab.kernel.variant import Variant
from lab.paths import need_plain_cache
from lab.progress import Progress
from lab.tell import result
from lab.wanted import BASE, KERNELS, Wanted

# MiB a node more: KASAN's shadow of all memory, an eighth of it, cannot be in movable memory.
DEBUG_MIB = 512

# Seconds that a vulnerable kernel gets to come to its end once it has died of the defect: locks that
# the dead hold may keep it from that for good.
LAST_WORDS = 20.0

# Whether a boot has shown all that it is asked for, from its results and complaints so far.
Enough = Callable[[ktap.Transcript, list[klog.Complaint]], bool]


@dataclass(frozen=True)
class Prepared:
    """Everything that a boot needs, for both variants."""

    source: Source
    variants: tuple[Variant, ...]           # vulnerable, fixed
    kernels: dict[str, Kernel]
    initrd: Path                            # the guest's file system, with the selftests
    arch: Arch


def find_source(base: str | None, kernel: Path | None, progress: Progress) -> Source:
    """The source that BASE= and KERNEL= name; Debian's 6.12 where neither does."""
    need_plain_cache()
    if kernel is not None:
        return from_tree(kernel, base, progress)
    chosen: Base = load_base(base or BASE)
    if chosen.package is None:
        raise LabError(f"no package has the source of {chosen.name}: name a tree with "
                       "KERNEL=/path/to/linux")
    return from_base(chosen, progress)


def image(wanted: Wanted, source: Source, named: dict[str, str], arch: Arch, progress: Progress,
          other: Path | None = None) -> Path:
    """The guest's file system with the selftests, or with `other` alone.

    LabError where there is none of those that are `named`: by whom is said with each.
    """
    programs = selftest.build(arch, progress, source, wanted.harness, other=other).programs
    for name, who in named.items():
        if name not in programs:
            raise LabError(f"{who} names the selftest {name}, and {selftest.FOLDER} has none "
                           "of that name")
    return initramfs.initramfs(programs)


def prepare(wanted: Wanted, arch: Arch, progress: Progress,
            only: tuple[str, ...] = KERNELS) -> Prepared:
    """Source, variants, kernels and the guest's file system."""
    source = find_source(wanted.base, wanted.kernel, progress)
    progress.step(f"making the variants of {source.version}")
    variants = variant.plan(source, wanted.defect, wanted.form)
    progress.done("; ".join(f"{one.name}: {one.how}" for one in variants))
    initrd = image(wanted, source, dict.fromkeys(
        wanted.defect.show.selftests, f"defects/{wanted.defect.name}"), arch, progress)
    kernels = {one.name: build.kernel(source, one, arch, wanted.debug, progress,
                                      wanted.defect.kernel.options)
               for one in variants if one.name in only}
    differ(kernels)
    return Prepared(source, variants, kernels, initrd, arch)


def differ(kernels: dict[str, build.Kernel]) -> None:
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


def run(wanted: Wanted, arch: Arch, progress: Progress) -> Summary:
    """Prepare, boot, judge, and write the results under wanted.out."""
    started = datetime.now(timezone.utc)
    began = time.monotonic()
    made = prepare(wanted, arch, progress)
    accel = qemu.choose_accel(wanted.accel, arch, made.kernels["fixed"].image, made.initrd,
                              progress)
    base = made.source.base.name
    home = wanted.out / f"{started:%Y%m%d-%H%M%S}-{wanted.defect.name}-{made.source.version}"
    runs: dict[str, list[verdict.Boot]] = {}
    kept = {}
    # Now, as somebody may work on the repository meanwhile.
    origin = provenance.of_run(arch, wanted.defect.show.selftests,
                               [one.how for one in made.variants],
                               provenance.rules_of(wanted.defect))
    try:
        for one in made.variants:
            folder = home / one.name
            kept[one.name] = keep(made, one, folder)
            boots = runs[one.name] = []
            for number in range(1, wanted.boots + 1):
                boots.append(boot(wanted, made, one, folder, number, accel, progress))
                _tell(boots[-1], wanted.defect, progress)
    except KeyboardInterrupt:
        # Half a run says nothing, and looks like a whole one.
        shutil.rmtree(home, ignore_errors=True)
        raise
    word, why = verdict.decide(runs["vulnerable"], runs["fixed"], wanted.boots,
                               wanted.defect.show.harm, wanted.defect.show.counts)
    whole = Summary(
        defect=wanted.defect.name, title=wanted.defect.title, base=base, arch=arch.name,
        accel=accel, debug=wanted.debug, command=wanted.command, source=dict(made.source.identity),
        compiler=made.kernels["fixed"].identity["compiler"],
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - began, 1), verdict=word, why=why,
        harm=wanted.defect.show.harm, counts=wanted.defect.show.counts, provenance=origin,
        variants={one.name: summary.kernel(one.how, one.places, runs[one.name], **kept[one.name])
                  for one in made.variants})
    result.write(whole, home)
    result.write(whole, wanted.out)
    return whole


def keep(made: Prepared, one: Variant, folder: Path) -> dict[str, Path]:
    """Put what the boots of a variant are made of into its folder, so that it can be moved."""
    kernel = made.kernels[one.name]
    try:
        folder.mkdir(parents=True)
        kept = {"image": folder / "image", "initrd": folder / "initrd",
                "config": folder / "config", "diff": folder / "variant.diff"}
        shutil.copyfile(kernel.image, kept["image"])
        shutil.copyfile(made.initrd, kept["initrd"])
        shutil.copyfile(kernel.config, kept["config"])
        kept["diff"].write_text(one.diff, "utf-8", "surrogateescape")
        (folder / "identity.json").write_text(json.dumps(kernel.identity, indent=2) + "\n", "utf-8")
    except OSError as err:
        raise LabError(f"cannot write to {folder} ({err.strerror}): free some space, or name "
                       "another folder with OUT=") from err
    return kept


def tests_of(wanted: Wanted, one: Variant, number: int) -> tuple[str, ...]:
    """Arguments for the selftests in boot `number` of a variant, from 1.

    A kernel that dies of its first test never comes to the others, so that each of its boots is
    one test's, in turn, after those that it does not die of.  Else all are run that are about the
    defect; what the user asks for is run in any case.
    """
    turns = wanted.defect.show.turns
    if wanted.tests:
        return wanted.tests
    if turns and one.name == "vulnerable":
        return wanted.defect.arguments(turns[(number - 1) % len(turns)])
    return wanted.defect.arguments()


def guest_of(wanted: Wanted, made: Prepared, accel: str, tests: tuple[str, ...] = ()
             ) -> qemu.Guest:
    """The guest that boots run in, with arguments for its selftests; its files are named as from
    the folder of a boot."""
    machine = wanted.defect.guest
    if wanted.debug:
        machine = dataclasses.replace(machine, nodes=(machine.nodes[0] + DEBUG_MIB,
                                                      machine.nodes[1] + DEBUG_MIB))
    env = [*machine.env, *([f"VIRTIO_MEM_QMP=/dev/{made.arch.third_console}"]
                           if machine.virtio_mem else [])]
    words = [f"lab.run={','.join(wanted.defect.show.selftests)}",
             f"lab.env={','.join(env)}" if env else "",
             # A base on which page poisoning cannot be had says so later in the line.
             "page_poison=1" if wanted.debug else "", made.source.base.cmdline,
             wanted.defect.kernel.cmdline]
    if tests:
        words.append(f"lab.args={','.join(tests)}")
    return qemu.Guest(made.arch, accel, Path("../image"), Path("../initrd"),
                      " ".join(word for word in words if word), machine)


def boot(wanted: Wanted, made: Prepared, one: Variant, home: Path, number: int, accel: str,
         progress: Progress, enough: Enough | None = None) -> verdict.Boot:
    """One boot in a folder of its own.  The caller ends the step with what came of it.

    A guest that has shown `enough` is ended; without that it runs to its end, unless the defect
    is fatal to it.
    """
    folder = home / f"boot-{number:02d}"
    folder.mkdir()
    for name in ("config", "identity.json"):
        (folder / name).hardlink_to(home / name)
    tests = tests_of(wanted, one, number)
    turn = "" if tests in (wanted.tests, wanted.defect.arguments()) else \
        f", its turn is {tests[-1]}"
    progress.step(f"booting the {one.name} kernel, {number} of {wanted.boots} "
                  f"({accel.upper()}){turn}")

    def watch(log: str, said: str) -> bool:
        seen = ktap.read(said)
        ran = seen.tests()
        planned = sum(program.planned or 0 for program in seen.programs)
        if planned:
            progress.update(f"{len(ran)} of {planned} tests")
        # Half a line may turn out to be harmless.
        complaints, symptoms = _complaints(wanted, made, one, log[:log.rfind("\n") + 1])
        if enough is None:
            return bool(verdict.sort_out(symptoms, wanted.defect.show.fatal)[1])
        return enough(seen, complaints)

    ended = qemu.boot(guest_of(wanted, made, accel, tests), folder, wanted.limit(), watch,
                      LAST_WORDS if enough is None else qemu.GRACE)
    return read(wanted, made, one, number, folder, accel, ended)


def _complaints(wanted: Wanted, made: Prepared, one: Variant, log: str
                ) -> tuple[list[klog.Complaint], list[klog.Complaint]]:
    """The complaints in a log, and those that are to be expected of this kernel."""
    # What the defect makes a kernel say of itself is evidence, but only where the defect is.
    # What its version says now and then in any case is told, and counts for nothing.
    expected = made.source.base.noise + (
        wanted.defect.show.symptoms if one.name == "vulnerable" else ())
    return verdict.sort_out(klog.read(log), expected)


def read(wanted: Wanted, made: Prepared, one: Variant, number: int, folder: Path, accel: str,
         ended: qemu.Outcome) -> verdict.Boot:
    """The boot that left its logs in `folder`, and ended so."""
    transcript = ktap.read((folder / "ktap.log").read_text("utf-8", "replace"))
    console = (folder / "console.log").read_text("utf-8", "replace")
    complaints, symptoms = _complaints(wanted, made, one, console)
    state = verdict.boot_state(transcript, complaints, ended.timed_out, ended.status,
                               ended.ended_early)
    return verdict.Boot(variant=one.name, number=number, folder=str(folder), seconds=ended.seconds,
                        accel=accel, transcript=transcript, complaints=complaints,
                        timed_out=ended.timed_out, guest_exit=ended.status, state=state,
                        symptoms=symptoms, ended_early=ended.ended_early)


def _tell(one: verdict.Boot, defect: Defect, progress: Progress) -> None:
    """End the step of a boot with what came of it."""
    sums = summary.boot(one)
    if (one.state == "DONE" or verdict.dies_of_it(one)) and not one.complaints:
        progress.done(f"{sums.tests} tests, {sums.failed} failed, {sums.migrations} "
                      f"{defect.show.counts}, {sums.lost_migrations} {defect.show.harm}"
                      + (f"; its log says: {one.symptoms[0].text}" if one.symptoms else "")
                      + ("; ended there" if one.ended_early else ""))
    else:
        console = Path(one.folder) / "console.log"
        progress.done("complaints in its log" if one.state == "DONE" else one.state)
        for line in klog.last_lines(console.read_text("utf-8", "replace"), 12):
            progress.note(f"  | {line}")
        progress.note(f"  all of it: {console}")
