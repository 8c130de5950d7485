# SPDX-License-Identifier: GPL-2.0
"""Where things live, and how to change them so that a killed or second run does no harm."""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from lab.errors import LabError

# The repository, whose files have the paths that they have in a kernel tree, and in it the lab.
REPO = Path(__file__).resolve().parents[4]
HOME = Path(__file__).resolve().parents[1]

# A package has a part of the repository, below /usr: there its paths alone say nothing.
INSTALLED = not (REPO / "Makefile").exists()

# What a write that failed may have left free: it wanted more than that.
_FULL_BYTES = 4 << 20


def _named_cache() -> Path:
    named = os.environ.get("LAB_CACHE")
    if named:
        return Path(named).resolve()
    xdg = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(xdg) if xdg else Path.home() / ".cache") / "pmd-share-lab"
    except RuntimeError as err:
        raise LabError("you have no home folder: set LAB_CACHE to a folder for the cache") from err


def shown(path: Path) -> str:
    """A path of the repository, as a user can use it."""
    return str(path if INSTALLED else path.relative_to(REPO))


def cache_dir() -> Path:
    """The folder for everything that only costs time to make again.

    $LAB_CACHE, else $XDG_CACHE_HOME/pmd-share-lab, else ~/.cache/pmd-share-lab (XDG base
    directory specification).  Never inside the repository.
    """
    path = _named_cache()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise LabError(f"cannot make the cache folder {path} ({err.strerror}): "
                       "set LAB_CACHE to a folder you can write to") from err
    return path


def need_plain_cache() -> None:
    """LabError where the kernel's build system cannot work in the cache folder."""
    if re.search(r"[\s:]", str(path := _named_cache())):
        raise LabError(f"no kernel can be built in the cache folder {path}, which has a blank or a "
                       "colon in its name: set LAB_CACHE to another")


def need_space(path: Path, mib: int, what: str) -> None:
    """Raise LabError where the file system of `path` has less than `mib` MiB free for `what`."""
    free = shutil.disk_usage(path).free >> 20
    if free < mib:
        raise LabError(f"{what} needs {mib} MiB in {path}, which has {free} MiB free: "
                       "free some space, or set LAB_CACHE to a larger disk")


def disk_full(path: Path) -> LabError:
    """What to tell the user where `path` is on a file system that is full."""
    name = "TMPDIR" if path == Path(tempfile.gettempdir()) else "LAB_CACHE"
    return LabError(f"the disk is full at {path}: free some space, or set {name} to a larger disk")


def is_full(path: Path) -> bool:
    """Whether the file system of `path` has no room: programs say that in many ways, or crash."""
    return shutil.disk_usage(path).free < _FULL_BYTES


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


def have(folder: Path, names: Iterable[str]) -> bool:
    """Whether `folder` holds the files `names`, and none of them is empty."""
    return folder.is_dir() and all((folder / name).is_file() and (folder / name).stat().st_size
                                   for name in names)


@contextlib.contextmanager
def scratch_dir(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """A new folder, in `parent` or where TMPDIR says, that is gone when the block ends.

    Its name is known before it is made: tempfile leaves the folder behind where Ctrl-C comes
    between the two.
    """
    new = Path(parent or tempfile.gettempdir()) / f"{prefix}{secrets.token_hex(8)}"
    try:
        new.mkdir(mode=0o700)
        yield new
    finally:
        remove(new)


def remove(folder: Path) -> None:
    """Remove a folder in which a process that has been told to end may still make a file.

    OSError where that is not why it is still there after five seconds.
    """
    for _attempt in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder):
            return
        time.sleep(0.1)
    shutil.rmtree(folder)


@contextlib.contextmanager
def atomic_dir(dest: Path, holds: Iterable[str] = ()) -> Iterator[Path]:
    """A new folder that becomes `dest` only if the block ends without an exception.

    It must hold the files `holds` then, with something in them: LabError that names the first that
    it does not.  A program may end with success and have made nothing.

    What a killed run leaves behind has a name that starts with a dot; the next call for the same
    `dest` removes it.  Call it under a lock.
    """
    dest.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".new-{dest.name}-"
    for stale in dest.parent.glob(prefix + "*"):
        shutil.rmtree(stale, ignore_errors=True)
    with scratch_dir(prefix, dest.parent) as new:
        yield new
        for name in holds:
            if not have(new, (name,)):
                raise LabError(f"{dest / name} should have been made, and is "
                               f"{'empty' if (new / name).exists() else 'not there'}")
        new.chmod(0o755)
        if dest.exists():
            shutil.rmtree(dest)
        new.rename(dest)


def copy(path: Path, dest: Path) -> None:
    """Copy a file to `dest`, whose folders are made.

    Whoever made the cache may have a umask that keeps others out: all can read the copy, and run
    what could be run.
    """
    dest.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, dest)
    dest.chmod(0o755 if os.access(path, os.X_OK) else 0o644)


def new_log(name: str) -> Path:
    """An empty log in the cache."""
    log = cache_dir() / "logs" / f"{name}.log"
    log.parent.mkdir(exist_ok=True)
    log.write_text("", encoding="utf-8")
    return log


def replace(path: Path, text: str) -> None:
    """Put `text` in `path` so that a reader finds the old file or the new one, never half."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
                os.fchmod(stream.fileno(), 0o644)
            os.replace(name, path)
        except BaseException:
            # Not there any more where it was a Ctrl-C that came at the end.
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as err:
        raise LabError(f"cannot write {path} ({err.strerror}): "
                       "free some space, or make the folder writable") from err
