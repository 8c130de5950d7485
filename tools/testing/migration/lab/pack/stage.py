# SPDX-License-Identifier: GPL-2.0
"""Lays out what a package installs: the same tree for each kind of package.

    /usr/bin, /usr/sbin             the commands, a few lines each
    /usr/share/pmd-share            what they need of the repository, at the same paths
    /usr/libexec/pmd-share          the static selftests of an architecture, and the kernel's runner
    /usr/share/{man,bash-completion,doc}

All files have the same time and modes that do not depend on the umask, and manual pages no names or
times in their headers: who packs the same commit again gets the same bytes.
"""

import gzip
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lab import defect
from lab.arch import Arch
from lab.errors import LabError
from lab.guest import ltp, selftest
from lab.pack import command, manual
from lab.paths import HOME, REPO

NAME = "pmd-share"
SHARE = Path("usr/share") / NAME
SELFTESTS = Path("usr/libexec") / NAME
DOC = Path("usr/share/doc") / NAME

# Of the lab: what its verbs without kernels or guests read.
_LAB = ("lab", "defects", "bases", "host.toml")
_SKIP = ("__pycache__", "*.pyc", ".*", "*.c", "*.css", "init", "start.sh")
# What its messages refer to, as text.
_DOCUMENTS = ("hosts", "defects", "binary-audit", "hardware", "packages", "results")
# A page of the manual that belongs to no command.
_PAGES = ("pmd-share-selftests.7",)

_SCRIPT = """\
#!/usr/bin/python3 -BI
# SPDX-License-Identifier: GPL-2.0
# {does}: see {name}({section}).
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "{lab}"))

from lab.installed import main

sys.exit(main("{name}"))
"""


@dataclass(frozen=True)
class Release:
    """What is packed."""

    version: str            # "0.20261128.160941"
    time: int               # of all files, in seconds
    date: str               # of the manual pages, "2026-11-28"
    commit: str             # for the change log; "" where there is no git


def lay_out(top: Path, release: Release, arch: Arch, selftests: Path) -> None:
    """Fill the empty folder `top`; `selftests` are laid out for run_kselftest.sh."""
    for name in _LAB:
        dest = top / SHARE / HOME.relative_to(REPO) / name
        if (HOME / name).is_dir():
            shutil.copytree(HOME / name, dest, ignore=shutil.ignore_patterns(*_SKIP))
        else:
            _copy(HOME / name, dest)
    shutil.copytree(REPO / "queue", top / SHARE / "queue", ignore=shutil.ignore_patterns(*_SKIP, ltp.NAME))
    for file in sorted({file for name in defect.names()
                        for file in defect.load(name).kernel.add}):
        _copy(REPO / file, top / SHARE / file)
    _write(top / SHARE / command.VERSION.name, f"{release.version}\n")
    put_selftests(top / SELFTESTS, arch, selftests)
    for one in command.COMMANDS:
        lab = SHARE.relative_to("usr") / HOME.relative_to(REPO)
        script = top / "usr" / one.folder / one.name
        _write(script, _SCRIPT.format(name=one.name, section=one.section, lab=lab,
                                      does=_sentence(one.does().does)))
        script.chmod(0o755)
        _write(top / "usr/share/bash-completion/completions" / one.name, manual.completion(one))
        _page(top, f"{one.name}.{one.section}", one, release)
    for name in _PAGES:
        _page(top, name, None, release)
    for name in _DOCUMENTS:
        _copy(REPO / "Documentation" / f"{name}.rst", top / DOC / f"{name}.rst")
    _write(top / DOC / "copyright", (manual.PAGES / "copyright").read_text(encoding="utf-8"))
    _settle(top, release.time)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def put_selftests(dest: Path, arch: Arch, laid_out: Path) -> None:
    """Copy the selftests that are laid out for run_kselftest.sh, without what only debuggers read.
    """
    for path in sorted(laid_out.rglob("*")):
        if path.is_file():
            _copy(path, dest / path.relative_to(laid_out))
    programs = [str(dest / selftest.FOLDER.name / name) for name in selftest.names()]
    # Paths of the cache are in what is stripped, and in the hash that is the build ID.
    words = [f"{arch.cross_compile}strip", "--remove-section=.comment",
             "--remove-section=.note.gnu.build-id", *programs]
    done = subprocess.run(words, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise LabError(f"{words[0]} failed: {(done.stderr.strip() or 'it said nothing')}")


def _page(top: Path, name: str, one: command.Command | None, release: Release) -> None:
    text = (manual.PAGES / name).read_text(encoding="utf-8")
    made = manual.page(text, one, release.version, release.date)
    compress(top / "usr/share/man" / f"man{name[-1]}" / f"{name}.gz", made)


def compress(path: Path, text: str) -> None:
    """Write the text to a file that gzip can read, and that has no name or time in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _copy(path: Path, dest: Path) -> None:
    dest.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, dest)
    dest.chmod(0o755 if os.access(path, os.X_OK) else 0o644)


def _settle(top: Path, time: int) -> None:
    """The same modes and times wherever, whenever and by whomever it is packed."""
    for path in sorted(top.rglob("*"), reverse=True):
        script = path.is_file() and path.read_bytes()[:4] in (b"#!/u", b"#!/b", b"\x7fELF")
        path.chmod(0o755 if path.is_dir() or script and os.access(path, os.X_OK) else 0o644)
        os.utime(path, (time, time))
    top.chmod(0o755)
    os.utime(top, (time, time))


def files(top: Path) -> list[Path]:
    """All files, with paths below `top`, sorted."""
    return sorted(path.relative_to(top) for path in top.rglob("*") if path.is_file())


def size(top: Path, paths: Iterable[Path]) -> int:
    """KiB that the files take, as Debian counts them: each in whole KiB."""
    return sum(-(-(top / path).stat().st_size // 1024) for path in paths)
