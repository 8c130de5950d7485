# SPDX-License-Identifier: GPL-2.0
"""Composes the patches that add this repository's own files to a kernel that has the fixes.

They are in queue/tests/, as patches are elsewhere in queue/:

    series              all of them, in order, one name a line, and behind it the part that it is
                        of: what is mailed on its own.  Those without are selftests.
                        "hugetlb" are tests of neither migration nor shared tables
    NNNN-subject.patch  in `git am` form, for all bases
    <base>/NNNN-...     the same for that base alone, where its own lines are others.  A patch that
                        is only in the folders of some bases is for no other base
    cover-letter        the title, an empty line, the text
    cover-letter.<part> the same of that part alone, see lab/verbs/mailing.py
    changes.<part>      what changed from one version of that to the next, once there is a second
    config              lines of .config for a kernel with all of them, to be booted

A base that has no folder there gets none of them.  queue/unmapped/ is laid out in the same way, and
its series may name a patch of queue/tests/, as tests/NNNN-subject.patch.

What such a patch adds lives once, at the path that it has in a kernel tree.  So it is not in the
patch, which names it between `---` and the diff:

    Adds: tools/testing/selftests/mm/<test>.c

For a tree that is no kernel's, as in queue/ltp/, such a file is in the folder `tree` beside the
patch, at the path that it has there, or it is one of this repository that has another path there:

    Adds: testcases/<test>.c from tools/testing/selftests/mm/<test>.c

The diff is of what else the patch changes.  It has no index lines: the hash of a file would be
another one after each change to a patch before it.

So a new test takes three files: the program, a patch after the last one that adds it and registers
it (in the Makefile and run_vmtests.sh), and a line in `series`.  Where these lines are next to those
of other tests, the patch is for all bases: its line numbers are those of the newest, and git finds
the place in the others.  run_vmtests.sh has one list of tests a category: "migration", and "hugetlb"
for the part of that name.  The device's tests are not next to hugetlb's in the Makefile: each of
the two parts is sent without the other.

A test named hugetlb_pmd_*.c is in HUGETLB SUBSYSTEM of the kernel's MAINTAINERS already, and its
patch leaves that file as it is.  checkpatch then asks if it needs updating; it does not.  Another
test of hugetlb adds a line there.  A test of migration adds one to MEMORY MANAGEMENT - MIGRATION,
and one of THP to that of THP.  6.12 has neither: there MEMORY MANAGEMENT has all of
tools/testing/selftests/mm/, and no line is to be added.

A file that is built into kernels of many versions, and has something for each, is added as one for
a single version: without what is in `#ifndef IN_TREE`, and with what SINCE_6_6 and its like say of
the base.  The same goes for `#ifdef` with a macro that only some bases have, see _MACROS.  A file
for LTP, which runs on all of them, keeps what it has for old ones.
"""

import hashlib
import re
import stat
import subprocess
from pathlib import Path, PurePosixPath

from lab import base as bases, defect, fragment
from lab.arch import Arch
from lab.errors import LabError
from lab.kernel import kconfig, variant
from lab.kernel.source import Source
from lab.paths import REPO, scratch_dir

ROOM = REPO / "queue" / "tests"
COVER = ROOM / "cover-letter"
SELFTESTS = "selftests"
_ZERO = "0" * 12
# What files ask for with #ifdef, and the first base that has it.
_MACROS = {"VM_UFFD_RWP": "7.3", "pgtable_supports_soft_dirty": "7.3"}


def names(room: Path = ROOM) -> list[str]:
    """The bases that there are patches for, oldest first."""
    return [name for name in bases.names() if (room / name).is_dir()]


def listed(room: Path = ROOM) -> list[tuple[str, str]]:
    """The names of all patches, in order, each with the part that it is of."""
    found = []
    for line in _read(room / "series").splitlines():
        words = line.split()
        if len(words) not in (1, 2):
            raise LabError(f"{room / 'series'}: a name, and perhaps a part, is wanted: {line}")
        found.append((words[0], words[1] if len(words) > 1 else SELFTESTS))
    return found


