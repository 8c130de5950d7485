# SPDX-License-Identifier: GPL-2.0
"""Makes a work tree vulnerable or fixed: two states of one source, and nothing else between them.

A tree that has the protection is the fixed one as it is, and the defect's revert.cocci takes the
protection out of it.  A tree that never had it is the vulnerable one as it is, and the patches of
queue/<base> put it in.  A defect that only the first patches lay open has those in its vulnerable
tree.  A race that is too narrow to be met in each boot is made wider in both, by the defect's
amplifier.cocci.

What put() changes in a work tree is written down beside the tree before it is changed, in
<work>/variant/:

    pristine/<file>     the file as the source has it, with its time; kept once it is there
    state.json          per file: hash of the pristine content, hashes of what the lab put there
    new/                files about to be moved into the tree

so that after a kill at any point the next put() knows what is the lab's and what is the source's.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lab.defect import Amplifier, Defect
from lab.errors import LabError
from lab.kernel import kconfig, spatch
from lab.kernel.source import Source
from lab.paths import REPO

QUEUE = REPO / "queue"

_ABSENT = "absent"      # in place of a hash: the file does not exist


@dataclass(frozen=True)
class Variant:
    """A state of a source's tree, as a diff against its pristine state."""

    name: str                   # "vulnerable" or "fixed"
    how: str                    # "as it is", "queue/4.14 (3 patches)", "revert.cocci (2 places)"
    diff: str                   # git's unified diff, "" for the pristine tree
    key: str                    # hash of the diff
    places: tuple[str, ...]     # what a rule changed: "mm/rmap.c:1775 try_to_unmap_one"


def plan(source: Source, defect: Defect, form: str = "") -> tuple[Variant, Variant]:
    """The vulnerable and the fixed variant of `source` for `defect`.  Changes no tree.

    `form` is another form of the queue to be the fixed one: "unshare" for series.unshare.  Where the
    released tree has a protection, the vulnerable one is still the tree without that.
    LabError where the rule or the amplifier does not change exactly the places that the defect
    names, where a patch of the queue does not apply as it is (no fuzz), where there is neither
    a match nor a queue, and where the queue has no such form, or the defect is one of it.
    """
    def made(name: str, how: str, diff: str, places: tuple[str, ...] = ()) -> Variant:
        if defect.amplifier:
            diff, more = _amplified(source, defect, defect.amplifier, diff)
            how = f"{how}, and amplifier.cocci: {defect.amplifier.does}"
            places += tuple(f"{place} (amplifier.cocci)" for place in more)
        return make(name, how, _with_files(source, defect.kernel.add, diff), places)

    reverted = _reverted(source, defect)
    form = form or ("" if reverted else _only_form(source.base.name, defect))
    name = f"series.{form}" if form else "series"
    queue = f"queue/{source.base.name}" + (f"/{name}" if form else "")
    patches = series(source.base.name, name)
    if form and not patches:
        raise LabError(f"FORM={form}: there is no {queue}")
    if form and name == defect.queue.form:
        raise LabError(f"FORM={form}: {defect.name} is a defect of that form of the fix")
    if reverted:
        if defect.shares_tables and (why := kconfig.unshared(source.tree)):
            raise LabError(f"nothing to compare for {defect.name} in {source.version}: {why}")
        diff, places = reverted
        count = f"{len(places)} place" + ("s" if len(places) != 1 else "")
        fixed = made("fixed", f"{queue} ({len(patches)} patches)", queue_diff(source, patches)) \
            if form else made("fixed", "as it is", "")
        return made("vulnerable", f"revert.cocci ({count})", diff, places), fixed
    other = series(source.base.name, defect.queue.form) if defect.queue.form else []
    if not (patches and other or mending(patches, defect)):
        raise LabError(
            f"nothing to compare for {defect.name} in {source.version}: revert.cocci finds no "
            f"protection in {' '.join(defect.revert.files) if defect.revert else 'it'}, and {queue}"
            " has no patches that would add it")
    count = f"{len(patches)} patch" + ("es" if len(patches) != 1 else "")
    fixed = made("fixed", f"{queue} ({count})", queue_diff(source, patches))
    if defect.queue.form:
        # Where the queue has no such form of the fix, the tree was released with it.
        how = f"queue/{source.base.name}/{defect.queue.form} ({len(other)} patches)" if other \
            else "as it is"
        return (made("vulnerable", how, queue_diff(source, other) if other else ""), fixed)
    part = _with_it(patches, defect)
    if not part:
        return made("vulnerable", "as it is", ""), fixed
    how = f"without {len(patches) - len(part)} of its {len(patches)} patches" \
        if defect.queue.without else f"patches 1 to {len(part)}"
    return (made("vulnerable", f"{queue} ({how})", queue_diff(source, part)), fixed)


