# SPDX-License-Identifier: GPL-2.0
"""Finds what a kernel says of itself: its banner, its config, its build id."""

import re
import struct
import zlib
from collections.abc import Iterator, Sequence

from lab.binary import elf
from lab.binary.image import Section, Symbol

# Long version strings of the compiler are in it.
_LONGEST = 1024
_START = b"Linux version "
# A build has a number.  6.1 has another text before it, of a first link, with a "#" alone.
_BANNER = re.compile(_START + rb"(\d+\.\d+[!-~]*) \([^\0\n]{1,%d}#\d[^\0\n]{0,%d}\n"
                     % (_LONGEST, _LONGEST))
_CONFIG = b"IKCFG_ST\x1f\x8b"
_NOTE = struct.pack("<III", 4, 20, 3) + b"GNU\0"
# A config has 300 KiB.
_CONFIG_LIMIT = 4 << 20


def banners(sections: Sequence[Section]) -> list[str]:
    """Each text that has the form of a kernel's banner, once."""
    return list(dict.fromkeys(said for one in sections for said in _banners(one.data)))


def _banners(data: bytes) -> Iterator[str]:
    # A search by the pattern alone cannot be ended by a signal, and takes minutes for some data.
    at = data.find(_START)
    while at >= 0:
        if match := _BANNER.match(data, at):
            yield match[0].decode("latin-1").rstrip("\n")
        at = data.find(_START, at + 1)


def banner_at(sections: Sequence[Section], symbols: Sequence[Symbol]) -> str:
    """The banner where the symbol linux_banner is; "" where there is no such."""
    for symbol in symbols:
        if symbol.name == "linux_banner":
            for one in sections:
                if one.address <= symbol.address < one.end:
                    match = _BANNER.match(one.data, symbol.address - one.address)
                    return match[0].decode("latin-1").rstrip("\n") if match else ""
    return ""


def config(sections: Sequence[Section], symbols: Sequence[Symbol] = ()) -> str | None:
    """The config that CONFIG_IKCONFIG puts into a kernel.

    Another kernel may be in its initramfs.  So it is where kernel_config_data says, or else the
    only one that there is.
    """
    mine = {one.address for one in symbols if one.name == "kernel_config_data"}
    every = list(_configs(sections))
    found = {text for address, text in every if not mine or address in mine}
    return found.pop() if len(found) == 1 else None


def _configs(sections: Sequence[Section]) -> Iterator[tuple[int, str]]:
    for one in sections:
        at = one.data.find(_CONFIG)
        while at >= 0:
            try:
                text = zlib.decompressobj(31).decompress(one.data[at + 8:at + 8 + _CONFIG_LIMIT],
                                                         _CONFIG_LIMIT)
            except zlib.error:
                text = b""
            if b"CONFIG_" in text:
                yield one.address + at + 8, text.decode("utf-8", "replace")
            at = one.data.find(_CONFIG, at + 1)


def build_ids(data: bytes) -> Iterator[str]:
    """The build ids in an image without sections, but for those of programs in it (the vDSO)."""
    within = list(_programs(data))
    at = data.find(_NOTE)
    while at >= 0:
        if not any(begin <= at < end for begin, end in within):
            if found := elf.build_id(data[at:at + 36]):
                yield found
        at = data.find(_NOTE, at + 4)


def _programs(data: bytes) -> Iterator[tuple[int, int]]:
    """Where ELF files are in an image: a vDSO has its section headers last."""
    at = data.find(elf.MAGIC)
    while at >= 0:
        head = data[at:at + 64]
        if len(head) == 64 and head[4] in (1, 2) and head[5] == 1:
            if head[4] == 2:
                table, size, count = (*struct.unpack_from("<Q", head, 40),
                                      *struct.unpack_from("<HH", head, 58))
            else:
                table, size, count = (*struct.unpack_from("<I", head, 32),
                                      *struct.unpack_from("<HH", head, 46))
            # A vDSO has some 100 KiB.
            yield at, at + min(table + size * count, 1 << 20)
        at = data.find(elf.MAGIC, at + 4)