def parts(room: Path = ROOM) -> list[str]:
    """What the patches can be mailed as, in the order in which they come."""
    return list(dict.fromkeys(part for _name, part in listed(room)))


def files(base: str, room: Path = ROOM, part: str = "") -> list[Path]:
    """The patches for `base` as they are kept, in order; none where it has none.

    `part`: those of that part alone.  LabError where the series names one that is nowhere.
    """
    if base not in names(room):
        return []
    found = []
    for name in [name for name, of in listed(room) if part in ("", of)]:
        # That of another room, to be there before what needs it.
        other, _slash, bare = name.rpartition("/")
        home = room.parent / other if other else room
        here = [path for path in (home / base / bare, home / bare) if path.exists()]
        if here:
            found.append(here[0])
        elif not any(home.glob(f"*/{bare}")):
            raise LabError(f"{room / 'series'} names {name}, and there is no such patch")
    return found


def patches(base: str, room: Path = ROOM, part: str = "") -> list[tuple[str, str]]:
    """The patches for `base` in order, as file name and whole mail; none where it has none.

    LabError where something is missing in queue/tests/, or a diff makes a file that is here.
    """
    return [(path.name, mail(path, base)) for path in files(base, room, part)]


def adds(patch: Path) -> list[str]:
    """The files that a patch adds whole, by the path that they have in the tree."""
    return list(_split(patch)[1])


def sources(patch: Path) -> list[Path]:
    """The files of this repository that those are."""
    return [REPO / name for name in _split(patch)[1].values()]


def check(source: Source, room: Path = ROOM, fixes: bool = True) -> None:
    """LabError where a patch does not apply to the source: which, and at what hunk.

    The fixes of the queue come before them, or not.
    """
    _diff(source, room, fixes)


def applied(source: Source, room: Path = ROOM) -> variant.Variant:
    """The source with the whole series.  LabError as above, and where its base has none."""
    base = source.base.name
    if base not in names(room):
        raise LabError(f"no series for {source.version} (base {base}): there are "
                       f"{', '.join(names(room))}")
    count = len(variant.series(base)) + len(files(base, room))
    return variant.make("series", f"queue/{base} and queue/tests ({count} patches)",
                        _diff(source, room, True))


def options(source: Source, arch: Arch, room: Path = ROOM) -> tuple[str, ...]:
    """Lines of .config for a kernel with the whole series: all that its tests can make use of.

    What a test asks for may be no option any more, or not yet.
    """
    known = kconfig.symbols(source.tree, arch)
    lines = [line for name in defect.names() for line in defect.load(name).kernel.options
             if fragment.parse(line, "a defect").keys() <= known]
    config = fragment.parse(_read(room / "config"), str(room / "config"))
    return tuple(dict.fromkeys([*lines, *(fragment.line(*one) for one in config.items())]))


def count(diff: str, *how: str) -> str:
    """What `git apply --stat` and its like say of a diff.  LabError where it is none.

    Whatever the current folder is: in one of a repository git leaves out what is not below that.
    """
    done = subprocess.run(["git", "apply", *how, "-"], input=diff, text=True, encoding="utf-8",
                          cwd="/", capture_output=True, check=False)
    if done.returncode != 0:
        raise LabError(f"git apply {how[0]} failed: {done.stderr.strip()}")
    return done.stdout


def _diff(source: Source, room: Path, fixes: bool) -> str:
    base = source.base.name
    with scratch_dir("lab-tests-") as folder:
        home = folder / "tests"
        home.mkdir()
        paths = variant.series(base) if fixes else []
        for name, text in patches(base, room):
            paths.append(home / name)
            paths[-1].write_text(text, encoding="utf-8")
        return variant.queue_diff(source, paths)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as err:
        raise LabError(f"{path} is missing, see lab/kernel/testseries.py for what is "
                       "wanted") from err


