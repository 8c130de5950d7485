# SPDX-License-Identifier: GPL-2.0
"""Runs the installed selftests in a guest, with the same runner as on a real machine."""

import shutil
from collections.abc import Callable

from lab import guest, klog, kselftest, prove, qemu, verdict
from lab.arch import Arch
from lab.errors import LabError
from lab.progress import Progress


def run(wanted: prove.Wanted, variant: str, names: tuple[str, ...], arch: Arch,
        progress: Progress, tell: Callable[[str], None]) -> kselftest.Stream:
    """Boot one kernel of wanted.defect and run the programs `names` there, all of them for none.

    Each line of the output goes to `tell` as it comes, and console.log and qemu.sh of the boot are
    in wanted.out/kselftest afterwards.  LabError where a result is missing, where the kernel
    complained of something, and where the guest outlived its time.
    """
    made = prove.prepare(wanted, arch, progress, only=(variant,))
    one = next(one for one in made.variants if one.name == variant)
    initrd = guest.initramfs({}, kselftest.install(arch, progress))
    accel = qemu.choose_accel(wanted.accel, arch, made.kernels[variant].image, made.initrd,
                              progress)
    machine = wanted.defect.machine
    # A word of the command line has no blanks: the arguments go one way, what takes them another.
    takers = kselftest.arguments(names, wanted.tests)
    words = [f"lab.kselftest={','.join(kselftest.chosen(names))}",
             "lab.env=HUGETLB_PMD_MIGRATE_OFFLINE=1",
             f"lab.args={','.join(wanted.tests)} lab.takers={','.join(takers)}" if takers else "",
             made.source.base.cmdline, machine.cmdline]
    home = wanted.out / "kselftest"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    what = qemu.Guest(arch, accel, made.kernels[variant].image, initrd,
                      " ".join(word for word in words if word), machine)
    progress.note(f"booting the {variant} kernel {made.source.version} ({one.how}; "
                  f"{accel.upper()})")
    reader = _Reader(tell)
    limit = wanted.limit or (prove.DEBUG_LIMIT if wanted.debug else prove.LIMIT)
    ended = qemu.boot(what, home, limit, lambda _log, said: reader.more(said))
    reader.more((home / "ktap.log").read_text("utf-8", "replace"))
    console = (home / "console.log").read_text("utf-8", "replace")
    complaints, _noise = verdict.sort_out(klog.read(console), made.source.base.noise)
    if complaints:
        raise LabError(f"the kernel said: {complaints[0].text}", str(home / "console.log"))
    if ended.timed_out:
        raise LabError(f"the guest outlived its {limit} seconds: name more with TIMEOUT=",
                       str(home / "console.log"))
    reader.stream.check(ended.status)
    return reader.stream


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
