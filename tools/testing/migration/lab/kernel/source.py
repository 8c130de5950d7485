# SPDX-License-Identifier: GPL-2.0
"""Gives the lab a kernel tree that it may change: Debian's, unpacked, or a copy of the user's.

Trees live in the cache, in trees/<key> for a package and in trees/user-<hash of the path> for a
user's tree, and the build folders beside them; tree.py says what else is there.  A copy is brought
up to date file by file, where the content is another.  A run that is killed loses nothing but its
time.  Nothing is ever written to the user's tree, not even git's index.
"""

import hashlib
import os
import re
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from lab import base as bases
from lab.base import Base
from lab.errors import LabError
from lab.kernel import apt, usertree
from lab.kernel.tree import Damaged, Tree, forget
from lab.paths import atomic_dir, cache_dir, disk_full, is_full, need_space
from lab.progress import Progress

# A tree takes 1.7 GiB and 0.4 GiB to be kept; what is built beside it and the image take the rest.
_NEEDED_MIB = 4608


@dataclass(frozen=True)
class Source:
    """A kernel source and the work tree made of it."""

    base: Base
    version: str                # "6.12.117", from the tree's Makefile
    identity: dict[str, str]    # where it came from, for the boot folder
    key: str                    # short hash of the content
    tree: Path                  # the lab may change it; in which state it is, is not said
    pristine: str = ""          # the state that it was given in

    @property
    def kept(self) -> Tree:
        """The tree with its states."""
        return Tree(self.tree.parent)


def from_base(base: Base, progress: Progress) -> Source:
    """The source of Debian's package for `base`, unpacked once.

    LabError where there is no package, the disk is full, or the tarball is damaged.
    """
    tarball, version = apt.source_package(base, progress)
    package = str(base.package)
    digest = _file_hash(tarball)
    key = _short(f"{package} {version} {digest}")
    kept = Tree(cache_dir() / "trees" / key)
    # Without the lock where it is there already, which is whole: a build may hold it for minutes.
    if kept.key() != key:
        with kept.lock(progress):
            if not kept.path.is_dir():
                need_space(kept.work, _NEEDED_MIB, f"unpacking {package}")
                # The index may be that of a variant, of which these files are none.
                (kept.work / "key").unlink(missing_ok=True)
                progress.step(f"unpacking {package} {version}")
                with atomic_dir(kept.path) as new:
                    _unpack(tarball, new, progress)
                    kernel_version(new)
                progress.done()
            if kept.key() != key:
                progress.step(f"keeping {package} {version}")
                kept.take(kept.path, None, progress)
                kept.name(key)
                progress.done()
    release = kernel_version(kept.path)
    return Source(base, release, {
        "base": base.name,
        "version": release,
        "package": package,
        "package_version": version,
        "sha256": digest,
    }, key, kept.path, kept.pristine())


def from_tree(path: Path, base_name: str | None, progress: Progress,
              only: Callable[[str], Iterable[str]] | None = None) -> Source:
    """The source in the user's tree `path`, as it is now, copied.

    It is built as base `base_name`, or as the nearest base at or below its version.  `only` says
    which files of a tree of that base are wanted, to see whether patches apply: to copy all takes a
    minute, and such a source cannot be built.  LabError where `path` is no kernel tree, cannot be
    read, has no base, changes while it is copied, or does not fit on the disk.
    """
    try:
        top = path.expanduser().resolve(strict=True)
    except (OSError, RuntimeError) as err:
        raise LabError(f"no such folder: {path} (KERNEL= names a kernel tree)") from err
    version = kernel_version(top)
    base = bases.load(base_name) if base_name else bases.for_version(version)
    cache = cache_dir().resolve()
    if cache.is_relative_to(top):
        raise LabError(f"the cache folder {cache} is inside {top}, which the lab must not write "
                       "to: set LAB_CACHE to a folder elsewhere")
    if top.is_relative_to(cache):
        raise LabError(f"{top} is the lab's own work tree, which it changes: name the tree that "
                       "it came from")

    kept = Tree(cache / "trees" / f"{'part' if only else 'user'}-{_short(str(top))}")
    with kept.lock(progress):
        progress.step(f"copying {'files of ' if only else ''}{top}")
        found, git = (usertree.some(top, only(base.name)), dict[str, str]()) if only else \
            usertree.scan(top)
        if not only and not kept.store.is_dir():
            need_space(kept.work, _NEEDED_MIB, f"copying {top}")
        try:
            new = kept.take(top, found, progress)
        except Damaged:
            forget(kept)
            new = kept.take(top, found, progress)
        pristine = kept.pristine()
        kept.name(pristine[:20])
        progress.done(f"{new} of {len(found)} files were new" if new else
                      f"{len(found)} files, none of them new")
    return Source(base, version, {
        "base": base.name,
        "version": version,
        "path": str(top),
        **git,
        "tree": pristine,
    }, pristine[:20], kept.path, pristine)


def check(source: Source) -> None:
    """LabError where another run has made something else of the work tree since it was given.

    Call it under the tree's lock before building: a user may edit the tree, and start a second
    run, while the first waits for the lock.
    """
    if source.kept.key() != source.key:
        raise LabError(f"{source.identity.get('path', source.tree)} was changed and copied anew by "
                       "another run meanwhile: run again")


def kernel_version(tree: Path, named: str = "KERNEL=") -> str:
    """The version in a kernel tree's Makefile, such as "6.12.117"; LabError where it is none.

    `named` is how the user named the tree.
    """
    if not tree.is_dir():
        raise LabError(f"no such folder: {tree} ({named} names a kernel tree)")
    try:
        text = (tree / "Makefile").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        text = ""
    except OSError as err:
        raise LabError(f"cannot read {tree / 'Makefile'}: {err.strerror}") from err
    numbers = [re.search(rf"^{name}[ \t]*=[ \t]*(\d+)[ \t]*$", text, re.M)
               for name in ("VERSION", "PATCHLEVEL", "SUBLEVEL")]
    # busybox and u-boot have such a Makefile too, and no mm/.
    if not numbers[0] or not numbers[1] or not (tree / "mm").is_dir():
        raise LabError(f"{tree} is not a kernel tree: it has no Makefile with VERSION and "
                       "PATCHLEVEL beside a folder mm")
    return ".".join(number[1] if number else "0" for number in numbers)


# ---- small things --------------------------------------------------------------------------


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:20]


def _file_hash(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _unpack(tarball: Path, dest: Path, progress: Progress) -> None:
    """Unpack a tarball into `dest`, less the folder that all of it is in."""
    # The kernel ends tar when this process is killed.
    command = ["setpriv", "--pdeathsig", "KILL", "tar", "-xvf", str(tarball), "-I", "xz -T0",
               "--strip-components=1", "--no-same-owner", "-C", str(dest)]
    last = ""
    count = 0
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace",
                          env={**os.environ, "LC_ALL": "C"}) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if re.match(r"(/\S+/)?(tar|xz): ", line):
                last = last or line.strip()
            else:
                count += 1
                progress.update(f"{count} files")
    if process.returncode == 0:
        return
    if "No space left" in last or "Disk quota" in last or is_full(dest):
        raise disk_full(dest.parent)
    raise LabError(f"{tarball} cannot be unpacked ({last or 'tar was ended'}): remove it and run "
                   "again")
