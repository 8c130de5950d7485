# SPDX-License-Identifier: GPL-2.0
"""A kernel tree that the lab changes, kept by a git repository of the lab's own.

    tree        the files that make builds from
    git         the repository: refs/pristine is the source as it was given, index is of tree/,
                given is the index of the folder that it was given in, of-<state> that of a state
    lock        held while tree/ is changed or built from
    key         which source it is; missing while that is being taken in
    changing    there while files of tree/ change: after a kill they may be anything

A state of the tree is a tree object of git.  States are never changed, so that no lock is needed
to read them or to make one of another; only switch() touches tree/.  It writes the files that
differ, and no others: make rebuilds what depends on those, as their times are new.

No configuration, attributes or list of ignored files but the lab's own counts, so that bytes,
links and modes come out as they went in.  The folder that a source is given in is only read.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.paths import atomic_dir, disk_full, is_full, locked, scratch_dir
from lab.progress import Progress

PRISTINE = "refs/pristine"
_NOTHING = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"      # git's id of a tree with no files
_HELD: set[Path] = set()        # folders of trees whose lock this process holds
# As many paths git is asked for by name.
_FEW = 100

_REPOSITORY = {
    "HEAD": f"ref: {PRISTINE}\n",
    "info/attributes": "* -text -filter -ident !eol !working-tree-encoding !diff !export-subst\n",
    "config": """\
[core]
	repositoryFormatVersion = 0
	bare = false
	fileMode = true
	symlinks = true
	ignoreCase = false
	autocrlf = false
	protectHFS = false
	protectNTFS = false
	excludesFile = /dev/null
	attributesFile = /dev/null
	fsmonitor = false
	logAllRefUpdates = false
	quotePath = false
	compression = 1
[gc]
	auto = 0
"""}
_CHANGE = re.compile(r"(?m)^diff --git a/(?P<path>.+) b/(?P=path)$"
                     r"|^@@ -(?P<line>\d+)(?:,(?P<count>\d+))? .*\n(?P<body>(?:[-+\\].*\n?)*)")


class Damaged(LabError):
    """A repository that git cannot use."""


@dataclass(frozen=True)
class File:
    """A file of the folder that a source is given in."""

    real: str                   # where to read it
    link: str | None = None     # target of a symbolic link that stays one
    plain: bool = True          # it is what git finds at its path

    def read(self) -> tuple[str, bytes]:
        """Mode and content."""
        if self.link is not None:
            return "120000", os.fsencode(self.link)
        try:
            with open(self.real, "rb") as handle:
                program = os.fstat(handle.fileno()).st_mode & 0o100
                return "100755" if program else "100644", handle.read()
        except FileNotFoundError as err:
            raise changes(self.real) from err
        except OSError as err:
            raise LabError(f"cannot read {self.real}: {err.strerror}") from err


@dataclass(frozen=True)
class Change:
    """A run of changed lines in a file."""

    path: str
    line: int                   # in the old file
    removed: tuple[str, ...]
    added: tuple[str, ...]


def changes(path: str) -> LabError:
    """What to say of a file that is another than it was a moment ago."""
    return LabError(f"{path} changed while it was copied: run again when nothing changes it")


def first_line(text: str) -> str:
    """The first line of what a program says that says something."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "it said nothing")


