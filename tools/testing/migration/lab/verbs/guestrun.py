# SPDX-License-Identifier: GPL-2.0
"""Runs the installed selftests in a guest, with the same runner as on a real machine."""

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from lab import defect, trial
from lab.arch import Arch
from lab.errors import LabError
from lab.guest import initramfs, qemu, selftest
from lab.judge import klog, verdict
from lab.kernel import build, testseries, unmapped, variant
from lab.kernel.source import Source
from lab.progress import Progress
from lab.verbs import kselftest
from lab.wanted import LIMIT, SERIES, Wanted

# What run_vmtests.sh finds on most machines.  That of 6.12 has put the pool of huge pages back to
# what it was when it comes to migration, whose own tests take theirs from there.
SCRIPT_CMDLINE = "hugepages=16 transparent_hugepage=madvise"
# MiB of a node: a kernel that boots with less than 512 in all turns THPs off, whatever it is told.
SCRIPT_NODE = 512
# MiB of a DIMM that the guest of the series may eject: it has two blocks.
EJECT = 256
# A guest with all that run_vmtests.sh runs, two minutes of the kernel's own among it.  Each of its
# categories may take 900, by the settings of mm.
SCRIPT_LIMIT = 900 * len(kselftest.CATEGORIES) + 120


def run(wanted: Wanted, name: str, names: tuple[str, ...], arch: Arch,
        progress: Progress, tell: Callable[[str], None]) -> kselftest.Stream:
    """Boot one kernel and run the programs `names` there, all of them for none.

    `name` is one of the two that wanted.defect is about, or the series, whose KUnit tests must pass
    then, and whose run_vmtests.sh runs the programs where none is named, one category after the
    other.  Each line of the output goes to `tell` as it comes, and console.log and qemu.sh of the
    boot are in wanted.out/kselftest afterwards.  LabError where a result is missing, where the
    kernel complained of something, and where the guest outlived its time.
    """
    source, one, kernel = _kernel(wanted, name, arch, progress)
    # The kernel's own way to its tests of mm, with what the series adds there.
    env = defect.environment(names or None)
    texts, arguments, limit = {}, wanted.tests or wanted.defect.arguments(), LIMIT
    if name == SERIES and not names:
        texts = {file: variant.text_of(source, one, str(selftest.FOLDER / file))
                 for file in kselftest.SCRIPT_FILES}
        names, arguments = kselftest.script_programs(), ()
        limit = SCRIPT_LIMIT
    installed = kselftest.install(arch, progress, texts, source, wanted.harness)
    initrd = initramfs.initramfs({}, arch, progress, installed, bash=bool(texts))
    accel = qemu.choose_accel(wanted.accel, arch, kernel.image, initrd, progress)
    machine = wanted.defect.guest
    if texts:
        machine = dataclasses.replace(machine, nodes=(max(machine.nodes[0], SCRIPT_NODE),
                                                      max(machine.nodes[1], SCRIPT_NODE)))
    if name == SERIES:
        machine = dataclasses.replace(machine, eject=machine.eject or EJECT)
    machine = trial.with_room(machine, wanted.debug)
    env = (*env, *qemu.monitor_env(arch, machine))
    # A word of the command line has no blanks: the arguments go one way, what takes them another.
    takers = kselftest.arguments(names, arguments)
    words = [f"lab.kselftest={','.join(kselftest.chosen(names))}",
             f"lab.env={','.join(env)}" if env else "",
             f"lab.args={','.join(arguments)} lab.takers={','.join(takers)}" if takers else "",
             unmapped.CMDLINE if trial.has_witness(wanted, source) else "",
             source.base.cmdline, wanted.defect.kernel.cmdline, SCRIPT_CMDLINE if texts else ""]
    home = wanted.out / "kselftest"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    what = qemu.Guest(arch, accel, kernel.image, initrd, " ".join(word for word in words if word),
                      machine)
    progress.note(f"booting the {name} kernel {source.version} ({one.how}; {accel.upper()})")
    reader = _Reader(tell)
    limit = wanted.limit(limit)
    ended = qemu.boot(what, home, limit, lambda _log, said: reader.more(said))
    reader.more((home / "ktap.log").read_text("utf-8", "replace"))
    console = (home / "console.log").read_text("utf-8", "replace")
    complaints, _noise = verdict.sort_out(klog.read(console), source.base.noise)
    if complaints:
        raise LabError(f"the kernel said: {complaints[0].text}", str(home / "console.log"))
    if ended.timed_out:
        raise LabError(f"the guest did not end in {limit} seconds: give it more with TIMEOUT=",
                       str(home / "console.log"))
    reader.stream.check(ended.status)
    if name == SERIES:
        progress.note(_kunit(source.tree, home / "console.log"))
    return reader.stream


def _kernel(wanted: Wanted, name: str, arch: Arch, progress: Progress
            ) -> tuple[Source, variant.Variant, build.Kernel]:
    if name != SERIES:
        [made] = trial.prepare(wanted, arch, progress, only=(name,))
        return made.source, made.variant, made.kernel
    source = trial.find_source(wanted, progress)
    progress.step(f"applying the series to {source.version}")
    one, asked = testseries.applied(source), testseries.options(source, arch)
    if trial.has_witness(wanted, source):
        one = unmapped.added(source, one)
        asked = unmapped.options(asked)
    progress.done(one.how)
    return source, one, build.kernel(source, one, arch, wanted.debug, progress, asked)


def _kunit(tree: Path, console: Path) -> str:
    """What the kernel's own parser says of the KUnit tests in a log; LabError where one failed."""
    parser = tree / "tools" / "testing" / "kunit" / "kunit.py"
    done = subprocess.run([sys.executable, "-B", str(parser), "parse", str(console)], text=True,
                          capture_output=True, check=False, stdin=subprocess.DEVNULL,
                          env={**os.environ, "TERM": "dumb"})
    said = [line.split("] ", 1)[-1].strip() for line in done.stdout.splitlines()
            if "Testing complete" in line or "tests run" in line]
    if done.returncode != 0 or not said:
        raise LabError("KUnit: " + (said or done.stderr.splitlines()[-1:] or ["no result"])[-1],
                       str(console))
    return f"KUnit: {said[-1].removeprefix('Testing complete. ')}"


class _Reader:
    """Tells what is new of an output that grows, line by line."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.stream = kselftest.Stream()
        self._tell = tell
        self._seen = 0

    def more(self, text: str) -> bool:
        """`text` is all of the output so far; its last line may not be whole.  It is never enough."""
        lines = text.split("\n")[self._seen:-1]
        self._seen += len(lines)
        for line in lines:
            # What init says frames the output, and is no part of it.
            if not line.startswith("lab: "):
                self._tell(self.stream.line(line.rstrip("\r")))
        return False
