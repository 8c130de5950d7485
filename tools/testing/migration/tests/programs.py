# SPDX-License-Identifier: GPL-2.0
"""Programs made of the selftests' own code, to be tried without what they are about."""

import atexit
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

from lab.guest import selftest
from lab.paths import REPO


def compiled(tree: Path, text: str, program: Path, *options: str) -> Path:
    """A program of the harness and the helpers of the real tests."""
    source = program.with_suffix(".c")
    source.write_text(text)
    linked = tuple(word for word in options if word.startswith("-Wl,"))
    flags = tuple(word for word in options if word not in linked)
    subprocess.run(["gcc", *_flags(tree), *options, "-o", program, source, *_helpers(tree, flags),
                    "-lnuma"], check=True)
    return program


def _flags(tree: Path) -> list[str]:
    mm = tree / selftest.FOLDER
    return ["-O1", "-Wall", "-D_GNU_SOURCE=", f"-I{REPO / selftest.FOLDER}", f"-I{mm}",
            f"-I{mm.parent}", f"-I{REPO}", f"-isystem{tree}/tools/include/uapi"]


@functools.cache
def _helpers(tree: Path, flags: tuple[str, ...]) -> list[Path]:
    """The helpers' objects, for all programs that are compiled so: there are dozens."""
    folder = Path(tempfile.mkdtemp(prefix="lab-helpers-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    tests = selftest.names()
    helpers = [path for path in selftest.sources()
               if path.suffix == ".c" and path.stem not in tests]
    subprocess.run(["gcc", *_flags(tree), *flags, "-c", *helpers,
                    tree / selftest.FOLDER / "vm_util.c"], cwd=folder, check=True)
    return sorted(folder.glob("*.o"))
