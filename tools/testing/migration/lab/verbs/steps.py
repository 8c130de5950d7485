# SPDX-License-Identifier: GPL-2.0
"""Builds and boots a kernel after each patch of a queue, and says what a step has that the one
before it had not.

Whoever bisects stops at any of the patches: each must build and boot, and none may bring a crash
that a later one mends.  What the kernel as released does wrong, and what a patch has not mended
yet, is no news.  Step 0 is that kernel, as it is (lab/kernel/stepwise.py), and each step is
compared with the last before it that booted (lab/judge/news.py).

One folder of objects serves all, so a step costs what its patch makes compile anew.  Where a patch
leaves the image as it was, byte for byte, such as one for another architecture, there is nothing to
boot: the boots of the step before are its own.

Without DEFECT= the tests are those of two defects, lab.wanted.STEP_DEFECTS.  All of the first look
for lost writes under each trigger of a migration, in seconds.  Of the second it is the variants
that a kernel with that defect dies of: several processes migrate, fault, unmap and fork at once,
which is what a fix must survive that is there by half.  The tests of all defects that a queue mends
want options and guests that differ, and each step would take many boots.

A kernel that has crashed is ended soon after that: what it does then says nothing.  So selftests
that kernels die of should come last, as they do by default.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

from lab import booted, defect, provenance, trial
from lab.arch import Arch
from lab.booted import Booted
from lab.defect import Defect, Show
from lab.errors import LabError, NotBuilt
from lab.guest import qemu
from lab.judge import news
from lab.judge.klog import FATAL, Complaint
from lab.judge.ktap import Transcript
from lab.kernel import build, stepwise
from lab.kernel.build import Kernel
from lab.paths import REPO, remove, replace
from lab.progress import Progress
from lab.trial import Trial
from lab.verbs import steptable
from lab.verbs.series import subjects
from lab.verbs.steptable import REPORT, Row, Run, utc
from lab.wanted import STEP_DEFECTS, Wanted

_RELEASED = "(as released)"


def asked(names: Sequence[str] = ()) -> tuple[Defect, tuple[str, ...]]:
    """What shows the defects `names`, or those that are tried by default, in one guest; and the
    arguments for their selftests.

    LabError where no selftest shows one, and where they cannot run in one guest.
    """
    some = [defect.load(name) for name in names or STEP_DEFECTS]
    if untold := [one.name for one in some if not one.show.selftests]:
        raise LabError(f"no selftest shows {untold[0]}, only make audit finds it")
    tests = tuple(dict.fromkeys(test for one in some for test in one.show.selftests))
    first = defect.joined(some[0], some[1:], tests)
    words: dict[tuple[str, str], None] = {}
    for one in some:
        # Of a defect that names no variants all are about it; what kernels die of is named.
        chosen = [name for named in (*one.show.variants, *one.show.turns) for name in named.split()]
        words |= {("-f" if name in tests else "-v", name): None
                  for name in chosen or one.show.selftests}
    # All of all of them need no arguments.
    every = set(words) == {("-f", name) for name in tests}
    show = Show(selftests=tests, harm=first.show.harm, counts=first.show.counts)
    return dataclasses.replace(first, show=show, amplifier=None), \
        () if every else tuple(word for pair in words for word in pair)


def dead(_transcript: Transcript, complaints: list[Complaint]) -> bool:
    """Whether a boot has shown all that it can: its kernel is not what it was."""
    return any(complaint.kind in FATAL for complaint in complaints)


def run(wanted: Wanted, first: int | None, last: int | None, arch: Arch, progress: Progress,
        tell: Callable[[str], None], resume: bool = False) -> Run:
    """Build and boot the steps `first` to `last`, all for None; write the results under wanted.out,
    anew after each step, and `tell` a line of each.

    `wanted.defect` is what asked() gives.  To `resume` is to boot no kernel that a run in
    wanted.out has booted already.
    """
    started, began = datetime.now(timezone.utc), time.monotonic()
    source = trial.find_source(wanted, progress)
    every = stepwise.patches(source.base.name, wanted.form)
    numbers = stepwise.bounds(first, last, source.base.name, len(every))
    file = f"series.{wanted.form}" if wanted.form else "series"
    needs, programs = wanted.defect, wanted.programs()
    progress.step(f"making the steps of {source.version}")
    # All of them before the first is built: a patch that does not apply is to say so at once.
    made = stepwise.steps(source, wanted.form, numbers, needs.kernel.add)
    progress.done(f"{len(made)}, the last of them {made[-1].variant.how}")
    initrd = trial.image(wanted, source, dict.fromkeys(programs, "a step"), arch, progress)
    rows = [Row(step, subjects([step.patch.read_text("utf-8", "surrogateescape")])[0]
                if step.patch else _RELEASED) for step in made]
    home = wanted.out / f"{started:%Y%m%d-%H%M%S}-steps-{source.version}"
    there = booted.earlier(wanted.out, REPORT, "steps") if resume else {}
    origin = provenance.of_run(arch, programs, [step.variant.how for step in made],
                               [REPO / name for name in needs.kernel.add])
    done = Run(wanted, source, f"queue/{source.base.name}/{file}", arch.name, started, rows, origin)

    def save() -> None:
        done.seconds = time.monotonic() - began
        text = json.dumps(steptable.report(done), indent=2) + "\n"
        replace(home / REPORT, text)
        replace(wanted.out / REPORT, text)

    def built(row: Row) -> Kernel | None:
        try:
            kernel = build.kernel(source, row.step.variant, arch, wanted.debug, progress,
                                  needs.kernel.options)
        except NotBuilt as err:
            progress.done("it does not build")
            row.error, row.log = str(err), err.log or ""
            return None
        row.seconds = None if kernel.cached else kernel.seconds
        if not done.accel:
            done.accel = qemu.choose_accel(wanted.accel, arch, kernel.image, initrd, progress)
            done.compiler = kernel.identity["compiler"]
        return kernel

    def boots(one: Trial) -> Booted:
        identity = booted.identity(one)
        taken = booted.take_over(there.get(one.name, []), identity, one)
        # What gave no result is booted again.
        if taken and any(boot.complaints or boot.state == "DONE" for boot in taken.boots):
            progress.note(f"the {one.name} kernel was booted in the run of {taken.ran}")
            return taken
        new = Booted(identity, str(home / one.name), utc(started))
        one.keep(home / one.name)
        for number in range(1, wanted.boots + 1):
            new.boots.append(one.boot(home / one.name, number, progress, dead))
            progress.done(new.boots[-1].state)
        return new

    images: dict[str, Row] = {}             # the last step's alone
    before: list[news.Tried] = []           # those that came up, the last of them first
    try:
        for number, row in enumerate(rows):
            kernel = built(row)
            if kernel:
                image = kernel.identity["image_sha256"]
                if image in images:
                    row.same, row.booted = images[image].number, images[image].booted
                else:
                    row.booted = boots(Trial(wanted, source, row.step.variant, kernel, initrd, arch,
                                             done.accel))
                images = {image: row}
                up = [boot for boot in row.boots if news.came_up(boot)]
                row.news = news.news(news.Tried(row.number, up), before) if up else []
                if up:
                    before.insert(0, news.Tried(row.number, up))
            row.done = True
            if not number:
                tell(steptable.HEAD)
            tell(steptable.line(row))
            save()
    except KeyboardInterrupt:
        # A boot that did not come to its end says nothing; those of the steps before it stay.
        for half in [row for row in rows if not row.done][:1]:
            remove(home / half.step.variant.name)
        with contextlib.suppress(OSError):
            home.rmdir()
            wanted.out.rmdir()
        raise
    done.whole = True
    save()
    return done
