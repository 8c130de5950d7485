# SPDX-License-Identifier: GPL-2.0
"""Packs the guest's root file system: a static busybox, the selftests, and lab/guest/init."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from lab.errors import LabError
from lab.paths import HOME, atomic_dir, cache_dir, disk_full, have, is_full, locked

INIT = HOME / "lab" / "guest" / "init"


def initramfs(programs: dict[str, Path], kselftest: Path | None = None, bash: bool = False) -> Path:
    """A gzipped cpio archive with `programs` (name: static binary) in /tests, from the cache.

    A folder `kselftest` of installed selftests becomes /kselftest, and with `bash` there is one.
    """
    busybox = shutil.which("busybox")
    if busybox is None:
        raise LabError("no busybox: apt install busybox-static")
    files = {"init": INIT, "bin/busybox": Path(busybox),
             **{f"tests/{name}": path for name, path in sorted(programs.items())}}
    if bash:
        shell = shutil.which("bash-static")
        if shell is None:
            raise LabError("no bash for the guest: apt install bash-static")
        files["bin/bash"] = Path(shell)
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