class Tree:
    """The work tree in the folder `work`, and its repository."""

    def __init__(self, work: Path) -> None:
        self.work, self.path, self.store = work, work / "tree", work / "git"
        self._changing = work / "changing"

    @contextlib.contextmanager
    def lock(self, progress: Progress) -> Iterator[None]:
        """Hold it while the tree is changed or built from."""
        with locked(self.work / "lock", lambda: progress.note(
                f"another run works on {self.work}: waiting for it")):
            _HELD.add(self.work)
            try:
                yield
            finally:
                _HELD.discard(self.work)

    def key(self) -> str:
        """Which source the tree is of; "" where it is being made, or there is none."""
        try:
            said = (self.work / "key").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return ""
        return said if self.path.is_dir() else ""

    def name(self, key: str) -> None:
        """Say which source it is, now that it is there."""
        new = self.work / "key.new"
        new.write_text(key, encoding="ascii")
        new.replace(self.work / "key")

    def pristine(self) -> str:
        """The state that the source is in."""
        return self._git("rev-parse", "--verify", f"{PRISTINE}^{{tree}}").strip()

    # ---- states, without a lock ------------------------------------------------------------

    @contextlib.contextmanager
    def scratch(self, state: str) -> Iterator["Scratch"]:
        """A state to make another of."""
        with scratch_dir("lab-tree-") as folder:
            yield Scratch(self, state, folder.resolve())

    def names(self, state: str, among: Iterable[Path]) -> list[str]:
        """The files of a state that are in the folders `among`, or are one of them."""
        said = self._git("--literal-pathspecs", "ls-tree", "-r", "-z", "--full-tree", "--name-only",
                         state, "--", *(str(path) for path in among))
        return said.split("\0")[:-1]

    def diff(self, old: str, new: str, *options: str) -> str:
        """What git says is the difference of two states."""
        return self._git("diff-tree", "-p", "--full-index", "--no-renames", "--no-ext-diff",
                         "--no-color", *options, old, new)

    def changes(self, old: str, new: str) -> list[Change]:
        """The runs of lines that differ between two states."""
        found, path = [], ""
        for match in _CHANGE.finditer(self.diff(old, new, "--unified=0")):
            if match["path"]:
                path = match["path"]
                continue
            lines = match["body"].split("\n")
            # Where nothing was removed, git names the line before.
            found.append(Change(path, int(match["line"]) + (match["count"] == "0"),
                                tuple(line[1:] for line in lines if line[:1] == "-"),
                                tuple(line[1:] for line in lines if line[:1] == "+")))
        return found

    # ---- the files, under the lock ---------------------------------------------------------

    def take(self, top: Path, files: dict[str, File] | None, progress: Progress) -> int:
        """Make the files of the folder `top` the pristine state; returns how many were new.

        None is all that there are.  The tree is brought to that state, if it is not `top` itself.
        """
        if not self.store.is_dir():
            with atomic_dir(self.store) as new:
                for name, text in _REPOSITORY.items():
                    (new / name).parent.mkdir(exist_ok=True)
                    (new / name).write_text(text, encoding="ascii")
                (new / "objects").mkdir()
                (new / "refs").mkdir()
        index = "index" if top == self.path else "given"
        with self._alone() as hold:
            if files is None:
                names = self._git("ls-files", "-z", "-c", "-o", index=index, folder=top)
                files = {name: File(real, os.readlink(real) if os.path.islink(real) else None)
                         for name in names.split("\0")[:-1] for real in [f"{top}/{name}"]
                         if os.path.lexists(real)}
            self._list(top, files, index, hold)
            new_ones = self._new(index)
            if new_ones or not self.key():
                (self.work / "key").unlink(missing_ok=True)
                self._import(files, new_ones, progress, hold)
                if other := self._new(index):
                    raise changes(f"{top}/{other[0][1]}")
                for old in self.store.glob("of-*"):
                    old.unlink()
                self._git("read-tree", PRISTINE, index=f"of-{self.pristine()}", hold=hold,
                          folder=self.work)
        if index == "given" and not self.key():
            self.switch(self.pristine())
        # What the run before had, and this has not, is none of them.
        return sum(how != "D" for how, _name in new_ones)

    def switch(self, state: str) -> None:
        """Bring the files to a state.

        LabError where one was changed by something else than the lab.  RuntimeError without the
        lock: another run may be building from the tree, and would build this state, not its own.
        """
        if self.work not in _HELD:
            raise RuntimeError(f"{self.work} is not locked")
        with self._alone() as hold:
            killed = self._changing.exists() or not self.path.is_dir()
            if not killed:
                done = self._run(("update-index", "--refresh"), hold=hold)
                said = (done.stdout + done.stderr).decode("utf-8", "surrogateescape")
                if other := re.search(r"(?m)^(.+): needs update$", said):
                    raise LabError(f"{self.path / other[1]} was changed by something else than the "
                                   f"lab: remove {self.work} and run again")
                if done.returncode:
                    raise self._failed("update-index", said)
            self.path.mkdir(exist_ok=True)
            self._changing.touch()
            self._git("read-tree", "--reset", "-u", state, hold=hold)
            if killed:
                # What was being changed then is nobody's work.
                self._git("clean", "-ffdxq", hold=hold)
            self._changing.unlink()

    def _list(self, top: Path, files: dict[str, File], index: str, hold: int) -> None:
        """Make the index that of the files; their content is not kept yet."""
        listed = self._git("ls-files", "-z", index=index).split("\0")[:-1]
        if gone := [name for name in listed if name not in files]:
            self._git("update-index", "--force-remove", "-z", "--stdin", index=index, folder=top,
                      text=_joined(gone), hold=hold)
        others = []
        for name in sorted(name for name, file in files.items() if not file.plain):
            mode, data = files[name].read()
            ident = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
            others.append(f"{mode} {ident.hexdigest()}\t{name}")
        if others:
            self._git("update-index", "-z", "--index-info", index=index, folder=top,
                      text=_joined(others), hold=hold)
        done = self._run(("update-index", "--add", "--replace", "--info-only", "-z", "--stdin"),
                         index, top, _joined(sorted(name for name, file in files.items()
                                                    if file.plain)), hold)
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace")
            if why := re.search(r'error: open\("(.+)"\): (.+)', said):
                raise LabError(f"cannot read {top}/{why[1]}: {why[2]}")
            if why := re.search(r"fatal: Unable to process path (.+)", said):
                raise changes(f"{top}/{why[1]}")
            raise self._failed("update-index", said)

    def _new(self, index: str) -> list[tuple[str, str]]:
        """How, and where, an index differs from the pristine state: D is for what is gone."""
        there = (self.store / PRISTINE).exists()
        said = self._git("diff-index", "--cached", "--name-status", "--no-renames", "-z",
                         PRISTINE if there else _NOTHING, index=index).split("\0")
        return list(zip(said[::2], said[1::2]))

    def _import(self, files: dict[str, File], new: list[tuple[str, str]], progress: Progress,
                hold: int) -> None:
        """Make the pristine state, and keep what is new of it."""
        # In one file, where update-index would make one each.
        with subprocess.Popen(
                ["git", "fast-import", "--quiet", "--depth=0", "--force", "--done"],
                cwd=self.store, env=self._environment("index", self.store, self.store),
                stdin=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=(hold,)) as process:
            assert process.stdin and process.stderr
            with contextlib.suppress(BrokenPipeError), process.stdin as output:
                output.write(f"commit {PRISTINE}\ncommitter lab <lab> 0 +0000\ndata 0\n".encode())
                if (self.store / PRISTINE).exists():
                    output.write(f'M 040000 {self.pristine()} ""\n'.encode())
                for name in (name for how, name in new if how == "D"):
                    output.write(b"D %s\n" % _quoted(name))
                for number, name in enumerate((name for how, name in new if how != "D"), 1):
                    progress.update(f"{number} of {len(new)} files")
                    mode, data = files[name].read()
                    output.write(b"M %s inline %s\ndata %d\n" % (mode.encode(), _quoted(name),
                                                                 len(data)))
                    output.write(data + b"\n")
                output.write(b"done\n")
            said = process.stderr.read().decode("utf-8", "replace")
        if process.returncode:
            raise self._failed("fast-import", said)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[int]:
        """Wait for a git that outlived its run, and remove what one has left behind.

        Who changes the repository inherits the file that is given.
        """
        with open(self.store / "alone", "a", encoding="ascii") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            for pattern in ("*.lock", "refs/*.lock", "objects/pack/tmp_*", "fast_import_crash_*"):
                for left in self.store.glob(pattern):
                    left.unlink()
            yield handle.fileno()

    # ---- git -------------------------------------------------------------------------------

    def _environment(self, index: str, folder: Path, store: Path) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "HOME": str(store),
                "GIT_DIR": str(store), "GIT_INDEX_FILE": str(store / index),
                "GIT_WORK_TREE": str(folder), "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_ATTR_NOSYSTEM": "1"}

    def _run(self, words: Iterable[str], index: str = "index", folder: Path | None = None,
             text: str = "", hold: int | None = None, store: Path | None = None
             ) -> "subprocess.CompletedProcess[bytes]":
        folder = folder or (self.path if hold is not None else self.work)
        return subprocess.run(
            ["git", *words], cwd=folder, env=self._environment(index, folder, store or self.store),
            input=text.encode("utf-8", "surrogateescape"), capture_output=True, check=False,
            pass_fds=() if hold is None else (hold,))

    def _git(self, *words: str, index: str = "index", folder: Path | None = None, text: str = "",
             hold: int | None = None, store: Path | None = None) -> str:
        """What git says; LabError where it fails."""
        done = self._run(words, index, folder, text, hold, store)
        if done.returncode:
            raise self._failed(words[0], done.stderr.decode("utf-8", "replace"))
        return done.stdout.decode("utf-8", "surrogateescape")

    def _failed(self, word: str, said: str) -> LabError:
        # A state is made in a temporary folder.
        full = [path for path in (self.work, Path(tempfile.gettempdir())) if is_full(path)]
        if full or "No space left" in said or "Disk quota" in said:
            return disk_full((*full, self.work)[0])
        return Damaged(f"git {word} fails in {self.store} ({first_line(said)}): remove "
                       f"{self.work} and run again")


