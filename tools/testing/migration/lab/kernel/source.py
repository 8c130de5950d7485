# SPDX-License-Identifier: GPL-2.0
"""Gives the lab a kernel tree that it may change: Debian's, unpacked, or a copy of the user's.

Work trees live in the cache, in work/<key>/tree for a package and in work/tree-<hash of the
path>/tree for a user's tree; beside them are the build folders, variant.py's state, and

    lock        held while the tree is changed or built from
    key         content identity of the pristine tree; missing while the tree is being made
    manifest    for a copy: what every file of the user's tree was when it was copied

A copy is brought up to date file by file.  A file is read again where its size, time, inode or
mode differ from the manifest's, and written again only where its content does; then it gets the
time of writing, not the user's, so that make rebuilds what depends on it even where an older file
took the place of a newer one.  variant.restore() makes the copy pristine before anything in it is
replaced, so what a variant had put there neither survives nor is taken for the user's.  Before the
first change the manifest forgets the files about to change: a run that is killed loses nothing but
its time.  Nothing is ever written to the user's tree, not even git's index.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from lab import base as bases
from lab.base import Base
from lab.errors import LabError
from lab.kernel import apt
from lab.paths import atomic_dir, cache_dir, disk_full, is_full, locked, need_space
from lab.progress import Progress

# A tree takes 1.7 GiB; what is built beside it and the image take the rest.
_NEEDED_MIB = 4096

# What Kbuild takes as the sign of a tree that was built in place, and then refuses `make O=`.
_UNCLEAN_FILES = re.compile(r"\.config(\.old)?")
_UNCLEAN_FOLDERS = re.compile(r"include/(config|generated)|arch/[^/]+/include/generated")

# Further products, by the names that the kernel's .gitignore has for them.  None of the files in
# Debian's 5.10, 6.1, 6.12 and 7.3 has such a name; vmlinux.lds.S and *_shipped must stay.
_PRODUCTS = re.compile(
    r".*\.(o|a|ko|mod|mod\.c|order|symvers|dwo|gcno|gcda|su|dtb|dtbo|lst|ll|o\.[^/]*|ko\.[^/]*)"
    r"|\..*\.(cmd|d)|\.tmp_.*|\.vmlinux.*|\.version|\.missing-syscalls\.d"
    r"|vmlinux|vmlinux\.(map|symvers|unstripped)|System\.map|Module\.symvers|modules\.builtin.*")
# The folder that headers are installed in, but for what is shipped in it.
_INSTALLED = re.compile(r"usr/include/(?!(Makefile|headers_check\.pl|\.gitignore)$).*")


@dataclass(frozen=True)
class Source:
    """A kernel source and the work tree made of it."""

    base: Base
    version: str                # "6.12.117", from the tree's Makefile
    identity: dict[str, str]    # where it came from, for the boot folder
    key: str                    # short hash of the content
    tree: Path                  # the lab may change it; pristine but for what variant.py notes


def from_base(base: Base, progress: Progress) -> Source:
    """The source of Debian's package for `base`, unpacked once.

    LabError where there is no package, the disk is full, or the tarball is damaged.
    """
    tarball, version = apt.source_package(base, progress)
    package = str(base.package)
    digest = _file_hash(tarball)
    key = _short(f"{package} {version} {digest}")
    work = cache_dir() / "work" / key
    tree = work / "tree"
    # Without the lock where it is there already, which is whole: a build may hold it for minutes.
    if not (tree.is_dir() and (work / "key").exists()):
        with _lock(work, progress):
            if not tree.is_dir():
                need_space(work, _NEEDED_MIB, f"unpacking {package}")
                progress.step(f"unpacking {package} {version}")
                with atomic_dir(tree) as new:
                    _unpack(tarball, new, progress)
                    kernel_version(new)
                progress.done()
            _write(work / "key", key)
    release = kernel_version(tree)
    return Source(base, release, {
        "base": base.name,
        "version": release,
        "package": package,
        "package_version": version,
        "sha256": digest,
    }, key, tree)


def from_tree(path: Path, base_name: str | None, progress: Progress) -> Source:
    """The source in the user's tree `path`, as it is now, copied.

    It is built as base `base_name`, or as the nearest base at or below its version.  In git, what
    is tracked and what is untracked but not ignored is copied; else everything but the products of
    a build.  LabError where `path` is no kernel tree, cannot be read, has no base, changes while
    it is copied, or does not fit on the disk.
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

    work = cache / "work" / f"tree-{_short(str(top))}"
    with _lock(work, progress):
        progress.step(f"copying {top}")
        found, git = _scan(top)
        try:
            digest, changed = _bring_up_to_date(top, found, work, progress)
        except OSError as err:
            raise _trouble(err, work) from err
        progress.done(f"{changed} of {len(found)} files were new" if changed else
                      f"{len(found)} files, none of them new")
    return Source(base, version, {
        "base": base.name,
        "version": version,
        "path": str(top),
        **git,
        "sha256": digest,
    }, digest[:20], work / "tree")


