# SPDX-License-Identifier: GPL-2.0
"""The verbs of the lab: `migration.py VERB`, or `make VERB`."""

import argparse
import dataclasses
import errno
import json
import os
import re
import shlex
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab import arch, base as bases, defect, deps, fragment, mutant, options, scheme, trial
from lab.errors import LabError
from lab.guest import ltp, qemu, selftest
from lab.host import preflight
from lab.kernel import source, stepwise, testseries, variant
from lab.paths import INSTALLED, REPO, replace, scratch_dir
from lab.progress import Progress, spent
from lab.tell import audited, docs, record, report, rst, text
from lab.tell.audited import Audited
from lab.verbs import (audit, bench, guestrun, hosttest, kselftest, listing, mailing, matrix, model,
                       mutants, package, prove, series, steps, steptable, upstream)
from lab.wanted import BOOTS, DEFECT, MATRIX_BOOTS, MUTANT_BOOTS, ROUNDS, SERIES, Wanted
from lab.words import plural

# Exit status: 0 only for PROVED, and where each mutant was killed that can be; another verdict; an
# error of the user's or the machine's.
NOT_PROVED, ERROR, NOTHING_RAN, INTERRUPTED = 1, 2, 3, 130

# They boot tests of LTP, too.
_WITH_LTP = ("prove", "shell")

# What a run can be repeated with.
_REPEATS = tuple(option for verb in options.VERBS if verb.name == "prove"
                 for option in verb.takes if option is not options.OUT)


def _folder(path: Path | None, default: Path) -> Path:
    return path.expanduser() if path else default


def _path(path: Path | None) -> Path | None:
    return path.expanduser() if path else None


def _arch(args: argparse.Namespace) -> arch.Arch:
    return arch.load(args.arch)


def _word(said: Any) -> str:
    """What was said of an option, as it is said again."""
    return "1" if said is True else ",".join(said) if isinstance(said, tuple) else str(said)


def _wanted(args: argparse.Namespace, boots: int = BOOTS, one: defect.Defect | None = None
            ) -> Wanted:
    """What was asked for; `one` stands in for the defect that is named."""
    def said(option: options.Option) -> Any:
        # A verb that does not take an option has none of its name.
        return getattr(args, option.name, option.default)
    harness, ltp_tree = _harness(said(options.HARNESS), said(options.LTP), args)
    unused = options.LTP if said(options.HARNESS) != Path(ltp.NAME) else None
    given = [f"{option.variable}={shlex.quote(_word(said(option)))}"
             for option in _REPEATS if said(option) and option is not unused]
    return Wanted(
        defect=defect.asking(
            defect.sized(one or defect.load(said(options.DEFECT) or DEFECT)),
            (fragment.line(*word.split("=")) for word in said(options.KCONFIG).split())),
        base=args.base or None,
        kernel=_path(args.kernel),
        boots=said(options.BOOTS) or boots,
        accel=args.accel or None,
        debug=said(options.DEBUG),
        timeout=said(options.TIMEOUT),
        tests=tuple(said(options.TESTS).split()),
        out=_folder(said(options.OUT), REPO / "out"),
        command=" ".join(["make", args.verb, *given]),
        harness=harness,
        ltp=ltp_tree,
        form=said(options.FORM),
        witness=said(options.WITNESS))


def _harness(named: Path | None, tree: Path | None, args: argparse.Namespace
             ) -> tuple[Path | None, Path | None]:
    """What HARNESS= and LTP= come to: a kernel tree whose harness is used, or a tree of LTP whose
    tests are run."""
    kept, verb = _path(named), args.verb
    if named == Path(ltp.NAME):
        found = ltp.find(tree) if verb in _WITH_LTP else None
    elif kept and ltp.is_tree(kept):
        if tree and options.LTP.name not in args.found:
            raise LabError("HARNESS= names a tree of LTP already: leave LTP= out")
        found = ltp.find(kept)
    else:
        # Who works on LTP may have it in their environment for good.
        if tree and options.LTP.name not in args.found:
            raise LabError("LTP= goes with HARNESS=ltp, which runs its tests")
        return kept, None
    if found is None or verb not in _WITH_LTP:
        raise LabError(f"HARNESS={named} is for {' and '.join(_WITH_LTP)}: {verb} runs the kernel's "
                       "selftests")
    return None, found


