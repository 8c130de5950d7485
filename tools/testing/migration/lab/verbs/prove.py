# SPDX-License-Identifier: GPL-2.0
"""The main job: two kernels from one source, booted, and a verdict on what tells them apart."""

import shutil
import time
from datetime import datetime, timezone
from pathlib import Path

from lab import provenance, trial
from lab.arch import Arch
from lab.defect import Defect
from lab.guest import ltp
from lab.judge import klog, ltp as ltp_judge, summary, verdict
from lab.judge.summary import Summary
from lab.kernel import unmapped
from lab.progress import Progress, spent
from lab.tell import result
from lab.wanted import Wanted


def run(wanted: Wanted, arch: Arch, progress: Progress) -> Summary:
    """Prepare, boot, judge, and write the results under wanted.out."""
    started = datetime.now(timezone.utc)
    began, used = time.monotonic(), spent()
    if why := wanted.defect.show.hides(arch.name):
        progress.note(f"no boot shows {wanted.defect.name} on {arch.name}: {why}")
    kernels = trial.prepare(wanted, arch, progress)
    source = kernels[0].source
    home = wanted.out / f"{started:%Y%m%d-%H%M%S}-{wanted.defect.name}-{source.version}"
    runs: dict[str, list[verdict.Boot]] = {}
    kept = {}
    # Now, as somebody may work on the repository meanwhile.
    origin = provenance.of_run(arch, wanted.defect.show.selftests,
                               [one.variant.how for one in kernels],
                               provenance.rules_of(wanted.defect),
                               ltp.sources() if wanted.ltp else ())
    try:
        for one in kernels:
            folder = home / one.name
            kept[one.name] = one.keep(folder)
            boots = runs[one.name] = []
            for number in range(1, wanted.boots + 1):
                boots.append(one.boot(folder, number, progress))
                _tell(boots[-1], wanted.defect, progress)
    except KeyboardInterrupt:
        # Half a run says nothing, and looks like a whole one.
        shutil.rmtree(home, ignore_errors=True)
        raise
    word, why = verdict.decide(runs["vulnerable"], runs["fixed"], wanted.boots,
                               wanted.defect.show.harm, wanted.defect.show.counts,
                               unmapped.SAID if kernels[0].witness else "",
                               unmapped.sees(wanted.defect, arch))
    if wanted.ltp and word == "PROVED":
        word, why = ltp_judge.named(runs["vulnerable"], wanted.defect.upstream, word, why)
    whole = Summary(
        defect=wanted.defect.name, title=wanted.defect.title, base=source.base.name,
        arch=arch.name, accel=kernels[0].accel, debug=wanted.debug, command=wanted.command,
        source=dict(source.identity), compiler=kernels[-1].kernel.identity["compiler"],
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - began, 1), cpu_seconds=round(spent() - used, 1),
        verdict=word, why=why,
        harm=wanted.defect.show.harm, counts=wanted.defect.show.counts, provenance=origin,
        tests=ltp.version(wanted.ltp) if wanted.ltp else "",
        variants={one.name: summary.kernel(one.variant.how, one.variant.places, runs[one.name],
                                           **kept[one.name]) for one in kernels})
    result.write(whole, home)
    result.write(whole, wanted.out)
    return whole


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