def check(source: Source) -> None:
    """LabError where another run has made something else of the work tree since it was given.

    Call it under the tree's lock before building: a user may edit the tree, and start a second
    run, while the first waits for the lock.
    """
    try:
        key = (source.tree.parent / "key").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        key = ""
    if key != source.key:
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


def _lock(work: Path, progress: Progress) -> AbstractContextManager[None]:
    return locked(work / "lock",
                  lambda: progress.note(f"another run works on {work}: waiting for it"))


def _write(path: Path, text: str) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, encoding="ascii")
    new.replace(path)


def _trouble(err: OSError, work: Path) -> LabError:
    """What an error of the operating system means to the user."""
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(work)
    return LabError(f"cannot make a copy in {work}: {err}")


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


# ---- which files a user's tree consists of -------------------------------------------------


@dataclass(frozen=True)
class _File:
    """A file, or a symbolic link that stays one."""

    real: str                   # where to read it
    link: str | None            # target of the link


def _scan(top: Path) -> tuple[dict[str, _File], dict[str, str]]:
    """The files of the tree by path in it, and what git says of it."""
    found: dict[str, _File] = {}
    git = _Git.of(top)
    listed = git.files() if git else None
    if git is None or listed is None:
        # "unreadable": a work tree whose repository is gone is a kernel tree all the same.
        _walk(top, "", str(top), found, _built(top), ())
        return found, {"git": "no git" if git is None else "unreadable", "dirty": "unknown"}
    for name in listed:
        if not _unclean(name):
            _add(top, name.rstrip("/"), f"{top}/{name.rstrip('/')}", found, False, ())
    return found, {"git": git.head(), "dirty": git.dirty()}


def _unclean(name: str) -> bool:
    """Whether Kbuild takes a file as the sign of a build in place (some keep one in git)."""
    return bool(_UNCLEAN_FILES.fullmatch(name)) or \
        any(_UNCLEAN_FOLDERS.fullmatch(name[:end]) for end in
            (match.start() for match in re.finditer("/", name)))


def _built(top: Path) -> bool:
    """Whether something was built in the tree."""
    return any((top / name).exists() for name in
               (".config", "include/config", "include/generated", "vmlinux"))


def _add(top: Path, name: str, real: str, found: dict[str, _File], built: bool,
         above: tuple[str, ...]) -> None:
    """Add the file, link or folder `real` as `name`; nothing where it is gone or special."""
    try:
        mode = os.lstat(real).st_mode
        if stat.S_ISLNK(mode):
            target = os.readlink(real)
            to = os.path.realpath(real)
            inside = Path(to).is_relative_to(top) and Path(real).is_relative_to(top)
            if inside and not os.path.isabs(target) or not os.path.exists(real):
                found[name] = _File(real, target)
                return
            # A link out of the tree, or to it by its full path, would lead the lab's own writes
            # into the user's files: copy what it leads to.
            mode = os.stat(real).st_mode
    except FileNotFoundError:
        return
    except OSError as err:
        raise LabError(f"cannot read {real}: {err.strerror}") from err
    if stat.S_ISDIR(mode):
        to = os.path.realpath(real)
        if to not in above:
            _walk(top, name, real, found, built, (*above, to))
    elif stat.S_ISREG(mode):
        found[name] = _File(real, None)


