# SPDX-License-Identifier: GPL-2.0
"""Reads the ELF form of a kernel (vmlinux), with or without symbols."""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from lab.binary.image import Section, Symbol
from lab.errors import LabError, NotInstalled

MAGIC = b"\x7fELF"
_ARCHS = {"EM_X86_64": "x86_64", "EM_AARCH64": "arm64", "EM_RISCV": "riscv64"}
_ALLOC, _EXECUTABLE, _WRITE = 2, 4, 1
# More are no kernel: with -ffunction-sections a vmlinux.o has 100,000, a linked one some 60.
_SECTIONS = 1 << 17


@dataclass(frozen=True)
class Elf:
    """What an ELF file holds of a kernel."""

    arch: str
    kind: str                       # "ET_EXEC", "ET_DYN", ...
    sections: tuple[Section, ...]   # those that are loaded and have bytes
    symbols: tuple[Symbol, ...]     # of its symbol table; none where it is stripped
    notes: bytes                    # of the loaded notes
    build_id: str
    # Whether the bytes of the loaded sections are there: a debug file has none.
    loaded: bool


def read(file: BinaryIO, what: str) -> Elf:
    """The ELF file `file`; LabError that names `what` where it is none that can be a kernel.

    Of the file only what is loaded is read, and its names: of a vmlinux most is debugging
    information.
    """
    try:
        from elftools.common.exceptions import ELFError     # type: ignore[import]
        from elftools.elf.elffile import ELFFile            # type: ignore[import]
    except ImportError as err:
        raise NotInstalled("python3-pyelftools is not installed: apt install "
                           "python3-pyelftools") from err
    try:
        return _read(file, what, ELFFile)
    # pyelftools says of some damage what the library that it parses with says.
    except (ELFError, struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError,
            AssertionError, OverflowError, MemoryError, RecursionError) as err:
        raise LabError(f"{what} is a damaged ELF file: fetch it again") from err


def _read(file: BinaryIO, what: str, parser: Any) -> Elf:
    head = file.read(64)
    if len(head) < 64:
        raise LabError(f"{what} is a damaged ELF file: fetch it again")
    if head[4] != 2:
        raise LabError(f"{what} is a 32-bit kernel: only those of 64 bits can be read")
    if head[5] != 1:
        raise LabError(f"{what} is big-endian: only x86_64, arm64 and riscv64 can be read")
    elf = parser(file)
    arch = _ARCHS.get(elf["e_machine"])
    if arch is None:
        raise LabError(f"{what} is for {elf['e_machine']}: only x86_64, arm64 and riscv64 can be "
                       "read")
    if elf.num_sections() > _SECTIONS:
        raise LabError(f"{what} has {elf.num_sections()} sections: that is no kernel")
    headers = [section for section in elf.iter_sections()]
    sections = list(_loaded(file, headers))
    if not sections:
        sections = list(_segments(file, elf))
    notes = b"".join(_bytes(file, one) for one in headers if one["sh_type"] == "SHT_NOTE"
                     and one["sh_flags"] & _ALLOC)
    if not headers:
        notes = b"".join(_at(file, one["p_offset"], one["p_filesz"])
                         for one in elf.iter_segments() if one["p_type"] == "PT_NOTE")
    return Elf(arch, str(elf["e_type"]), tuple(sorted(sections, key=lambda one: one.address)),
               tuple(sorted(_symbols(file, headers), key=lambda one: one.address)), notes,
               build_id(notes), any(one.executable for one in sections))


def build_id(notes: bytes) -> str:
    """The build id in the bytes of ELF notes, in hex; "" where there is none."""
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, at)
        name = notes[at + 12:at + 12 + name_size]
        begin = at + 12 + (name_size + 3) // 4 * 4
        if kind == 3 and name == b"GNU\0" and 0 < size <= 64 and begin + size <= len(notes):
            return notes[begin:begin + size].hex()
        at = begin + (size + 3) // 4 * 4
    return ""


def _at(file: BinaryIO, begin: int, size: int) -> bytes:
    """`size` bytes at an offset; ValueError where the file has fewer."""
    # Not to ask for memory that a damaged header names.
    if begin + size > file.seek(0, io.SEEK_END):
        raise ValueError("beyond the end")
    file.seek(begin)
    content = file.read(size)
    if len(content) != size:
        raise ValueError("it has become shorter")
    return content


def _bytes(file: BinaryIO, header: Any) -> bytes:
    if header["sh_type"] == "SHT_NOBITS":
        return b""
    return _at(file, int(header["sh_offset"]), int(header["sh_size"]))


def _loaded(file: BinaryIO, headers: list[Any]) -> Iterator[Section]:
    for one in headers:
        flags = int(one["sh_flags"])
        # x86's per-CPU data is at 0 until 6.14: no code, and nothing that addresses lead to.
        if flags & _ALLOC and int(one["sh_addr"]) >> 32 and (content := _bytes(file, one)):
            yield Section(int(one["sh_addr"]), content, bool(flags & _EXECUTABLE), str(one.name))


def _segments(file: BinaryIO, elf: Any) -> Iterator[Section]:
    """For a file whose section headers were taken off."""
    for one in elf.iter_segments():
        begin, size = int(one["p_offset"]), int(one["p_filesz"])
        if one["p_type"] == "PT_LOAD" and size:
            yield Section(int(one["p_vaddr"]), _at(file, begin, size), bool(one["p_flags"] & 1))


def _symbols(file: BinaryIO, headers: list[Any]) -> Iterator[Symbol]:
    """The symbol table's.  pyelftools takes 10 s for it, being made for other ends."""
    for table in headers:
        if table["sh_type"] != "SHT_SYMTAB" or int(table["sh_entsize"]) != 24:
            continue
        strings = _bytes(file, headers[int(table["sh_link"])])
        entries = _bytes(file, table)
        for name_at, info, _other, index, value, _size in struct.iter_unpack(
                "<IBBHQQ", entries[:len(entries) // 24 * 24]):
            kind = info & 15
            # Nothing that is undefined, no name of a section or file, no TLS.
            if index == 0 or kind > 2:
                continue
            end = strings.find(b"\0", name_at)
            name = strings[name_at:end].decode("latin-1") if end >= 0 else ""
            # Mapping symbols of arm64 and riscv64 ($x, $d), and what is local to the assembler.
            if not name or name[0] == "$" or name.startswith(".L"):
                continue
            yield Symbol(name, value, _letter(index, info >> 4, headers))


def _letter(index: int, binding: int, headers: list[Any]) -> str:
    """The letter that nm gives the symbol."""
    if binding == 2:
        return "W"
    if index >= len(headers):
        letter = "a"
    else:
        flags = int(headers[index]["sh_flags"])
        if flags & _EXECUTABLE:
            letter = "t"
        elif headers[index]["sh_type"] == "SHT_NOBITS":
            letter = "b"
        else:
            letter = "d" if flags & _WRITE else "r"
    return letter if binding == 0 else letter.upper()