def _prove(args: argparse.Namespace, progress: Progress) -> int:
    wanted = _wanted(args)
    if not wanted.defect.show.selftests:
        raise LabError(f"no selftest shows {wanted.defect.name}, so it cannot be proved: "
                       "only make audit finds it")
    if not wanted.programs():
        shown = [name for name in defect.names() if defect.load(name).show.ltp]
        raise LabError(f"no test of LTP shows {wanted.defect.name}: they show {', '.join(shown)}")
    row = _arch(args)
    deps.ensure(progress, deps.boot(row, deps.LTP if wanted.ltp else ()))
    run = prove.run(wanted, row, progress)
    print(f"\n{text.summary(run, wanted.out)}{_took(progress)}")
    return 0 if run.verdict == "PROVED" else NOT_PROVED


def _bench(args: argparse.Namespace, progress: Progress) -> int:
    rounds = args.rounds or ROUNDS
    wanted = _wanted(args, rounds)
    wanted = dataclasses.replace(wanted, command=f"{wanted.command} ROUNDS={rounds}")
    file = _path(args.output)
    if file and file.is_dir():
        raise LabError(f"O={file} is a folder: name a file for the tables")
    row = _arch(args)
    deps.ensure(progress, deps.boot(row))
    made = bench.run(wanted, row, progress)
    print(f"\n{bench.summary(made)}\nResults: {wanted.out}/bench.json")
    if file:
        replace(file, rst.bench(made))
        print(f"         {file}")
    print(f"Repeat:  {wanted.command}\n{_took(progress)}")
    return 0


def _model(args: argparse.Namespace, progress: Progress) -> int:
    schemes = scheme.load()
    if args.scheme:
        names = [one.name for one in schemes]
        if args.scheme not in names:
            raise LabError(f"no scheme {args.scheme}: there are {', '.join(names)}")
        schemes = [one for one in schemes if one.name == args.scheme]
    deps.ensure(progress, deps.MODEL)
    outcomes = model.run(schemes, args.full, progress, tell=bool(args.scheme))
    print(model.summary(schemes, outcomes))
    return 0 if all(one.right() for one in outcomes) else NOT_PROVED


def _took(progress: Progress) -> str:
    """What a run cost, on the clock and of the processors."""
    wall = time.monotonic() - progress.began
    return f"Took:    {wall:.0f} s, {spent():.0f} s of CPU time on {os.cpu_count()} CPUs"


def _mutants(args: argparse.Namespace, progress: Progress) -> int:
    if args.mutant:
        mutant.load(args.mutant)
    wanted = _wanted(args, MUTANT_BOOTS)
    if args.mutant:
        wanted = dataclasses.replace(wanted, command=f"{wanted.command} MUTANT={args.mutant}")
    row = _arch(args)
    deps.ensure(progress, deps.boot(row))
    try:
        run = mutants.run(wanted, args.mutant, row, progress, args.resume)
    except KeyboardInterrupt:
        progress.note("RESUME=1 continues: what was booted is not booted again")
        raise
    print(f"\n{mutants.summary(run, wanted.out)}")
    return 0 if run.passed() else NOT_PROVED


def _steps(args: argparse.Namespace, progress: Progress) -> int:
    first, last = args.__dict__["from"], args.to
    if first is not None and last is not None:
        # Before a tree is copied: how many there are is not known yet.
        stepwise.bounds(first, last, "", max(first, last))
    one, arguments = steps.asked(args.defect)
    wanted = _wanted(args, one=one)
    bounds = [f"{name}={number}" for name, number in (("FROM", first), ("TO", last))
              if number is not None]
    wanted = dataclasses.replace(wanted, tests=wanted.tests or arguments,
                                 command=" ".join([wanted.command, *bounds]))
    row = _arch(args)
    deps.ensure(progress, deps.boot(row))
    try:
        run = steps.run(wanted, first, last, row, progress,
                        lambda line: print(line, flush=True), args.resume)
    except KeyboardInterrupt:
        progress.note("RESUME=1 continues: what was booted is not booted again")
        raise
    print(f"\n{steptable.summary(run, wanted.out)}{_took(progress)}")
    return 0 if run.passed() else NOT_PROVED