def _walk(top: Path, prefix: str, folder: str, found: dict[str, _File], built: bool,
          above: tuple[str, ...]) -> None:
    """Add what is below a folder, but for the products of builds."""
    try:
        entries = {entry.name: entry for entry in os.scandir(folder)}
    except OSError as err:
        raise LabError(f"cannot read {folder}: {err.strerror}") from err
    if prefix and ".config" in entries and "source" in entries:
        return          # somebody's O= folder
    generated = _generated(folder) if built and prefix and ".gitignore" in entries else set()
    for name, entry in sorted(entries.items()):
        path = f"{prefix}/{name}" if prefix else name
        if name == ".git" or _UNCLEAN_FILES.fullmatch(path) or _UNCLEAN_FOLDERS.fullmatch(path):
            continue
        if entry.is_dir(follow_symlinks=False):
            if not name.startswith(".tmp_"):
                _add(top, path, entry.path, found, built, above)
        elif not (_PRODUCTS.fullmatch(name) or _INSTALLED.fullmatch(path)
                  or f".{name}.cmd" in entries or name in generated or _is_program(entry)):
            _add(top, path, entry.path, found, built, above)


def _generated(folder: str) -> set[str]:
    """Files that a folder's .gitignore lists by their full names.

    Some generated files leave no .cmd file, and a stale one in the tree is found before the one
    in the build folder (arch/x86/boot/voffset.h).  Patterns are left out, as is the .gitignore of
    the tree itself: Debian's is for its packaging and ignores everything.
    """
    lines = Path(folder, ".gitignore").read_text(encoding="utf-8", errors="replace").splitlines()
    return {line.strip().lstrip("/") for line in lines
            if line.strip() and not re.search(r"^\s*[#!]|[*?\[]|./", line)}


def _is_program(entry: os.DirEntry[str]) -> bool:
    """Whether a file is a compiled program: the kernel ships none, its tools' builds leave them."""
    if not entry.is_file(follow_symlinks=False) or not entry.stat().st_mode & 0o111:
        return False
    try:
        with open(entry.path, "rb") as handle:
            return handle.read(4) == b"\x7fELF"
    except OSError:
        return False        # copying it says what is wrong


