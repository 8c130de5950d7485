# SPDX-License-Identifier: GPL-2.0
"""Composes the patches that add this repository's own files to a kernel that has the fixes.

The new files live once, at the path that they have in a kernel tree.  What a patch is beyond them
is in upstream/:

    order           the patches, one name a line
    date            that all of them carry
    cover-letter    the title, an empty line, the text
    <name>/message      subject, an empty line, the changelog
    <name>/files        files of this repository that it adds whole, one a line
    <name>/<base>.diff  what it changes in files of that base, with all patches before it applied
    <name>/edits.diff   the same for every base that has no diff of its own
    config          lines of .config for a kernel with all of them, to be booted

A patch with diffs is only for the bases that it has one for.  One without is for all of them.

A file that is built into kernels of many versions, and has something for each, is added as one for
a single version: without what is in `#ifndef IN_TREE`, and with what SINCE_6_6 and its like say of
the base.
"""

import hashlib
import re
import stat
import subprocess
import tempfile
import textwrap
from pathlib import Path, PurePosixPath

from lab import base as bases, defect
from lab.arch import Arch
from lab.errors import LabError
from lab.kernel import kconfig, variant
from lab.kernel.source import Source
from lab.paths import REPO

ROOM = REPO / "upstream"
COVER = "cover-letter"
_SENDER = "pmd-share lab <lab@invalid>"
_ZERO = "0" * 12
# As git format-patch names its files, number and all.
_NAME_MAX = 57


def names(room: Path = ROOM) -> list[str]:
    """The bases that there are patches for, oldest first."""
    found = {path.stem for path in room.glob("*/*.diff")}
    return [name for name in bases.names() if name in found]


def patches(base: str, room: Path = ROOM) -> list[tuple[str, str]]:
    """The patches for `base` in order, as file name and mail; none where it has none.

    LabError where something is missing in upstream/, or a diff makes a file that is here.
    """
    if base not in names(room):
        return []
    date = _read(room / "date").strip()
    mails: list[tuple[str, str]] = []
    for name in _read(room / "order").split():
        edits = _edits(room / name, base)
        if edits is None:
            continue
        subject, log = _message(room / name)
        diff = _joined(room / name, edits, base)
        head = "\n ".join(textwrap.wrap(f"Subject: [PATCH] {subject}", 74))
        mails.append((_file_name(len(mails) + 1, subject),
                      f"From {'0' * 40} Mon Sep 17 00:00:00 2001\nFrom: {_SENDER}\n"
                      f"Date: {date}\n{head}\n\n{log}\n---\n{_summary(diff)}\n{diff}"))
    return mails


def check(source: Source, room: Path = ROOM) -> None:
    """LabError where a patch does not apply to the source: which, and at what hunk."""
    _diff(source, room)


def applied(source: Source, room: Path = ROOM) -> variant.Variant:
    """The source with the whole series.  LabError as above, and where there is none for its base."""
    if source.base.name not in names(room):
        raise LabError(f"no series for {source.version} (base {source.base.name}): there are "
                       f"{', '.join(names(room))}")
    count = len(variant.series(source.base.name)) + len(patches(source.base.name, room))
    return variant.make("series", f"upstream/ ({count} patches)", _diff(source, room))


def options(source: Source, arch: Arch, room: Path = ROOM) -> tuple[str, ...]:
    """Lines of .config for a kernel with the whole series: all that its tests can make use of.

    What a test asks for may be no option any more, or not yet.
    """
    known = kconfig.symbols(source.tree, arch)
    lines = [line for name in defect.names() for line in defect.load(name).options
             if kconfig.parse(line, "a defect").keys() <= known]
    lines += [line for line in _read(room / "config").splitlines() if line.startswith("CONFIG_")]
    return tuple(dict.fromkeys(lines))


def _diff(source: Source, room: Path) -> str:
    with tempfile.TemporaryDirectory(prefix="lab-upstream-") as folder:
        home = Path(folder, "upstream")
        home.mkdir()
        paths = variant.series(source.base.name)
        for name, text in patches(source.base.name, room):
            paths.append(home / name)
            paths[-1].write_text(text, encoding="utf-8")
        return variant.queue_diff(source, paths)


