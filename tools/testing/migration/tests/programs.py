# SPDX-License-Identifier: GPL-2.0
"""Programs made of the selftests' own code, to be tried without what they are about."""

import subprocess
from pathlib import Path

from lab.guest import selftest
from lab.paths import REPO


def compiled(tree: Path, text: str, program: Path, *options: str) -> Path:
    """A program of the harness and the helpers of the real tests."""
    mm = tree / selftest.FOLDER
    source = program.with_suffix(".c")
    tests = selftest.names()
    helpers = [path for path in selftest.sources()
               if path.suffix == ".c" and path.stem not in tests]
    source.write_text(text)
    subprocess.run(
        ["gcc", "-O1", "-Wall", "-D_GNU_SOURCE=", f"-I{REPO / selftest.FOLDER}", f"-I{mm}",
         f"-I{mm.parent}", f"-I{REPO}", f"-isystem{tree}/tools/include/uapi", *options, "-o", program, source,
         *helpers, mm / "vm_util.c", "-lnuma"], check=True)
    return program