@dataclass(frozen=True)
class _Git:
    """The git repository that a tree is in, asked without changing it."""

    tree: Path
    top: Path

    @classmethod
    def of(cls, tree: Path) -> "_Git | None":
        """The repository that tracks the kernel tree: its own, or one that it is a part of."""
        for top in (tree, *tree.parents):
            if (top / ".git").exists():
                git = cls(tree, top)
                # A tree that merely lies in somebody's repository is not tracked there.
                said = git._run("ls-files", "-z", "--", "Makefile")
                return git if said is None or said else None
        return None

    def _run(self, *arguments: str) -> list[str] | None:
        """What git says, split at NULs; None where it fails."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
            "LC_ALL": "C",
            # Named, the repository may belong to anybody (safe.directory); .git may be a file.
            "GIT_DIR": str(self.top / ".git"),
            "GIT_WORK_TREE": str(self.top),
            # No refresh of the index.
            "GIT_OPTIONAL_LOCKS": "0",
        }
        # fsmonitor would start a program that writes below .git.
        try:
            done = subprocess.run(["git", "-c", "core.fsmonitor=false", *arguments],
                                  cwd=self.tree, env=environment, stdin=subprocess.DEVNULL,
                                  capture_output=True, check=False)
        except FileNotFoundError:
            return None
        if done.returncode != 0:
            return None
        return [os.fsdecode(part) for part in done.stdout.split(b"\0") if part]

    def files(self) -> list[str] | None:
        """Tracked files and untracked ones that are not ignored; a name/ is a repository in it."""
        said = self._run("ls-files", "-z", "-c", "-o", "--exclude-standard")
        return None if said is None else sorted(set(said))

    def head(self) -> str:
        """The commit that is checked out."""
        said = self._run("rev-parse", "--verify", "HEAD")
        return said[0].strip() if said else "no commit"

    def dirty(self) -> str:
        """How many files differ from that commit."""
        said = self._run("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all",
                         "--ignore-submodules=all", "--", ".")
        if said is None:
            return "unknown"
        return f"{len(said)} changed file{'s' if len(said) != 1 else ''}" if said else "no"


# ---- the copy ------------------------------------------------------------------------------


def _bring_up_to_date(top: Path, found: dict[str, _File], work: Path,
                      progress: Progress) -> tuple[str, int]:
    """Make work/tree a copy of the files; returns the hash of it all, and how many were new."""
    tree, key, manifest = work / "tree", work / "key", work / "manifest"
    noted = _load(manifest) if tree.is_dir() else None
    if noted is None:
        key.unlink(missing_ok=True)
        _forget(work)
    known = noted or {}

    # Stamps first: a file that changes after this has another stamp when it is read.
    stamps = {name: _stamp(file) for name, file in found.items()}
    stale = [name for name, stamp in stamps.items() if known.get(name, ("", ""))[0] != stamp]
    gone = sorted(known.keys() - found.keys())
    if not stale and not gone and key.exists():
        return _digest(known), 0
    if not known:
        need_space(work, _NEEDED_MIB, f"copying {top}")
    before = {name: known.get(name, ("", ""))[1] for name in stale}
    begun = False

    def begin() -> None:
        """Before the first change, and only then: what was only touched costs no rebuild."""
        nonlocal begun
        if begun:
            return
        begun = True
        # Imported here because variant.py needs Source.
        from lab.kernel import variant
        key.unlink(missing_ok=True)
        tree.mkdir(exist_ok=True)
        variant.restore(tree)
        # From here on a kill leaves files that are not what the manifest says, so it must say
        # nothing of them; listed they stay, so that the next run removes those it does not want.
        _save(manifest, {**known, **{name: ("", "") for name in (*stale, *gone)}})

    for name in gone:
        begin()
        _remove(tree, name)
        del known[name]
    changed = len(gone)
    for number, name in enumerate(stale, 1):
        progress.update(f"{number} of {len(stale)} files")
        kind, data = _content(found[name], stamps[name])
        content = f"{kind} {hashlib.sha256(data).hexdigest()}"
        if content != before[name]:
            begin()
            _put(tree / name, kind, data)
            changed += 1
        known[name] = (stamps[name], content)
    _save(manifest, known)
    digest = _digest(known)
    _write(key, digest[:20])
    return digest, changed


def _stamp(file: _File) -> str:
    """What changes when a file does."""
    if file.link is not None:
        return f"-> {file.link}"
    try:
        return _stat_stamp(os.stat(file.real))
    except OSError as err:
        raise LabError(f"cannot read {file.real}: {err.strerror}") from err


def _stat_stamp(info: os.stat_result) -> str:
    return f"{info.st_size} {info.st_mtime_ns} {info.st_ctime_ns} {info.st_ino} {info.st_mode:o}"


def _content(file: _File, stamp: str) -> tuple[str, bytes]:
    """What a file is ("file", "program", "link") and holds; LabError where it changes meanwhile."""
    if file.link is not None:
        return "link", os.fsencode(file.link)
    try:
        with open(file.real, "rb") as handle:
            data = handle.read()
            now = os.fstat(handle.fileno())
    except OSError as err:
        raise LabError(f"cannot read {file.real}: {err.strerror}") from err
    if _stat_stamp(now) != stamp:
        raise LabError(f"{file.real} changed while it was copied: run again when nothing changes "
                       "it")
    return "program" if now.st_mode & 0o111 else "file", data


def _put(dest: Path, kind: str, data: bytes) -> None:
    """Make `dest` such a file."""
    if os.path.lexists(dest):
        _delete(dest)
    elif not dest.parent.is_dir():
        dest.parent.mkdir(parents=True)
    if kind == "link":
        os.symlink(data, os.fsencode(dest))
        return
    # Not the user's mode: the lab must be able to replace what the user has made read-only.
    mode = 0o755 if kind == "program" else 0o644
    with open(os.open(dest, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as output:
        output.write(data)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove(tree: Path, name: str) -> None:
    """Remove a file of the copy, and the folders that it leaves empty."""
    path = tree / name
    if path.parent.is_dir() and os.path.lexists(path):
        _delete(path)
    for folder in path.parents:
        if folder == tree or not folder.is_dir() or any(folder.iterdir()):
            break
        folder.rmdir()


def _forget(work: Path) -> None:
    """Remove a copy of which nothing is known."""
    for name in ("tree", "variant"):
        shutil.rmtree(work / name, ignore_errors=True)
    (work / "manifest").unlink(missing_ok=True)


def _load(manifest: Path) -> dict[str, tuple[str, str]] | None:
    """Stamp and content by path; None where there is no good manifest."""
    try:
        read = json.loads(manifest.read_text(encoding="ascii"))
        return {name: (entry[0], entry[1]) for name, entry in read.items()}
    except (FileNotFoundError, ValueError, AttributeError, IndexError, TypeError):
        return None


def _save(manifest: Path, files: dict[str, tuple[str, str]]) -> None:
    _write(manifest, json.dumps(files))


def _digest(files: dict[str, tuple[str, str]]) -> str:
    """The hash of all paths, kinds and contents."""
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(os.fsencode(name) + b"\0" + files[name][1].encode("ascii") + b"\0")
    return total.hexdigest()