class Scratch:
    """A state that is being made of another: an index, and some of the files in a folder."""

    def __init__(self, tree: Tree, state: str, folder: Path) -> None:
        self._tree, self._index, self.files = tree, str(folder / "index"), folder / "files"
        self.files.mkdir()
        try:
            shutil.copyfile(tree.store / f"of-{state}", self._index)
        except FileNotFoundError:
            self._git("read-tree", state)

    def _git(self, *words: str, text: str = "") -> str:
        return self._tree._git(*words, index=self._index, folder=self.files, text=text)

    def apply(self, patches: Sequence[Path] | str, *options: str) -> str:
        """Apply a diff or patches, all or none of them; returns why git refuses, or ""."""
        text = patches if isinstance(patches, str) else ""
        done = self._tree._run(
            ("apply", "--cached", "--whitespace=nowarn", *options,
             *(["-"] if text else [str(patch) for patch in patches])),
            self._index, self.files, text)
        return done.stderr.decode("utf-8", "surrogateescape") if done.returncode else ""

    def take_out(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Those of `paths` that there are, now in self.files, too."""
        asked = tuple(dict.fromkeys(paths))
        # Git compares each file with each path: the time for many is that of both, multiplied.
        few = asked if len(asked) <= _FEW else ()
        listed = set(self._git("--literal-pathspecs", "ls-files", "-z", "--", *few).split("\0"))
        there = tuple(path for path in asked if path in listed)
        self._git("checkout-index", "-f", "-z", "--stdin", text=_joined(there))
        return there

    def real(self, paths: Iterable[Path]) -> dict[Path, Path]:
        """Where in self.files to read those of `paths` that are files, or links to files of the
        state."""
        there = self.take_out(str(path) for path in paths)
        leads_to = (os.path.normpath(os.path.join(os.path.dirname(name), os.readlink(path)))
                    for name in there for path in [self.files / name] if path.is_symlink())
        if inside := [name for name in leads_to if not name.startswith(("/", "../"))]:
            self.take_out(inside)
        return {Path(name): self.files / name for name in there if (self.files / name).is_file()}

    def put_in(self, paths: Iterable[str]) -> str:
        """The state with these files as they are in self.files now."""
        self._git("update-index", "--add", "-z", "--stdin", text=_joined(paths))
        return self.state()

    def state(self) -> str:
        """The state that was made."""
        return self._git("write-tree").strip()


def _joined(names: Iterable[str]) -> str:
    return "".join(f"{name}\0" for name in names)


def _quoted(name: str) -> bytes:
    """A path as fast-import reads it, whatever is in it."""
    path = os.fsencode(name)
    if b"\n" in path or path.startswith(b'"'):
        return b'"' + b"".join(b"\\%03o" % byte for byte in path) + b'"'
    return path


def forget(tree: Tree) -> None:
    """Remove a tree that nothing can be made of."""
    for path in (tree.path, tree.store):
        shutil.rmtree(path, ignore_errors=True)
    for name in ("key", "changing"):
        (tree.work / name).unlink(missing_ok=True)
