# SPDX-License-Identifier: GPL-2.0
"""Reads the kernel that runs out of memory: /proc/kcore has its code, /proc/kallsyms the names.

Both are for root alone.  The code is as it runs: static branches, alternatives and calls are
patched, and where something is traced or probed there is another instruction.  What a livepatch
replaces is still there, and is told by /sys/kernel/livepatch.
"""

import gzip
import os
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from lab.binary.image import Image, Section, Symbol
from lab.errors import LabError

_LINE = re.compile(r"(?m)^([0-9a-f]{16}) ([A-Za-z]) (\S+)$")
# Without these the table is none of a kernel, or has no addresses.
_TEXT = ("_stext", "_etext")
# Of a kernel's code, and of the headers of its memory.
_LARGEST, _HEADERS = 256 << 20, 4096
# What is read beside the code: where its static branches are, and what may fault.
_TABLES = (("__start___jump_table", "__stop___jump_table"),
           ("__start___ex_table", "__stop___ex_table"))
_ARCHS = {"x86_64": "x86_64", "aarch64": "arm64", "riscv64": "riscv64"}


def read(root: Path, banner: str, build_id: str, why: str) -> Image:
    """The kernel that runs, which says `banner` and `build_id` of itself.

    `why` says that there is no file of it.  Where the names can be read and the code cannot, the
    image has no code, and says why.  LabError where neither can be.
    """
    symbols = _symbols(root)
    known: dict[str, int] = {}
    for one in symbols:
        known.setdefault(one.name, one.address)
    if not all(known.get(name) for name in _TEXT):
        raise LabError("/proc/kallsyms hides its addresses: be root, with kernel.kptr_restrict "
                       "less than 2" if symbols else "/proc/kallsyms is not there or not to be "
                       "read")
    missing = ""
    sections: tuple[Section, ...] = ()
    try:
        sections = tuple(_memory(root / "proc/kcore", known))
    except LabError as err:
        missing = f"Its code cannot be read: {err}, and {why}"
    return Image(str(root / ("proc/kallsyms" if missing else "proc/kcore")),
                 _ARCHS.get(os.uname().machine, os.uname().machine), banner, build_id, sections,
                 tuple(symbols), "/proc/kallsyms", _config(root), missing, live=not missing)


def _symbols(root: Path) -> list[Symbol]:
    """Those of the kernel itself: the lines of modules end with their names."""
    try:
        text = (root / "proc/kallsyms").read_text(encoding="latin-1")
    except OSError:
        return []
    return sorted((Symbol(match[3], int(match[1], 16), match[2])
                   for match in _LINE.finditer(text)), key=lambda one: one.address)


def _config(root: Path) -> str | None:
    try:
        return gzip.decompress((root / "proc/config.gz").read_bytes()).decode("utf-8", "replace")
    except (OSError, EOFError, zlib.error):
        return None


def _memory(path: Path, known: dict[str, int]) -> Iterator[Section]:
    wanted = [(known[_TEXT[0]], known[_TEXT[1]], True)]
    wanted += [(known[start], known[stop], False) for start, stop in _TABLES
               if known.get(start) and known.get(stop)]
    try:
        with path.open("rb", buffering=0) as file:
            parts = list(_parts(file.read(64), file.fileno()))
            for begin, end, executable in sorted(wanted):
                if not 0 < end - begin <= _LARGEST:
                    raise LabError("/proc/kallsyms and /proc/kcore do not agree")
                data = next((_bytes(file.fileno(), offset + begin - address, end - begin)
                             for address, size, offset in parts
                             if address <= begin and end <= address + size), b"")
                if executable and len(data) < end - begin:
                    raise LabError("/proc/kcore does not have the kernel's code")
                if data:
                    yield Section(begin, data, executable)
    except FileNotFoundError as err:
        raise LabError("it has no /proc/kcore (CONFIG_PROC_KCORE)") from err
    except PermissionError as err:
        raise LabError("/proc/kcore cannot be read: be root, on a kernel that is not locked down") \
            from err
    except OSError as err:
        raise LabError(f"/proc/kcore cannot be read ({err.strerror})") from err


def _parts(head: bytes, file: int) -> Iterator[tuple[int, int, int]]:
    """Where which addresses are: address, size, offset in the file."""
    if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":
        raise LabError("/proc/kcore is no core file of 64 bits")
    table, = struct.unpack_from("<Q", head, 32)
    count, = struct.unpack_from("<H", head, 56)
    data = os.pread(file, min(count, _HEADERS) * 56, table)
    for at in range(0, len(data) // 56 * 56, 56):
        kind, _flags, offset, address, _physical, size = struct.unpack_from("<IIQQQQ", data, at)
        if kind == 1:
            yield address, size, offset


def _bytes(file: int, offset: int, size: int) -> bytes:
    found = []
    while size:
        piece = os.pread(file, min(size, 1 << 20), offset)
        if not piece:
            break
        found.append(piece)
        offset, size = offset + len(piece), size - len(piece)
    return b"".join(found)
