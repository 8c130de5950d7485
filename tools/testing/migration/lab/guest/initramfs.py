# SPDX-License-Identifier: GPL-2.0
"""Packs the guest's root file system: a static busybox, the selftests, and lab/guest/init."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from lab.arch import Arch
from lab.errors import LabError
from lab.kernel import apt
from lab.paths import HOME, atomic_dir, cache_dir, disk_full, have, is_full, locked
from lab.progress import Progress

INIT = HOME / "lab" / "guest" / "init"


def initramfs(programs: dict[str, Path], arch: Arch, progress: Progress,
              kselftest: Path | None = None, bash: bool = False) -> Path:
    """A gzipped cpio archive with `programs` (name: static binary) in /tests, from the cache.

    A folder `kselftest` of installed selftests becomes /kselftest, and with `bash` there is one.
    """
    files = {"init": INIT, "bin/busybox": _static(arch, "busybox", "busybox-static", progress),
             **{f"tests/{name}": path for name, path in sorted(programs.items())}}
    if bash:
        files["bin/bash"] = _static(arch, "bash-static", "bash-static", progress)
    if kselftest:
        files |= {f"kselftest/{path.relative_to(kselftest)}": path
                  for path in sorted(kselftest.rglob("*")) if path.is_file()}
    key = hashlib.sha256()
    for name, path in files.items():
        key.update(f"{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    dest = cache_dir() / "initramfs" / key.hexdigest()[:20]
    with locked(cache_dir() / "initramfs.lock"):
        if not have(dest, ("initrd",)):
            with atomic_dir(dest, ("initrd",)) as new:
                _pack(files, new)
    return dest / "initrd"


def _static(arch: Arch, name: str, package: str, progress: Progress) -> Path:
    """A static program for the guest: this machine's own, or that of Debian for `arch`."""
    if not arch.native:
        # Where programs are changed with Debian 13.
        files = apt.unpacked(package, arch, progress)
        return next(path for path in (files / "usr/bin" / name, files / "bin" / name)
                    if path.exists())
    found = shutil.which(name)
    if found is None:
        raise LabError(f"no {name} for the guest: apt install {package}")
    return Path(found)


def _pack(files: dict[str, Path], folder: Path) -> None:
    root = folder / "root"
    for name in ("dev", "proc", "sys", "tmp", "bin", "tests"):
        (root / name).mkdir(parents=True)
    for name, path in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, root / name)
        (root / name).chmod(0o755)
    names = "\n".join(sorted(str(path.relative_to(root)) for path in root.rglob("*")))
    try:
        packed = subprocess.run(["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"],
                                cwd=root, input=names.encode(), stdout=subprocess.PIPE,
                                check=True).stdout
        with open(folder / "initrd", "wb") as archive:
            subprocess.run(["gzip", "-1", "-n"], input=packed, stdout=archive, check=True)
    except (OSError, subprocess.CalledProcessError) as err:
        if is_full(folder):
            raise disk_full(folder.parent) from err
        raise LabError(f"the guest's file system could not be packed: {err}") from err
    shutil.rmtree(root)
    os.chmod(folder / "initrd", 0o644)