def put(source: Source, variant: Variant) -> None:
    """Make source.tree the pristine tree plus variant.diff.  Call it under the tree's lock.

    A file that is right already is not touched; any other gets a new time, so that make rebuilds
    what depends on it, also where the file goes back to its pristine content.
    LabError where a file is neither pristine nor the lab's own.
    """
    _State(source.tree).put(variant.diff)


def restore(tree: Path) -> None:
    """Make `tree` pristine and forget its state, before its source is brought up to date."""
    state = _State(tree)
    state.put("")
    # The state goes first and the copies after it: copies without a state are only litter.
    state.file.unlink(missing_ok=True)
    shutil.rmtree(state.folder, ignore_errors=True)


def make(name: str, how: str, diff: str, places: tuple[str, ...] = ()) -> Variant:
    """A variant of a tree: `diff` against its pristine state, under a name."""
    key = hashlib.sha256(diff.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return Variant(name, how, diff, key, places)


def _with_files(source: Source, files: tuple[str, ...], diff: str) -> str:
    """`diff` and, in the same tree, files of this repository; C files are built in.

    LabError where the tree has a file of that name.
    """
    if not files:
        return diff
    with tempfile.TemporaryDirectory(prefix="lab-files-") as folder:
        scratch = _Scratch(source.tree, Path(folder))
        makefiles = sorted({str(Path(file).parent / "Makefile") for file in files
                            if file.endswith(".c")})
        scratch.take([*_touched(diff), *makefiles, *files])
        if diff and (done := _apply(scratch.new, diff)).returncode != 0:
            raise LabError(f"the variant of {source.version} cannot be made: "
                           f"{_first_line(done.stderr)}")
        for file in files:
            if (scratch.new / file).exists():
                raise LabError(f"{source.version} has a {file} of its own")
            (scratch.new / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPO / file, scratch.new / file)
        for makefile in makefiles:
            with open(scratch.new / makefile, "a", encoding="utf-8") as text:
                for file in files:
                    if file.endswith(".c") and str(Path(file).parent / "Makefile") == makefile:
                        text.write(f"obj-y += {Path(file).stem}.o\n")
        return scratch.diff()


# ---- diffs ---------------------------------------------------------------------------------


@dataclass
class _Change:
    """A run of changed lines in a file."""

    line: int                                       # in the old file
    removed: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)


@dataclass
class _FileDiff:
    path: str
    hunks: list[int] = field(default_factory=list)  # first old line of each
    changes: list[_Change] = field(default_factory=list)


_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+\d+(?:,(\d+))? @@")


def _parse_diff(diff: str) -> list[_FileDiff]:
    """The files of a unified diff, also one with a mail in front of it.

    Lines are counted as the hunk headers say, so that a removed line "-- a/x" is no header.
    """
    files: list[_FileDiff] = []
    old_left = new_left = line = 0
    change: _Change | None = None

    def begin(path: str) -> None:
        if not files or files[-1].path != path:
            files.append(_FileDiff(path))

    for text in diff.split("\n"):
        if old_left > 0 or new_left > 0:
            kind, rest = text[:1], text[1:]
            if kind in ("-", "+"):
                if change is None:
                    change = _Change(line)
                    files[-1].changes.append(change)
                if kind == "-":
                    change.removed.append(rest)
                    old_left, line = old_left - 1, line + 1
                else:
                    change.added.append(rest)
                    new_left -= 1
            elif kind != "\\":          # "\ No newline at end of file" is no line
                change = None
                old_left, new_left, line = old_left - 1, new_left - 1, line + 1
            continue
        change = None
        if hunk := _HUNK.match(text):
            if not files:
                raise LabError("a diff begins with a hunk, and names no file")
            line = int(hunk[1])
            old_left = int(hunk[2] or 1)
            new_left = int(hunk[3] or 1)
            files[-1].hunks.append(line)
        elif header := re.match(r"diff --git a/(\S+) b/(\S+)$", text):
            begin(header[1])
            begin(header[2])
        elif header := re.match(r"(?:---|\+\+\+) [ab]/(\S+)", text):
            begin(header[1])
    return files


