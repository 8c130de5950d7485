# SPDX-License-Identifier: GPL-2.0
"""A kernel image as a disassembler wants it: code at its address, and names.

Nothing of the image is executed.  All addresses are those of the link: no KASLR is in them.

Read are vmlinux, and an x86 bzImage, which has a vmlinux in it, compressed.
"""

import bisect
import gzip
import io
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import LabError

if TYPE_CHECKING:
    from lab.binary.kallsyms import Table


@dataclass(frozen=True)
class Symbol:
    """A name of the kernel; `kind` is the letter of /proc/kallsyms (t T d D ...)."""

    name: str
    address: int
    kind: str


@dataclass(frozen=True)
class Section:
    """Bytes of the kernel at an address."""

    address: int
    data: bytes
    executable: bool
    name: str = ""          # "" where the image has no section names

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.address + len(self.data)


@dataclass(frozen=True)
class Image:
    """A kernel."""

    path: str                       # what was read, as the user named it
    arch: str                       # "x86_64", "arm64" or "riscv64"
    banner: str                     # "Linux version ...", one line
    build_id: str                   # hex digits, or ""
    sections: tuple[Section, ...]   # sorted by address, none of them empty
    symbols: tuple[Symbol, ...]     # sorted by address
    symbols_from: str               # "kallsyms", "System.map", "symbol table", ...
    config: str | None              # the text of IKCONFIG

    @property
    def release(self) -> str:
        """The third word of the banner: "6.1.0-56-amd64"."""
        return self.banner.split()[2]

    @cached_property
    def by_name(self) -> dict[str, tuple[Symbol, ...]]:
        """The symbols of each name: static functions of one name are several."""
        found: dict[str, list[Symbol]] = {}
        for symbol in self.symbols:
            found.setdefault(symbol.name, []).append(symbol)
        return {name: tuple(same) for name, same in found.items()}

    @cached_property
    def _starts(self) -> list[int]:
        return sorted({symbol.address for symbol in self.symbols})

    def section_at(self, address: int) -> Section | None:
        """The section that holds `address`."""
        at = bisect.bisect_right(self.sections, address, key=lambda one: one.address) - 1
        if at >= 0 and address < self.sections[at].end:
            return self.sections[at]
        return None

    def end_of(self, address: int) -> int:
        """Where what starts at `address` ends at the latest: the next symbol, or the section's end.

        Padding may stand before it.
        """
        section = self.section_at(address)
        end = section.end if section else address
        at = bisect.bisect_right(self._starts, address)
        return min(end, self._starts[at]) if at < len(self._starts) else end

    def code(self, address: int) -> bytes:
        """The bytes from `address` to end_of(address); none where no section has it."""
        section = self.section_at(address)
        if section is None:
            return b""
        return section.data[address - section.address:self.end_of(address) - section.address]


# No file that holds a kernel is larger.
_LARGEST = 512 << 20
_ELF = b"\x7fELF"
_MACHINES = {"EM_X86_64": "x86_64", "EM_AARCH64": "arm64", "EM_RISCV": "riscv64"}
_BANNER = re.compile(rb"Linux version \d[ -~]{1,500}")
# What IKCONFIG puts around the gzip file that it is.
_CONFIG = re.compile(rb"IKCFG_ST(\x1f\x8b\x08.*?)IKCFG_ED", re.DOTALL)
# GNU's note: lengths of name and value, and the type.
_BUILD_ID = re.compile(rb"\x04\x00{3}\x14\x00{3}\x03\x00{3}GNU\x00(.{20})", re.DOTALL)


def load(path: Path, symbols: Path | None = None) -> Image:
    """The kernel in the file `path`; its names from `symbols`, a System.map, if there is one.

    LabError where it is none, or where it has no names.
    """
    # Each needs the classes above.
    from lab.binary import kallsyms, unpack
    try:
        if not path.is_file():
            raise LabError(f"{path} is no file: name a kernel image, as /boot/vmlinuz-...")
        if path.stat().st_size > _LARGEST:
            raise LabError(f"{path} is larger than {_LARGEST >> 20} MiB: that is no kernel")
        data = path.read_bytes()
    except OSError as err:
        raise LabError(f"{path} cannot be read: {err.strerror}") from err
    if data[0x202:0x206] == b"HdrS":
        at, size = _payload(path, data)
        packed = data[at:at + size]
        how = unpack.method(packed)
        if how is None:
            raise LabError(f"{path} holds a kernel that is compressed in no known way")
        # What unpacked it would come to stands behind it, where the format does not say so.
        data = unpack.whole(packed if how == "gzip" else packed[:-4], how, str(path))
    if not data.startswith(_ELF):
        raise LabError(f"{path} is no kernel image that can be read: an x86 bzImage or a vmlinux")
    arch, sections, table = _elf(path, data)
    names, origin = _names(path, symbols, table, sections, kallsyms.read)
    banner, config = _BANNER.search(data), _CONFIG.search(data)
    if banner is None:
        raise LabError(f"{path} does not say which Linux it is: that is no kernel")
    build_id = _BUILD_ID.search(data)
    return Image(str(path), arch, banner[0].decode("ascii"),
                 build_id[1].hex() if build_id else "", sections,
                 tuple(sorted(names, key=lambda one: one.address)), origin,
                 _unpacked(config[1]) if config else None)


