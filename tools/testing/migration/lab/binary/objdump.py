# SPDX-License-Identifier: GPL-2.0
"""Disassembles with objdump what the Capstone of Debian 12 does not know: code of riscv64."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

from lab.errors import LabError, NotInstalled

# Debian's name of it is the same on all hosts, riscv64 too.
_NAME, PACKAGE = "riscv64-linux-gnu-objdump", "binutils-riscv64-linux-gnu"
# "ffffffff80001000:	e406                	sd	ra,8(sp)"
_LINE = re.compile(r"\s*([0-9a-f]+):\t([0-9a-f]+)\s*\t(\S+)(?:\t(.*))?")
# Seconds for one function.
_TIMEOUT = 60


class Objdump:
    """Reads code of riscv64, in the form in which Capstone would give it."""

    def __init__(self) -> None:
        """NotInstalled where there is no such program."""
        program = shutil.which(_NAME)
        if not program:
            raise NotInstalled(f"{_NAME} is not installed: apt install {PACKAGE}")
        self._command = [program, "--disassemble-all", "--disassemble-zeroes", "--target=binary",
                         "--architecture=riscv:rv64", "--wide"]

    def disasm_lite(self, code: bytes, start: int) -> Iterator[tuple[int, int, str, str]]:
        """Address, size, name and operands of each instruction; the name of none is ".byte"."""
        if not code:
            return
        with tempfile.NamedTemporaryFile(prefix="code-") as file:
            file.write(code)
            file.flush()
            try:
                done = subprocess.run([*self._command, f"--adjust-vma={start:#x}", file.name],
                                      capture_output=True, text=True, encoding="utf-8",
                                      errors="replace", timeout=_TIMEOUT, check=False,
                                      stdin=subprocess.DEVNULL)
            except subprocess.TimeoutExpired as err:
                raise LabError(f"{_NAME} does not come to an end in {_TIMEOUT} s") from err
        if done.returncode != 0:
            said = (done.stderr.strip() or "it said nothing").splitlines()[-1]
            raise LabError(f"{_NAME} failed: {said}")
        for line in done.stdout.splitlines():
            if match := _LINE.fullmatch(line):
                # What it does not know is data to it: ".2byte", ".4byte", ".insn".
                name = ".byte" if match[3].startswith(".") else match[3]
                yield int(match[1], 16), len(match[2]) // 2, name, match[4] or ""