def _touched(diff: str) -> list[str]:
    """The files that a diff names; LabError for one outside the tree."""
    paths = sorted({file.path for file in _parse_diff(diff)})
    for path in paths:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise LabError(f"a patch names a file outside the kernel tree: {path}")
    return paths


def _git(folder: Path, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run git in a folder that is no repository, whatever is above it and in ~/.gitconfig."""
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LC_ALL": "C",
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        # git apply inside a repository passes over files that are outside its own folder.
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
    }
    return subprocess.run(["git", *arguments], cwd=folder, env=environment, input=text, text=True,
                          encoding="utf-8", errors="surrogateescape", capture_output=True,
                          check=False)


def _apply(folder: Path, diff: str) -> subprocess.CompletedProcess[str]:
    return _git(folder, "apply", "--whitespace=nowarn", "-", text=diff)


def _read(path: Path) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as handle:
        return handle.read()


class _Scratch:
    """Two copies of some files of a pristine tree: a/ stays, b/ is worked on."""

    def __init__(self, tree: Path, folder: Path) -> None:
        self.state = _State(tree)
        # git compares the names of folders: no symbolic links on the way.
        self.top = folder.resolve()
        self.old, self.new = self.top / "a", self.top / "b"
        self.old.mkdir()
        self.new.mkdir()
        self.have: set[str] = set()

    def take(self, paths: list[str]) -> None:
        """Copy the files named, those that exist, unless they are here already."""
        for path in paths:
            if path in self.have:
                continue
            self.have.add(path)
            for side in (self.old, self.new):
                self.state.copy_pristine(path, side / path)

    def diff(self) -> str:
        """What was changed in b/."""
        done = _git(self.top, "diff", "--no-index", "--no-prefix", "--no-ext-diff", "--no-color",
                    "--no-renames", "--full-index", "a", "b")
        if done.returncode not in (0, 1) or done.stderr.strip():
            raise LabError(f"git diff failed: {_first_line(done.stderr)}")
        return done.stdout

    def keep(self) -> None:
        """Remember what b/ is now."""
        shutil.copytree(self.new, self.top / "kept")

    def diff_since(self) -> str:
        """What was changed in b/ since keep(); the pristine files are lost over it."""
        shutil.rmtree(self.old)
        (self.top / "kept").rename(self.old)
        return self.diff()


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "it said nothing")


# ---- rules ---------------------------------------------------------------------------------


def functions(text: str) -> Iterator[tuple[str, int, int]]:
    """Name, first and last line of each function in a C file of kernel style.

    A body begins with a brace alone in column 0 and ends with one.
    """
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if line.rstrip() != "{":
            continue
        first = number
        while first > 0 and lines[first - 1].strip() and lines[first - 1][0] not in "}#/" \
                and not lines[first - 1].rstrip().endswith((";", "*/")):
            first -= 1
        name = re.search(r"(\w+)\s*\(", " ".join(lines[first:number]))
        last = next((later for later in range(number, len(lines))
                     if lines[later].startswith("}")), len(lines) - 1)
        if name:
            yield name[1], first + 1, last + 1


@dataclass(frozen=True)
class Place:
    """A run of lines that a rule changed."""

    path: str
    function: str               # "no function" outside of any
    line: int                   # in the file before the rule
    removed: tuple[str, ...]
    added: tuple[str, ...]


@dataclass(frozen=True)
class Edit:
    """What a rule of coccinelle makes of some files."""

    diff: str                   # against the pristine tree, what was there before the rule included
    places: tuple[Place, ...]   # what the rule changed itself
    functions: frozenset[str]   # all that are there in its files


def edit(source: Source, rule: Path, files: tuple[str, ...], about: str, before: str = ""
         ) -> Edit | None:
    """Run a rule on those of `files` that the tree has, pristine plus the diff `before`; None if
    nothing matches.

    `about` names whose rule it is.  Changes no tree.  LabError where it has none of them.
    """
    with tempfile.TemporaryDirectory(prefix="lab-rule-") as folder:
        scratch = _Scratch(source.tree, Path(folder))
        scratch.take([*_touched(before), *files])
        if before and (done := _apply(scratch.new, before)).returncode != 0:
            raise LabError(f"the variant of {source.version} cannot be made: "
                           f"{_first_line(done.stderr)}")
        have = tuple(path for path in files if (scratch.new / path).exists())
        if not have:
            raise LabError(f"{source.version} has no {files[0]}, which {about} is about: "
                           "is it a whole kernel tree?")
        defined = [(path, *function) for path in have
                   for function in functions(_read(scratch.new / path))]
        scratch.keep()
        spatch.patch(rule, scratch.new, have)
        diff = scratch.diff()
        own = _parse_diff(scratch.diff_since())
    if not own:
        return None

    places = [
        Place(file.path, next((name for path, name, first, last in defined
                               if path == file.path and first <= change.line <= last),
                              "no function"),
              change.line, tuple(change.removed), tuple(change.added))
        for file in own for change in file.changes]
    return Edit(diff, tuple(places), frozenset(name for _path, name, _first, _last in defined))


def wanted_places(places: tuple[str, ...], exist: frozenset[str]) -> dict[str, bool]:
    """Whether a rule must change it, for each function named in `places`, or must not.

    Of "a|b", b took the job over from a: in a tree that has both, a must have nothing of it.
    """
    wanted = {name: False for names in places for name in names.split("|")}
    for names in places:
        if there := [name for name in names.split("|") if name in exist]:
            wanted[there[-1]] = True
    return wanted


def _reverted(source: Source, defect: Defect) -> tuple[str, tuple[str, ...]] | None:
    """The diff that the defect's revert.cocci makes, and the places; None where it matches nothing.

    A label that is removed alone goes with the jump that was removed: it is named with the place,
    and is none of its own.
    """
    rule = defect.revert
    if rule is None:
        return None
    made = edit(source, rule.rule, rule.files, defect.name)
    if made is None:
        return None

    changed: dict[str, list[str]] = {}
    labels: dict[str, list[str]] = {}
    call = re.compile(rf"\b({'|'.join(map(re.escape, rule.removes.split('|')))})\s*\(")
    for place in made.places:
        gone = list(enumerate(place.removed, place.line))
        # Not one a change: a diff may show two places that are close as one.
        calls = [f"{place.path}:{line}" for line, text in gone if call.search(text)]
        if calls:
            changed.setdefault(place.function, []).extend(calls)
        elif gone and not place.added and \
                all(re.fullmatch(r"\s*\w+:\s*", text) for _line, text in gone):
            labels.setdefault(place.function, []).extend(f"{text.strip()} in line {line}"
                                                         for line, text in gone)
        else:
            raise LabError(f"{defect.name}/revert.cocci changes {place.path}:{place.line} "
                           f"({place.function}) of {source.version}, and that is no "
                           f"{rule.removes}(): a kernel made so proves nothing; the rule needs "
                           "a look")

    wanted = wanted_places(rule.places, made.functions)
    wrong = [f"{name}: {len(changed.get(name, []))} in place of {int(wanted.get(name, False))}"
             for name in sorted(wanted.keys() | changed.keys() | labels.keys())
             if len(changed.get(name, [])) != wanted.get(name, False)
             or name in labels and name not in changed]
    if wrong:
        raise LabError(f"{defect.name}/revert.cocci changes other places of {source.version} "
                       f"than its defect.toml says ({'; '.join(wrong)}): a kernel made so proves "
                       "nothing; the rule needs a look")
    places = []
    for name in wanted:
        for where in changed.get(name, []):
            also = f" (and its label {', '.join(labels[name])})" if name in labels else ""
            places.append(f"{where} {name}{also}")
    return made.diff, tuple(places)


def _amplified(source: Source, defect: Defect, amplifier: Amplifier, before: str
               ) -> tuple[str, tuple[str, ...]]:
    """The diff `before` and the amplifier's, and the places that it changed."""
    made = edit(source, amplifier.rule, amplifier.files, f"the amplifier of {defect.name}", before)
    exist = made.functions if made else frozenset()
    wanted = sorted(name for name, must in wanted_places(amplifier.places, exist).items() if must)
    have = sorted(place.function for place in made.places) if made else []
    if not made or not have or have != wanted:
        raise LabError(f"{defect.name}/amplifier.cocci changes {', '.join(have) or 'nothing'} in "
                       f"{source.version}, and not each of {' '.join(amplifier.places)} once: the "
                       "rule needs a look")
    return made.diff, tuple(f"{place.path}:{place.line} {place.function}"
                            for place in made.places)


# ---- queue ---------------------------------------------------------------------------------


def series(base: str, form: str = "series") -> list[Path]:
    """The patches of queue/<base> in order; none where there is no such folder.

    `form` is the file that names them: a queue may have the same fixes in another form as well.
    """
    series = QUEUE / base / form
    if not series.exists():
        return []
    names = (line.split("#")[0].strip() for line in
             series.read_text(encoding="utf-8").splitlines())
    patches = [series.parent / name for name in names if name]
    for patch in patches:
        if not patch.is_file():
            raise LabError(f"queue/{base}/{form} names {patch.name}, and there is no such file")
    return patches


def mending(patches: list[Path], defect: Defect) -> list[Path]:
    """Those patches of a series that say they are a commit which fixes `defect`: there are several
    defects, and a queue may be about others.  Where there is no such commit, those that say they fix
    the one that brought it.  All of them for a defect that names neither.

    To mention a commit is not to be it.
    """
    if defect.brought:
        fixes = re.compile(rf"(?m)^Fixes: {defect.brought.split()[0]}")
        return [patch for patch in patches if fixes.search(_read(patch))]
    shas = "|".join(commit.split()[0] for commit in defect.upstream)
    said = re.compile(rf"(?m)^(?:commit (?:{shas})[0-9a-f]* upstream\.$"
                      rf"|\[ (?:Upstream this is|This is a part of|Replaces) commit (?:{shas}))")
    return [patch for patch in patches if not shas or said.search(_read(patch))]


def _only_form(base: str, defect: Defect) -> str:
    """The form of the queue that fixes `defect` where the usual one does not; "" for none."""
    if mending(series(base), defect):
        return ""
    for file in sorted((QUEUE / base).glob("series.*")):
        if file.name != defect.queue.form and mending(series(base, file.name), defect):
            return file.name.removeprefix("series.")
    return ""


def _with_it(patches: list[Path], defect: Defect) -> list[Path]:
    """The part of a series that leaves `defect` in, as its file says; none of it by default."""
    if defect.queue.before_own:
        return patches[:patches.index(mending(patches, defect)[0])]
    if not defect.queue.without:
        return []
    names = [re.sub(r"^\d+-", "", patch.stem) for patch in patches]
    if unknown := [name for name in defect.queue.without if name not in names]:
        raise LabError(f"defects/{defect.name} names {unknown[0]}, and queue/"
                       f"{patches[0].parent.name}/series has no such patch")
    return [patch for patch, name in zip(patches, names) if name not in defect.queue.without]


def queue_diff(source: Source, patches: list[Path]) -> str:
    """The diff that the patches make together on the pristine tree."""
    with tempfile.TemporaryDirectory(prefix="lab-queue-") as folder:
        scratch = _Scratch(source.tree, Path(folder))
        for patch in patches:
            text = _read(patch)
            scratch.take(_touched(text))
            done = _apply(scratch.new, text)
            if done.returncode != 0:
                raise LabError(_why_not(source, patch, text, scratch.new, done.stderr))
        diff = scratch.diff()
    if not diff:
        raise LabError(f"the patches of queue/{source.base.name} change nothing in "
                       f"{source.version}")
    return diff


def text_of(source: Source, variant: Variant, path: str) -> str:
    """The file `path` of a variant; LabError where there is none."""
    with tempfile.TemporaryDirectory(prefix="lab-file-") as folder:
        scratch = _Scratch(source.tree, Path(folder))
        scratch.take([path])
        if path in _touched(variant.diff):
            done = _git(scratch.new, "apply", "--whitespace=nowarn", f"--include={path}", "-",
                        text=variant.diff)
            if done.returncode != 0:
                raise LabError(f"{path} of {source.version} is not what the variant was made of: "
                               f"{_first_line(done.stderr)}")
        if not (scratch.new / path).is_file():
            raise LabError(f"{source.version} has no {path}")
        return _read(scratch.new / path)


def _why_not(source: Source, patch: Path, text: str, folder: Path, stderr: str) -> str:
    """One line about a patch that git refused: the patch, the file, the hunk, and the reverse."""
    where = ""
    if failed := re.search(r"patch failed: (.+):(\d+)", stderr):
        path, line = failed[1], int(failed[2])
        hunks: list[int] = next((file.hunks for file in _parse_diff(text) if file.path == path), [])
        number = f"hunk {hunks.index(line) + 1} of {len(hunks)} " if line in hunks else ""
        where = f"{path}, {number}(line {line})"
    else:
        where = _first_line(stderr).removeprefix("error: ")
    back = _git(folder, "apply", "--whitespace=nowarn", "--check", "--reverse", "-", text=text)
    already = ": its reverse does, so this tree has it already" if back.returncode == 0 \
        else ", nor does its reverse"
    return (f"{patch.parent.name}/{patch.name} does not apply to {source.version} at "
            f"{where}{already}")


# ---- the state of a work tree --------------------------------------------------------------


def _hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return _ABSENT


class _State:
    """What the lab has changed in a work tree, and how to change it back."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self.folder = tree.parent / "variant"
        self.file = self.folder / "state.json"

    def _load(self) -> dict[str, dict[str, list[str]]]:
        try:
            files: dict[str, dict[str, list[str]]] = json.loads(self.file.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as err:
            raise LabError(f"{self.file} cannot be read: remove {self.tree.parent} and run "
                           "again") from err
        return files

    def _save(self, files: dict[str, dict[str, list[str]]]) -> None:
        new = self.folder / "state.json.new"
        new.write_text(json.dumps(files, indent=1, sort_keys=True), encoding="utf-8")
        new.replace(self.file)

    def _pristine(self, path: str) -> Path:
        return self.folder / "pristine" / path

    def copy_pristine(self, path: str, dest: Path) -> None:
        """Copy a file's pristine content to `dest`; nothing where it does not exist.

        Needs no lock: put() writes its state down before it touches a file, so a file that was
        not in the state *after* it was read was pristine when it was read.
        """
        def copy(source: Path) -> bool:
            dest.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copy2(source, dest)
            except FileNotFoundError:
                return False
            return True

        copied = copy(self.tree / path)
        entry = self._load().get(path)
        if entry is None:
            return
        if entry["pristine"] == [_ABSENT]:
            if copied:
                dest.unlink()
        elif not copy(self._pristine(path)):
            raise LabError(f"{self._pristine(path)} is gone: remove {self.tree.parent} and run "
                           "again")

    def put(self, diff: str) -> None:
        """Make the tree pristine plus `diff`."""
        if not diff and not self.file.exists():
            return
        new = self.folder / "new"
        if new.exists():
            shutil.rmtree(new)
        new.mkdir(parents=True)
        files = self._load()
        paths = sorted(set(files) | set(_touched(diff)))

        for path in paths:
            self.copy_pristine(path, new / path)
        if diff:
            done = _apply(new, diff)
            if done.returncode != 0:
                raise LabError(f"the work tree {self.tree} is not what it was a moment ago "
                               f"({_first_line(done.stderr)}): run again")

        for path in paths:
            have, want = _hash(self.tree / path), _hash(new / path)
            entry = files.get(path)
            if entry is not None and have not in entry["pristine"] + entry["ours"]:
                raise LabError(f"{self.tree / path} was changed by something else than the lab: "
                               f"remove {self.tree.parent} and run again")
            if have == want:
                continue
            if entry is None:
                if have != _ABSENT:
                    keep = self._pristine(path)
                    keep.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(self.tree / path, keep)
                entry = files[path] = {"pristine": [have], "ours": []}
            # Also what was put there before stays listed: a kill before the replacement below
            # leaves that in the tree.
            if want not in entry["pristine"] + entry["ours"]:
                entry["ours"].append(want)
            self._save(files)
            if want == _ABSENT:
                (self.tree / path).unlink()
                continue
            # Not the pristine file's own time: objects built from the other state are newer
            # than that, and make would keep them.
            os.utime(new / path)
            (self.tree / path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(new / path, self.tree / path)
        shutil.rmtree(new)