def _matrix(args: argparse.Namespace, progress: Progress) -> int:
    trees = _path(args.trees)
    if trees and not trees.is_dir():
        raise LabError(f"TREES={args.trees}: there is no such folder")
    boots = args.boots or MATRIX_BOOTS
    words = [f"BOOTS={boots}", *(f"{option.variable}={'1' if said is True else said}"
                                 for option in (options.DEBUG, options.ACCEL, options.TIMEOUT)
                                 if (said := getattr(args, option.name)))]
    given = [*([f"DEFECT={','.join(args.defect)}"] if args.defect else []),
             *(words if args.boots else words[1:]),
             *([f"TREES={args.trees}"] if trees else []), *(["FORCE=1"] if args.force else [])]
    scope = matrix.Scope(
        args.defect, args.base, args.arch, _folder(args.out, REPO / "out").absolute(),
        trees and trees.absolute(), _path(args.hosts), boots, args.boots or 0, args.debug,
        args.force, tuple(words), matrix.command(given))
    return matrix.run(scope, "" if args.plan == "0" else args.plan, progress)


def _shell(args: argparse.Namespace, progress: Progress) -> int:
    name = args.variant or "vulnerable"
    wanted = _wanted(args)
    row = _arch(args)
    deps.ensure(progress, deps.boot(row, deps.LTP if wanted.ltp else ()))
    [made] = trial.prepare(wanted, row, progress, only=(name,))
    what = qemu.Guest(made.arch, made.accel, made.kernel.image, made.initrd, " ".join(
        ["lab.shell", "quiet", made.source.base.cmdline, made.defect.kernel.cmdline]),
        made.machine())
    progress.note(f"the {name} kernel {made.source.version}, {made.accel.upper()}; "
                  "Ctrl-A X ends it")
    with scratch_dir("lab-shell-") as folder:
        os.chdir(folder)
        # In the foreground of the terminal, and Ctrl-C is the guest's.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            words = qemu.command(what, "stdio", None)
            return os.spawnvp(os.P_WAIT, words[0], words)
        finally:
            signal.signal(signal.SIGINT, before)


def _list(args: argparse.Namespace, _progress: Progress) -> int:
    # Who runs `make check` may have FULL=1 in the environment.
    if args.full and args.base and options.FULL.name not in args.found:
        raise LabError("FULL=1 is all of all bases: leave BASE= out")
    if args.base:
        print(listing.of_base(args.base, args.defect))
    elif args.defect:
        print("\n\n".join(listing.detail(defect.load(name)) for name in args.defect))
    else:
        print(listing.full() if args.full else listing.overview())
    return 0


def _selftests(args: argparse.Namespace, progress: Progress) -> int:
    if not args.dest:
        raise LabError("name a folder for the selftests with DEST=")
    row = _arch(args)
    deps.ensure(progress, deps.of(row, deps.SELFTESTS))
    dest = _folder(args.dest, REPO)
    dest.mkdir(parents=True, exist_ok=True)
    built = selftest.build(row, progress, harness=_path(args.harness))
    for name, path in built.programs.items():
        shutil.copy2(path, dest / name)
        print(dest / name)
    return 0


def _kselftest(args: argparse.Namespace, progress: Progress) -> int:
    one = defect.load(args.defect) if args.defect else None
    names = one.show.selftests if one else ()
    if args.defect and not names:
        raise LabError(f"no selftest shows {args.defect}, only make audit finds it")
    if args.tests and not names:
        raise LabError("TESTS= are arguments of one selftest: name what it is to show with DEFECT=")
    tests = tuple(args.tests.split()) or (one.arguments() if one else ())
    if args.base or args.kernel:
        stream = _kselftest_guest(args, names, progress)
    else:
        here = [option.name for option in (options.DEFECT, options.TESTS, options.HARNESS)]
        strange = [option.variable for option in (*_REPEATS, options.OUT, options.GUEST_VARIANT)
                   if option.name not in here and getattr(args, option.name, option.default)]
        if strange:
            raise LabError(f"{strange[0]}= is for a guest: name its kernel with BASE= or KERNEL=")
        stream = _kselftest_here(args, names, tests, progress)
    print(stream.summary(), file=sys.stderr)
    return NOT_PROVED if stream.failed else 0


