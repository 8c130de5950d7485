# SPDX-License-Identifier: GPL-2.0
"""Where things live, and how to change them so that a killed or second run does no harm."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from lab.errors import LabError

REPO = Path(__file__).resolve().parent.parent


def cache_dir() -> Path:
    """The folder for everything that only costs time to make again.

    $LAB_CACHE, else $XDG_CACHE_HOME/pmd-share-lab, else ~/.cache/pmd-share-lab (XDG base
    directory specification).  Never inside the repository.
    """
    named = os.environ.get("LAB_CACHE")
    if named:
        path = Path(named).resolve()
    else:
        xdg = os.environ.get("XDG_CACHE_HOME")
        path = (Path(xdg) if xdg else Path.home() / ".cache") / "pmd-share-lab"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise LabError(f"cannot make the cache folder {path} ({err.strerror}): "
                       "set LAB_CACHE to a folder you can write to") from err
    return path


def need_space(path: Path, mib: int, what: str) -> None:
    """Raise LabError where the file system of `path` has less than `mib` MiB free for `what`."""
    free = shutil.disk_usage(path).free >> 20
    if free < mib:
        raise LabError(f"{what} needs {mib} MiB in {path}, which has {free} MiB free: "
                       "free some space, or set LAB_CACHE to a larger disk")


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`; the kernel drops it when the process dies.

    `waiting` is called once when another run holds it, before waiting for that run.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="ascii") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def atomic_dir(dest: Path) -> Iterator[Path]:
    """A new folder that becomes `dest` only if the block ends without an exception.

    What a killed run leaves behind has a name that starts with a dot; the next call for the same
    `dest` removes it.  Call it under a lock.
    """
    dest.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".new-{dest.name}-"
    for stale in dest.parent.glob(prefix + "*"):
        shutil.rmtree(stale, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix=prefix, dir=dest.parent))
    try:
        yield new
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    new.chmod(0o755)
    if dest.exists():
        shutil.rmtree(dest)
    new.rename(dest)