def files(room: Path, name: str) -> list[str]:
    """The files of this repository that a patch adds whole, sorted."""
    listed = room / name / "files"
    return sorted(_read(listed).split()) if listed.exists() else []


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as err:
        raise LabError(f"{path} is missing, see lab/kernel/upstream.py for what is wanted") from err


def _edits(folder: Path, base: str) -> str | None:
    """The diff of a patch for `base`, "" where it has none at all, None where it is for others."""
    for diff in (folder / f"{base}.diff", folder / "edits.diff"):
        if diff.exists():
            return _read(diff)
    return None if any(folder.glob("*.diff")) else ""


def _message(folder: Path) -> tuple[str, str]:
    subject, empty, log = _read(folder / "message").partition("\n\n")
    if not empty or "\n" in subject or not log.strip():
        raise LabError(f"{folder / 'message'}: a subject on one line, an empty line and a "
                       "changelog are wanted")
    return subject.strip(), log.strip()


def _joined(folder: Path, edits: str, base: str) -> str:
    """The whole diff of a patch for `base`, its files in the order that git has them in."""
    parts: dict[str, str] = {}
    for part in re.split(r"(?m)^(?=diff --git )", edits):
        if not part.strip():
            continue
        header = re.match(r"diff --git a/(\S+) b/(\S+)\n", part)
        if not header:
            raise LabError(f"{folder}: a diff with a line `diff --git a/... b/...` is wanted")
        parts[header[2]] = part
    for path in files(folder.parent, folder.name):
        if path in parts:
            raise LabError(f"{folder}: {path} is in `files` and in a diff, and can be in one only")
        parts[path] = _whole(path, base)
    if not parts:
        raise LabError(f"{folder} has neither files nor a diff")
    return "".join(parts[path] for path in sorted(parts))


def _whole(path: str, base: str) -> str:
    """The diff that adds a file of this repository, as it is to be in a tree of `base`."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise LabError(f"upstream/ names a file outside the repository: {path}")
    try:
        data = (REPO / path).read_bytes()
        mode = "100755" if (REPO / path).stat().st_mode & stat.S_IXUSR else "100644"
    except FileNotFoundError as err:
        raise LabError(f"upstream/ names {path}, and there is no such file") from err
    if not data.endswith(b"\n"):
        raise LabError(f"{path} does not end with a line feed")
    data = _in_tree(path, data, base)
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()[:len(_ZERO)]
    lines = data.decode("utf-8").split("\n")[:-1]
    count = f"1,{len(lines)}" if len(lines) > 1 else "1"
    body = "".join(f"+{line}\n" for line in lines)
    return (f"diff --git a/{path} b/{path}\nnew file mode {mode}\nindex {_ZERO}..{blob}\n"
            f"--- /dev/null\n+++ b/{path}\n@@ -0,0 +{count} @@\n{body}")


def _in_tree(path: str, data: bytes, base: str) -> bytes:
    """A file as it is for one version alone."""
    if not re.search(rb"(?m)^#ifndef IN_TREE$", data):
        return data
    version = tuple(map(int, base.split(".")))
    since = {tuple(map(int, pair)) for pair in re.findall(rb"\bSINCE_(\d+)_(\d+)\b", data)}
    words = [f"-{'D' if version >= one else 'U'}SINCE_{one[0]}_{one[1]}" for one in sorted(since)]
    try:
        done = subprocess.run(["unifdef", "-B", "-DIN_TREE", *words], input=data,
                              capture_output=True, check=False)
    except FileNotFoundError as err:
        raise LabError("unifdef is not installed: apt install unifdef") from err
    # 1: it has left something out.
    if done.returncode != 1:
        raise LabError(f"unifdef failed on {path}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _summary(diff: str) -> str:
    """What git format-patch has between the changelog and the diff."""
    done = subprocess.run(["git", "apply", "--stat", "--summary", "-"], input=diff, text=True,
                          encoding="utf-8", capture_output=True, check=False)
    if done.returncode != 0:
        raise LabError(f"git apply --stat failed: {done.stderr.strip()}")
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


def _file_name(number: int, subject: str) -> str:
    words = re.sub(r"[^\w.]+", "-", subject, flags=re.ASCII).strip("-.")
    return f"{number:04}-{words}"[:_NAME_MAX].rstrip("-.") + ".patch"