def _kselftest_here(args: argparse.Namespace, names: tuple[str, ...], tests: tuple[str, ...],
                    progress: Progress) -> kselftest.Stream:
    deps.ensure(progress, deps.SELFTESTS)
    folder = kselftest.install(arch.load(), progress, harness=_path(args.harness))
    kselftest.die_with_parent()
    try:
        return kselftest.run(kselftest.command(folder, names), kselftest.arguments(names, tests),
                             lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        progress.note("the selftests were stopped, and what they had changed is restored")
        raise


def _hosttest(args: argparse.Namespace, progress: Progress) -> int:
    outcome = hosttest.Outcome("error")
    try:
        outcome = _hosttest_run(args, outcome, progress)
    finally:
        # Also where something went wrong, which is told on standard error.
        if not args.plan:
            print(outcome.line(), flush=True)
    if outcome.restored == "no":
        raise LabError("something of this machine is not as it was: see above what")
    return {"passed": 0, "skipped": NOTHING_RAN, "refused": ERROR, "interrupted": INTERRUPTED
            }.get(outcome.status, NOT_PROVED)


def _hosttest_run(args: argparse.Namespace, outcome: hosttest.Outcome, progress: Progress
                  ) -> hosttest.Outcome:
    one = defect.load(args.defect) if args.defect else None
    if one and not one.show.selftests:
        raise LabError(f"no selftest shows {args.defect}, only make audit finds it")
    if INSTALLED and args.harness:
        raise LabError("HARNESS= is for who builds the selftests: the package has them")
    plan = hosttest.plan(one.show.selftests if one else ())
    print(preflight.told(plan), file=sys.stdout if args.plan else sys.stderr)
    if why := plan.against():
        said = f"{'; '.join(why)}: FORCE=1 runs the tests all the same"
        if args.plan or not args.force:
            outcome.status = "refused"
            raise LabError(said)
        progress.note(said.replace("FORCE=1 runs the tests all the same", "going on, as FORCE=1"))
    if args.plan:
        return hosttest.Outcome("passed" if plan.runs() else "skipped")
    if not hosttest.is_root():
        raise LabError("the tests need root: use sudo")
    if not INSTALLED:
        deps.ensure(progress, deps.SELFTESTS)
    home = hosttest.folder(arch.load(), progress, _path(args.harness))
    # What was built here may have taken a while, and memory.
    plan = hosttest.plan([need.name for need in plan.tests])
    kselftest.die_with_parent()
    wanted = hosttest.brief if hosttest.to_terminal() else lambda _line: True
    return hosttest.run(home, plan, progress,
                        lambda line: print(line, flush=True) if wanted(line) else None)


def _kselftest_guest(args: argparse.Namespace, names: tuple[str, ...], progress: Progress
                     ) -> kselftest.Stream:
    variant = args.variant or "fixed"
    wanted = _wanted(args)
    row = _arch(args)
    deps.ensure(progress, deps.boot(row, deps.SERIES_GUEST if variant == SERIES else ()))
    return guestrun.run(wanted, variant, names, row, progress,
                        lambda line: print(line, flush=True))


def _series_told(made: series.Series, apply: str, mail: Sequence[str], have: Sequence[str] = (),
                 checked: bool = False) -> None:
    """Say what was written: first what is to be read, then how to apply it, and at the end how to
    mail what may be mailed."""
    folder = made.patches[0].parent
    print(f"{folder}: {plural(len(made.patches), 'patches')}"
          f"{', all of them, in order' if made.held else ''}")
    for name in have:
        print(f"  left out: {name}, which the tree has")
    # A tree that was looked at lacks what applies to it.
    for patch in () if checked else made.patches:
        if mailing.left_out(patch.read_text(encoding="utf-8")):
            print(f"  leave out {patch.name} for a tree that has it: the patch says from when on")
    if made.reports:
        print("  first read these mails, which say where they and their patches go:")
    for path in made.reports:
        print(f"    {path}{' (no list)' if path.parent.name == series.PRIVATE else ''}")
    if made.held and not made.public:
        print("  for no list yet: any of them")
    else:
        for path, why in made.held.items():
            print(f"  for no list yet: {path.name} ({why})")
    if made.document:
        print(f"  when the page that it changes is there: {made.document}, a patch, too.")
    print(apply, end="")
    mailed = made.mailed()
    if mailed and made.held:
        print(f"{mailed.patches[0].parent}: {plural(len(mailed.patches), 'patches')} of these that "
              "may go to lists, numbered on their own")
    for line in mail:
        print(f"  {line}")


def _how_to_mail(name: str, part: str, made: series.Series) -> list[str]:
    """How to mail a part, or why not."""
    mailed = made.mailed()
    if not mailed:
        names = [why for why in dict.fromkeys(made.held.values()) if why in defect.names()]
        branch = series.branch(name)
        return [f"{branch} has ended: it goes to who keeps that, and to no list, for what it says "
                f"of {', '.join(names)}" if mailing.ended(name) else
                "nothing of it may go to a list yet: the reports say to whom it goes"]
    if part in testseries.parts() and (shown := mailing.shows(name, part)):
        return ["not to be mailed before what it shows is public: "
                + ", ".join(f"{test} ({what})" for test, what in shown.items())]
    if lack := _without_upstream([mailed]):
        return [lack[0].lower() + lack[1:].rstrip()]
    folder = mailed.patches[0].parent
    recipients = folder / mailing.RECIPIENTS
    return [f"git send-email $(cat {recipients}) {folder}/*.patch"] if recipients.exists() else \
        ["to mail it: name the kernel tree that it is for with KERNEL=, which says to whom"]


def _mail(name: str, part: str, out: Path, tree: Path | None, progress: Progress,
          clone: upstream.Clone | None = None, have: Sequence[str] = (),
          hold: Mapping[str, str] | None = None) -> int:
    touched = ltp.touched() if part == ltp.NAME else ()
    on = mailing.ground(tree, touched) if tree else None
    asks = ", and asking whom MAINTAINERS names" if on and on.asked(name) else ""
    written = mailing.write(name, out, part, on, clone,
                            lambda one: progress.note(f"writing {one}{asks}"), have, hold)
    print(_without_upstream(written), end="")
    for made in written:
        folder = made.patches[0].parent
        home = folder.parent if made.held else folder
        base = next((one for one in reversed(series.queues()) if series.branch(one) == home.name),
                    "") if part == mailing.STABLE else name
        mail = _how_to_mail(base, home.name if part == mailing.ALL else part, made)
        if part == mailing.STABLE and mailing.ended(base) and made.mailed():
            mail.append(f"{home.name} has ended, and stable@ takes nothing for it: name who keeps "
                        "it, with --to=")
        apply = mailing.to_apply(made.patches, tree.resolve() if tree else None) \
            if part not in (mailing.STABLE, ltp.NAME) else ""
        which = {one for one, _text in mailing.patches(
            base, home.name if part == mailing.ALL else part)} if base and have else set()
        _series_told(made, apply, mail, [one for one in have if one in which], bool(tree))
    if on and name and not asks and any(out.rglob(mailing.RECIPIENTS)):
        print(f"Recipients are those of {mailing.STABLE_RECIPIENTS.relative_to(REPO)}, who keep "
              f"hugetlb today: MAINTAINERS of {tree} was not asked.")
    if not on and part == ltp.NAME:
        print("For base-commit, name a tree of LTP with LTP=.")
    elif not on and part != mailing.STABLE:
        print("For base-commit, name a kernel tree that git keeps with KERNEL=.")
    elif on and not on.commit:
        print(f"Without base-commit: git does not keep {tree}.")
    return 0


def _without_upstream(made: Sequence[series.Series]) -> str:
    """What the patches lack that are commits of mainline, as a line; "" where it is nothing."""
    mails = [path.read_text(encoding="utf-8") for one in made for path in one.patches]
    lack = sum(map(upstream.of_lab, mails))
    what = "is a commit" if lack == 1 else "are commits"
    return f"Not to be mailed yet: {lack} of the {plural(len(mails), 'patches')} {what} of mainline " \
           "with the lab's author and text. Name a clone of mainline with UPSTREAM=.\n" \
        if lack else ""


def _series_ltp(args: argparse.Namespace, out: Path, progress: Progress) -> int:
    if args.base or args.kernel:
        raise LabError("SERIES=ltp is for no kernel: leave BASE= and KERNEL= out, and name LTP's "
                       "source with LTP=, to check it against that")
    tree = ltp.find(args.ltp) if args.ltp else None
    if tree:
        ltp.check(tree)
    status = _mail("", ltp.NAME, out, tree, progress)
    print(f"To apply it:  git am -s {out}/000[1-9]-*.patch")
    return status


def _series_of(args: argparse.Namespace) -> str:
    """The base that a series is for, "" for none; LabError for what can be known to be wrong
    before a tree is copied."""
    lacks = [] if args.output else ["an empty folder for the series with O="]
    if not (args.base or args.kernel or args.part in (mailing.STABLE, ltp.NAME)):
        lacks.append("a base with BASE=, or a tree that the series is for with KERNEL=")
    if lacks:
        raise LabError(f"name {', and '.join(lacks)}")
    if args.part and args.form:
        raise LabError("SERIES= is of the usual form of the queue: leave FORM= out")
    if args.part == ltp.NAME:
        if args.upstream and options.UPSTREAM.name not in args.found:
            raise LabError("UPSTREAM= goes with patches of a kernel: leave it out with SERIES=ltp")
    elif args.ltp and options.LTP.name not in args.found:
        raise LabError("LTP= goes with SERIES=ltp")
    name = str(args.base or "")
    if args.kernel and args.part != ltp.NAME:
        version = source.kernel_version(args.kernel.expanduser())
        name = name or bases.for_version(version).name
    if args.part != ltp.NAME:
        if wrong := mailing.unknown(name, args.part) if args.part else None:
            raise wrong
        if name and not args.part:
            series.there(name, args.form)
    series.free(args.output.expanduser())
    return name


def _series(args: argparse.Namespace, progress: Progress) -> int:
    name = _series_of(args)
    out = args.output.expanduser()
    if args.part == ltp.NAME:
        return _series_ltp(args, out, progress)
    clone = upstream.clone(args.upstream.expanduser()) if args.upstream else None
    if clone and name:
        mailing.commits(name, args.form, clone)
    alone = args.part == mailing.FIXES
    have: list[str] = []
    if args.kernel:
        tree = source.from_tree(args.kernel.expanduser(), args.base or None, progress,
                                lambda name: series.files(name, args.form, alone))
    if name in testseries.names() and not args.form and not alone:
        deps.ensure(progress, deps.SERIES)
    if args.kernel:
        progress.step(f"applying the series for {tree.base.name} to a copy of {tree.version}")
        wanted, have = series.check(tree, args.form, alone)
        progress.done(f"every patch applies, or is there: {len(have)} are" if have else
                      "every patch applies")
        if args.part and args.part not in (mailing.FIXES, mailing.ALL):
            of_part = [one for one, _text in mailing.patches(name, args.part)]
            wanted = [one for one in wanted if one in of_part]
        if not wanted:
            print(f"{plural(len(have), 'patches')} of queue/{name} are in {args.kernel}: there is "
                  "nothing to do, and nothing was written.")
            return 0
    if args.part:
        hold = mailing.held(name) if name else {}
        if hold and args.kernel:
            # Beside what a vendor has, they may need more of each other.
            public = [path for path in variant.series(name)
                      if path.name in wanted and path.name not in hold]
            fitting = variant.fitting(tree, public)
            hold |= {path.name: f"does not apply to {args.kernel} without these"
                     for path in public if path not in fitting}
        return _mail(name, args.part, out, args.kernel and args.kernel.expanduser(), progress,
                     clone, have, hold)
    made = series.write(name, out, args.form, clone, have)
    for path in (made.cover, *made.patches):
        if path:
            print(path)
    print()
    if args.form:
        print(f"FORM={args.form} is {series.FORMS[args.form]}.")
    print(_without_upstream([made]), end="")
    _series_told(made, mailing.to_apply(made.patches,
                                 args.kernel and args.kernel.expanduser().resolve()),
          ["to mail it: SERIES=fixes" + (", or another part" if len(mailing.parts(name)) > 1 else "")]
          if not args.form else [], have, bool(args.kernel))
    return 0


# How each kernel is named, by who has the lab and by who has the package; and who asks that.
_AUDITS = (
    ("KERNEL=DIR", "DIR",
     "who builds one: has this source a defect, and what is to be applied?"),
    ("RUNNING=1", "--running",
     "who runs one: has the kernel of this machine any of the defects?"),
    ("IMAGE=/boot", "--image /boot",
     "who keeps machines: which of these kernels, or of one file, have any?"))


def _audits() -> str:
    rows = [(f"pmd-share-audit {packed}" if INSTALLED else f"make audit {variable}", what)
            for variable, packed, what in _AUDITS]
    width = max(len(words) for words, _what in rows)
    return "\n".join(["name a kernel:", *(f"  {words:{width}}   {what}" for words, what in rows)])


def _audit(args: argparse.Namespace, progress: Progress) -> int:
    misused = _misused(args)
    try:
        if misused:
            raise LabError(misused)
        return _told([dataclasses.replace(one, accepted=frozenset(args.accept))
                      for one in _audited(args, progress)], args.format)
    except LabError as err:
        if args.format == "nrpe":
            # Who runs it reads standard output, and takes the exit status 2 for an alarm.
            return _no_check(str(err))
        # So does who takes the others: without a word of it, what was true before stays.  What
        # names no kernel, or not one way of it, is for who wrote it.
        if args.format != "text" and not misused:
            _told([_unread(args, str(err))], args.format)
        raise


def _misused(args: argparse.Namespace) -> str:
    """What is wrong with how kernels are named, whatever is there."""
    if not args.kernel and not args.image and not args.running:
        return _audits()
    if args.running and (args.kernel or args.image):
        return "RUNNING=1 finds its image by itself: leave KERNEL= and IMAGE= out"
    if args.symbols and not args.image:
        return "SYMBOLS= is of an image: name it with IMAGE="
    return ""


def _unread(args: argparse.Namespace, why: str) -> Audited:
    """What was named and cannot be looked at, by the path that it has when it can be."""
    named = [str(args.kernel.expanduser().resolve())] if args.kernel else []
    named += [args.image] if args.image else []
    named += ["the kernel that runs"] if args.running else []
    return Audited(" and ".join(named), error=why, tree=bool(args.kernel))


def _audited(args: argparse.Namespace, progress: Progress) -> list[Audited]:
    """The kernels that are named, each looked at."""
    # Who has the package may lack what his images do not need: what they need is told.
    deps.ensure(progress, (*(deps.COCCINELLE if args.kernel else ()),
                           *(deps.IMAGE if not INSTALLED and (args.image or args.running) else ())))
    symbols = _path(args.symbols)
    reading = progress.step if sys.stderr.isatty() else lambda _what: None
    try:
        if args.kernel:
            tree = args.kernel.expanduser().resolve()
            row = arch.load(args.arch) if args.arch else None
            if args.image:
                return [audit.of_both(tree, args.image, symbols, row, reading, args.defect)]
            reading(f"reading {tree}")
            return [audit.of_tree(tree, row, args.defect)]
        if args.running:
            return [audit.of_running(args.defect)]
        return audit.of_images(args.image, symbols, reading, args.defect)
    finally:
        progress.stop()


def _told(kernels: Sequence[Audited], form: str) -> int:
    """Tell what was found of `kernels`, and the exit status."""
    if form == "nrpe":
        line, status = audited.nrpe(kernels)
        print(line)
        return status
    if form == "prometheus":
        print(audited.prometheus(kernels))
    elif form == "json":
        reports = [audited.report(one) for one in kernels]
        print(json.dumps(reports[0] if len(reports) == 1 else {"kernels": reports}, indent=2))
    else:
        print(audited.summary(kernels[0]) if len(kernels) == 1 else audited.table(kernels))
    if any(one.error for one in kernels):
        return ERROR
    return 0 if all(one.safe for one in kernels) else NOT_PROVED


def _record(args: argparse.Namespace, _progress: Progress) -> int:
    print(record.last(_folder(args.out, REPO / "out")))
    return 0


def _report(args: argparse.Namespace, _progress: Progress) -> int:
    # An OUT= in which there is nothing was not what was meant; a new clone has records alone.
    print(report.write(_folder(args.out, REPO / "out"), _path(args.output), runs=bool(args.out)))
    return 0


def _docs(args: argparse.Namespace, progress: Progress) -> int:
    deps.ensure(progress, deps.DOCS)
    print(docs.build(_folder(args.output, REPO / "out" / "docs"), progress))
    return 0


def _package(args: argparse.Namespace, progress: Progress) -> int:
    arches = [arch.load(name) for name in
              (arch.names() if args.arch == options.ALL_ARCHES else [args.arch])]
    deps.ensure(progress, [need for one in arches for need in deps.of(one, deps.SELFTESTS)])
    for path in package.make(arches, _folder(args.output, REPO / "out" / "package"), progress,
                             _path(args.harness)):
        print(path)
    return 0


def _install(args: argparse.Namespace, progress: Progress) -> int:
    deps.ensure(progress, deps.boot(_arch(args), deps.CHECK if args.check else ()))
    return 0


_ACTIONS: dict[str, Callable[[argparse.Namespace, Progress], int]] = {
    "prove": _prove, "shell": _shell, "selftests": _selftests, "series": _series,
    "kselftest": _kselftest, "hosttest": _hosttest, "mutants": _mutants, "bench": _bench,
    "steps": _steps, "matrix": _matrix, "model": _model, "audit": _audit,
    "report": _report, "record": _record, "docs": _docs, "package": _package,
    "list": _list, "install": _install}
# Of these, what they are asked for alone goes to standard output: KTAP, findings, a plan, a table.
_TOLD_APART = frozenset(("kselftest", "hosttest", "matrix", "audit", "steps"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    progress = Progress()
    said = list(sys.argv[1:] if argv is None else argv)
    try:
        if said[:1] == ["help"]:
            print(options.manual(said[1:]))
            return 0
        args = options.parse(said)
        if args.verb in _TOLD_APART:
            progress = Progress(sys.stderr)
        return _ACTIONS[args.verb](args, progress)
    except LabError as err:
        progress.stop()
        if _for_nagios(said):
            return _no_check(str(err))
        print(f"error: {err}", file=sys.stderr)
        if err.log:
            print(f"  log: {err.log}", file=sys.stderr)
        return ERROR
    except KeyboardInterrupt:
        progress.stop()
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return ERROR
    except OSError as err:
        progress.stop()
        if err.errno in (errno.ENOSPC, errno.EDQUOT):
            err.strerror = (f"{err.strerror}: free some space, or set LAB_CACHE, OUT or TMPDIR to a "
                            "folder on a larger disk")
        what = f"{err.filename}: " if err.filename else ""
        if _for_nagios(said):
            return _no_check(f"{what}{err.strerror or err}")
        print(f"error: {what}{err.strerror or err}", file=sys.stderr)
        return ERROR
    except Exception as err:
        if not _for_nagios(said):
            raise
        traceback.print_exc()
        return _no_check(f"{type(err).__name__}: {err}")


def _for_nagios(said: Sequence[str]) -> bool:
    """Whether the words ask for a check of Nagios, even if they cannot be understood.

    It takes the exit status of an error for an alarm, and that of Python for a warning.
    """
    return said[:1] == ["audit"] and re.search(
        r"(?:^|\0)(?:--format[=\0]|AUDIT\??=)nrpe(?:\0|$)", "\0".join(said)) is not None


def _no_check(why: str) -> int:
    line, status = audited.nrpe_error(why)
    print(line)
    return status
