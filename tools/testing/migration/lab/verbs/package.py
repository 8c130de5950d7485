# SPDX-License-Identifier: GPL-2.0
"""Packs the selftests and the audit for machines that have no repository.

One package an architecture, in each form that this machine can make: with dpkg-deb, with rpmbuild.
And one archive with the selftests of several architectures, for who copies them to test hosts.
"""

import datetime
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab.arch import Arch
from lab.errors import LabError
from lab.pack import deb, rpm, stage, tar
from lab.paths import REPO, copy, scratch_dir
from lab.progress import Progress
from lab.verbs import kselftest

# To audit images, as who runs machines does; what a source needs beyond that is recommended.
DEB_DEPENDS = "python3 (>= 3.11), python3-capstone, python3-pyelftools"
_RPM_REQUIRES = ("python3 >= 3.11", "python3-capstone", "python3-pyelftools", "perl-interpreter")


def make(arches: Sequence[Arch], folder: Path, progress: Progress, harness: Path | None = None
         ) -> list[Path]:
    """The packages of each architecture, in `folder`; of several, also the archive."""
    forms = [form for form in (deb, rpm) if form.there()]
    if not forms:
        raise LabError("neither dpkg-deb nor rpmbuild is there: install dpkg or rpm-build")
    release = released()
    laid_out = {arch: kselftest.install(arch, progress, harness=harness) for arch in arches}
    folder.mkdir(parents=True, exist_ok=True)
    progress.step(f"packing {release.version}")
    made = []
    for arch in arches:
        with scratch_dir("lab-package-") as work:
            top = work / "top"
            top.mkdir()
            stage.lay_out(top, release, arch, laid_out[arch])
            new = []
            if rpm in forms:
                new.append(rpm.make(top, release, arch, _RPM_REQUIRES, work))
            if deb in forms:
                # Last: it adds files of its own to the tree.
                new.insert(0, deb.make(top, release, arch, DEB_DEPENDS, work))
            for path in new:
                copy(path, folder / path.name)
                made.append(folder / path.name)
    if len(arches) > 1:
        made.append(tar.make(laid_out, release, folder))
    progress.done(" and ".join([form.__name__.rpartition(".")[2] for form in forms]
                               + (["tar"] if len(arches) > 1 else [])))
    return made


def released() -> stage.Release:
    """What is packed: a version that grows with the time of the commit.

    Files have that time as well, or that which SOURCE_DATE_EPOCH names.
    """
    commit, changed = _git("rev-parse", "HEAD"), _git("status", "--porcelain")
    committed = _git("show", "-s", "--format=%ct", "HEAD")
    named = os.environ.get("SOURCE_DATE_EPOCH", "")
    if named and not named.isdecimal():
        raise LabError(f"SOURCE_DATE_EPOCH={named}: seconds since 1970 are wanted")
    if not (named or committed):
        raise LabError("git knows no commit here: name the time of this version, in seconds since "
                       "1970, with SOURCE_DATE_EPOCH")
    time = int(named or committed)
    whole = datetime.datetime.fromtimestamp(int(committed or named), datetime.UTC)
    version = f"0.{whole:%Y%m%d.%H%M%S}" + ("+changed" if changed else "")
    return stage.Release(version, time,
                         f"{datetime.datetime.fromtimestamp(time, datetime.UTC):%Y-%m-%d}", commit)


def _git(*words: str) -> str:
    """What git says of this repository; "" where it is none."""
    if not (REPO / ".git").exists():
        return ""
    done = subprocess.run(["git", "-C", str(REPO), *words], text=True, capture_output=True,
                          stdin=subprocess.DEVNULL, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