def _payload(path: Path, data: bytes) -> tuple[int, int]:
    """Where the header of a bzImage says that the compressed kernel is, and its length."""
    setup = data[0x1f1] or 4
    offset, size = struct.unpack_from("<II", data, 0x248)
    at = (setup + 1) * 512 + offset
    if not size or at + size > len(data):
        raise LabError(f"{path} is cut short, or no bzImage: fetch it again")
    return at, size


def _unpacked(packed: bytes) -> str | None:
    try:
        return gzip.decompress(packed).decode("ascii", "replace")
    except (OSError, EOFError, ValueError):
        return None


def _elf(path: Path, data: bytes) -> tuple[str, tuple[Section, ...], list[Symbol]]:
    """The architecture, what is loaded, and the symbol table of a vmlinux."""
    try:
        from elftools.common.exceptions import ELFError     # type: ignore[import]
        from elftools.elf.elffile import ELFFile            # type: ignore[import]
    except ImportError as err:
        raise LabError("python3-pyelftools is not installed: apt install python3-pyelftools") \
            from err
    try:
        elf = ELFFile(io.BytesIO(data))
        arch = _MACHINES.get(elf["e_machine"], "")
        if not arch:
            raise LabError(f"{path} is for {elf['e_machine']}: that cannot be read, only "
                           f"{' '.join(_MACHINES.values())}")
        sections, symbols = [], []
        for one in elf.iter_sections():
            if one["sh_flags"] & 2 and one["sh_type"] != "SHT_NOBITS" and one["sh_size"] \
                    and one["sh_addr"] >> 32:
                sections.append(Section(one["sh_addr"], one.data(), bool(one["sh_flags"] & 4),
                                        one.name))
            if one["sh_type"] == "SHT_SYMTAB":
                symbols = [Symbol(each.name, each["st_value"],
                                  "t" if each["st_info"]["type"] == "STT_FUNC" else "d")
                           for each in one.iter_symbols()
                           if each.name and each["st_info"]["type"] in (
                               "STT_FUNC", "STT_OBJECT", "STT_NOTYPE")]
    except LabError:
        raise
    except (ELFError, ValueError, KeyError, IndexError, UnicodeDecodeError, struct.error,
            OverflowError, MemoryError, AttributeError, TypeError) as err:
        raise LabError(f"{path} is damaged: its ELF file cannot be read") from err
    return arch, tuple(sorted(sections, key=lambda one: one.address)), symbols


def _names(path: Path, file: Path | None, table: list[Symbol], sections: tuple[Section, ...],
           read: Callable[[bytes, int], "Table | None"]) -> tuple[list[Symbol], str]:
    """The names of a kernel, and where they are from."""
    if file:
        return _system_map(file), str(file)
    if table:
        return table, "symbol table"
    # .rodata, which is the largest that is no code.
    for one in sorted(sections, key=lambda one: (one.name != ".rodata", -len(one.data))):
        if not one.executable and (found := read(one.data, one.address)):
            return found.symbols, "kallsyms"
    raise LabError(f"{path} has no names of functions, kallsyms is off: name its System.map with "
                   "SYMBOLS=")


def _system_map(file: Path) -> list[Symbol]:
    try:
        text = file.read_text(encoding="ascii", errors="replace")
    except OSError as err:
        raise LabError(f"{file} cannot be read: {err.strerror}") from err
    found = [Symbol(match[3], int(match[1], 16), match[2])
             for match in re.finditer(r"(?m)^([0-9a-f]{16}) ([A-Za-z]) (\S+)$", text)]
    if not found:
        raise LabError(f"{file} is no System.map: no line is \"address kind name\"")
    return found