def _split(patch: Path) -> tuple[str, dict[str, str], dict[str, str]]:
    """A patch as it is kept: headers and changelog, the files it adds, its diff by file.

    The files are by their path in the tree; where they are is their path in this repository.
    """
    found = re.fullmatch(r"(?s)(From .+?\n\n.+?\n)---\n((?:Adds: \S+(?: from \S+)?\n)*)"
                         r"(?:\n(diff --git .+))?", _read(patch))
    if not found:
        raise LabError(f"{patch}: a mail is wanted, then `---`, lines `Adds: <path>`, an empty "
                       "line and a diff")
    added = {}
    for path, source in re.findall(r"(?m)^Adds: (\S+)(?: from (\S+))?$", found[2]):
        beside = patch.parent / "tree" / path
        added[path] = source or (str(beside.relative_to(REPO)) if beside.exists() else path)
    parts = {}
    for part in re.split(r"(?m)^(?=diff --git )", found[3] or ""):
        if header := re.match(r"diff --git a/(\S+) b/(\S+)\n", part):
            parts[header[2]] = part
        elif part:
            raise LabError(f"{patch}: a diff with a line `diff --git a/... b/...` is wanted")
    return found[1], added, parts


def mail(patch: Path, base: str) -> str:
    """A patch as git format-patch would have it, its files in the order that git has them in."""
    message, added, parts = _split(patch)
    for path, source in added.items():
        if path in parts:
            raise LabError(f"{patch}: {path} is in `Adds:` and in the diff, and can be in one only")
        parts[path] = _whole(path, source, base)
    if not parts:
        raise LabError(f"{patch} has neither files nor a diff")
    diff = "".join(parts[path] for path in sorted(parts))
    return f"{message}---\n{summary(diff)}\n{diff}"


def _whole(path: str, source: str, base: str) -> str:
    """The diff that adds the file `source` of this repository, as it is to be in a tree of `base`,
    where it is `path`."""
    for name in (path, source):
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise LabError(f"a patch of queue/tests adds a file outside the repository: {name}")
    try:
        data = (REPO / source).read_bytes()
        mode = "100755" if (REPO / source).stat().st_mode & stat.S_IXUSR else "100644"
    except FileNotFoundError as err:
        raise LabError(f"a patch of queue/tests adds {source}, and there is no such file") from err
    if not data.endswith(b"\n"):
        raise LabError(f"{source} does not end with a line feed")
    # What is at another path is in no kernel's tree, and may run on any.
    if path == source:
        data = _in_tree(source, data, base)
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()[:len(_ZERO)]
    lines = data.decode("utf-8").split("\n")[:-1]
    count = f"1,{len(lines)}" if len(lines) > 1 else "1"
    body = "".join(f"+{line}\n" for line in lines)
    return (f"diff --git a/{path} b/{path}\nnew file mode {mode}\nindex {_ZERO}..{blob}\n"
            f"--- /dev/null\n+++ b/{path}\n@@ -0,0 +{count} @@\n{body}")


def _version(base: str) -> tuple[int, ...]:
    return tuple(map(int, base.split(".")))


def _in_tree(path: str, data: bytes, base: str) -> bytes:
    """A file as it is for one version alone."""
    asked = {name.decode() for name in re.findall(rb"(?m)^#ifn?def (\w+)$", data)}
    if not asked & {"IN_TREE", *_MACROS}:
        return data
    version = _version(base)
    since = {tuple(map(int, pair)) for pair in re.findall(rb"\bSINCE_(\d+)_(\d+)\b", data)}
    words = [f"-{'D' if version >= one else 'U'}SINCE_{one[0]}_{one[1]}" for one in sorted(since)]
    words += [f"-{'D' if version >= _version(_MACROS[name]) else 'U'}{name}"
              for name in sorted(asked & set(_MACROS))]
    try:
        done = subprocess.run(["unifdef", "-B", "-DIN_TREE", *words], input=data,
                              capture_output=True, check=False)
    except FileNotFoundError as err:
        raise LabError("unifdef is not installed: apt install unifdef") from err
    # 1: it has left something out.
    if done.returncode != 1:
        raise LabError(f"unifdef failed on {path}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def summary(diff: str) -> str:
    """What git format-patch has between the changelog and the diff."""
    said = count(diff, "--stat", "--summary")
    return "".join(f"{line.rstrip()}\n" for line in said.splitlines())
