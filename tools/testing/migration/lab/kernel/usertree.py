# SPDX-License-Identifier: GPL-2.0
"""Says which files a user's kernel tree consists of, and what git knows of it.

In git, that is what is tracked and what is untracked but not ignored; else everything but the
products of a build.  The tree is only read, git's index in it too.
"""

import os
import re
import stat
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.kernel.tree import File
from lab.words import plural

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


def scan(top: Path) -> tuple[dict[str, File], dict[str, str]]:
    """The files of the tree by path in it, and what git says of it."""
    git = _Git.of(top)
    listed = git.files() if git else None
    if git is None or listed is None:
        # "unreadable": a work tree whose repository is gone is a kernel tree all the same.
        built = any((top / name).exists() for name in
                    (".config", "include/config", "include/generated", "vmlinux"))
        scan = _Scan(top, built)
        scan.walk("", str(top), (), True)
        return scan.found, {"git": "no git" if git is None else "unreadable", "dirty": "unknown"}
    scan = _Scan(top, False)
    for name in (name.rstrip("/") for name in listed if not _unclean(name)):
        scan.add(name, f"{top}/{name}", (), True)
    return scan.found, {"git": git.head(), "dirty": git.dirty()}


def some(top: Path, names: Iterable[str]) -> dict[str, File]:
    """Those of the files `names` that are in the tree, which need not be all of a patch's."""
    scan = _Scan(top, False)
    for name in names:
        scan.add(name, f"{top}/{name}", (), True)
    return scan.found


def _unclean(name: str) -> bool:
    """Whether Kbuild takes a file as the sign of a build in place (some keep one in git)."""
    return bool(_UNCLEAN_FILES.fullmatch(name)) or \
        any(_UNCLEAN_FOLDERS.fullmatch(name[:end]) for end in
            (match.start() for match in re.finditer("/", name)))


class _Scan:
    """Finds the files of a tree in which something was built, or nothing was.

    `above` are the folders on the way that may not come again, as links make loops; a `plain` path
    has no link on its way that is followed.
    """

    def __init__(self, top: Path, built: bool) -> None:
        self.top, self.built = top, built
        self.found: dict[str, File] = {}

    def add(self, name: str, real: str, above: tuple[str, ...], plain: bool) -> None:
        """Add the file, link or folder `real` as `name`; nothing where it is gone or special."""
        try:
            mode = os.lstat(real).st_mode
            if stat.S_ISLNK(mode):
                target = os.readlink(real)
                to = os.path.realpath(real)
                inside = Path(to).is_relative_to(self.top) and Path(real).is_relative_to(self.top)
                if inside and not os.path.isabs(target) or not os.path.exists(real):
                    self.found[name] = File(real, target, plain)
                    return
                # A link out of the tree, or to it by its full path, would lead the lab's own
                # writes into the user's files: copy what it leads to.
                mode, plain = os.stat(real).st_mode, False
        except FileNotFoundError:
            return
        except OSError as err:
            raise LabError(f"cannot read {real}: {err.strerror}") from err
        if stat.S_ISDIR(mode):
            to = os.path.realpath(real)
            if to not in above:
                self.walk(name, real, (*above, to), plain)
        elif stat.S_ISREG(mode):
            self.found[name] = File(real, None, plain)

    def walk(self, prefix: str, folder: str, above: tuple[str, ...], plain: bool) -> None:
        """Add what is below a folder, but for the products of builds."""
        try:
            entries = {entry.name: entry for entry in os.scandir(folder)}
        except OSError as err:
            raise LabError(f"cannot read {folder}: {err.strerror}") from err
        if prefix and ".config" in entries and "source" in entries:
            return          # somebody's O= folder
        generated = _generated(folder) if self.built and prefix and ".gitignore" in entries \
            else set()
        for name, entry in sorted(entries.items()):
            path = f"{prefix}/{name}" if prefix else name
            if name == ".git" or _UNCLEAN_FILES.fullmatch(path) or _UNCLEAN_FOLDERS.fullmatch(path):
                continue
            if entry.is_dir(follow_symlinks=False):
                if not name.startswith(".tmp_"):
                    self.add(path, entry.path, above, plain)
            elif not (_PRODUCTS.fullmatch(name) or _INSTALLED.fullmatch(path)
                      or f".{name}.cmd" in entries or name in generated or _is_program(entry)):
                self.add(path, entry.path, above, plain)


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
        return plural(len(said), "changed files") if said else "no"
