# SPDX-License-Identifier: GPL-2.0
"""Makes an archive of the static selftests of several architectures, a folder each.

Each folder is named as `uname -m` names the architecture, and is whole: who has copied the archive
to a test host runs

    pmd-share-selftests-VERSION/$(uname -m)/run_kselftest.sh -c mm
"""

import tarfile
from collections.abc import Mapping
from pathlib import Path

from lab.arch import Arch
from lab.pack import stage
from lab.paths import copy, scratch_dir


def make(laid_out: Mapping[Arch, Path], release: stage.Release, folder: Path) -> Path:
    """Pack the selftests, laid out for run_kselftest.sh, into an archive in `folder`."""
    name = f"{stage.NAME}-selftests-{release.version}"
    with scratch_dir("lab-tar-") as work:
        top = work / name
        for arch, home in laid_out.items():
            stage.put_selftests(top / arch.machine_name, arch, home)

        def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
            # The same whoever packs it, and whenever; what can be run stays so.
            member.uid = member.gid = 0
            member.uname = member.gname = "root"
            member.mtime = release.time
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            return member
        packed = work / "tar"
        with tarfile.open(packed, "w:xz") as archive:
            # In the order of their names: add() sorts what is in a folder.
            archive.add(top, name, filter=plain)
        dest = folder / f"{name}.tar.xz"
        copy(packed, dest)
    return dest
