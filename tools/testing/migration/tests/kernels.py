# SPDX-License-Identifier: GPL-2.0
"""Writes tiny kernels: a kallsyms table in every layout, and the ELF file around it."""

import gzip
import struct
from collections.abc import Sequence

TEXT, RODATA = 0xffffffff81000000, 0xffffffff82000000
BANNER = "Linux version 6.1.0-9-test (a@b) (gcc 12) #1 SMP Debian 6.1.9-1"
Names = Sequence[tuple[str, int, str]]


def names(count: int = 600, text: int = TEXT) -> list[tuple[str, int, str]]:
    """Functions 16 bytes apart; three of them have the same address as the one before."""
    return [(f"function_{number:05d}", text + 16 * (number - number % 3), "Tt"[number % 2])
            for number in range(count)]


def _padded(data: bytes, to: int) -> bytes:
    return data + bytes(-len(data) % to)


def kallsyms(symbols: Names, layout: str, address: int = RODATA) -> bytes:
    """The table as scripts/kallsyms of a version writes it: "4.4", "4.9", "4.9 percpu", "4.20",
    "6.2", "6.4", "6.4 percpu", "6.18", or "7.3" (which is relative to `address`).
    """
    version = tuple(int(one) for one in layout.split()[0].split("."))
    to = 4 if version >= (7, 0) else 8
    tokens = [chr(byte) if 0x21 <= byte < 0x7f else "" for byte in range(256)]
    tokens[1], tokens[200] = "function_", "tfunction_"
    stream, markers = b"", []
    for number, (name, _address, kind) in enumerate(symbols):
        if number % 256 == 0:
            markers.append(len(stream))
        packed = (kind + name).encode().replace(b"tfunction_", b"\xc8").replace(b"function_",
                                                                               b"\x01")
        length = bytes((len(packed) & 127 | 128, len(packed) >> 7)) if len(packed) > 127 \
            else bytes((len(packed),))
        stream += length + packed
    marks = b"".join(struct.pack("<Q" if version < (4, 20) else "<I", one)
                     for one in markers)
    count = struct.pack("<I", len(symbols))
    texts = b"".join(one.encode() + b"\0" for one in tokens)
    at, index = 0, b""
    for one in tokens:
        index += struct.pack("<H", at)
        at += len(one) + 1
    order = b"".join(struct.pack(">I", number)[1:] for number in range(len(symbols)))
    base = next(where for _name, where, _kind in symbols if where >> 63)
    if "percpu" in layout:
        offsets = [where if where < 1 << 31 else base - 1 - where & 0xffffffff
                   for _name, where, _kind in symbols]
    else:
        offsets = [where - base & 0xffffffff for _name, where, _kind in symbols]
    relative = _padded(struct.pack(f"<{len(offsets)}I", *offsets), 8) + struct.pack("<Q", base)
    head = [_padded(one, to) for one in (count, stream, marks)]
    tail = [_padded(one, to) for one in (texts, index)]
    if version == (4, 4):
        absolute = struct.pack(f"<{len(symbols)}Q", *(where for _name, where, _kind in symbols))
        return b"".join([absolute, *head, *tail])
    if version < (6, 2):
        return b"".join([relative, *head, *tail])
    if version == (6, 2):
        return b"".join([relative, *head, _padded(order, 8), *tail])
    if version < (7, 0):
        return b"".join([*head, *tail, relative, order])
    before = b"".join([*head, *tail])
    return before + b"".join(
        struct.pack("<i", where - (address + len(before) + 4 * number))
        for number, (_name, where, _kind) in enumerate(symbols)) + order


def note(build_id: bytes) -> bytes:
    """The note with a build id of 20 bytes."""
    return struct.pack("<III", 4, 20, 3) + b"GNU\0" + build_id


def elf(rodata: bytes, build_id: bytes = b"\x11" * 20, machine: int = 62,
        symbols: Names = ()) -> bytes:
    """A vmlinux with .text, .rodata, .notes and, if there are `symbols`, a symbol table."""
    strings, entries = b"\0", bytes(24)
    for name, where, kind in symbols:
        entries += struct.pack("<IBBHQQ", len(strings), 2 | 16 * kind.isupper(), 0, 1, where, 0)
        strings += name.encode() + b"\0"
    parts: list[tuple[str, int, int, int, bytes, int, int]] = [
             ("", 0, 0, 0, b"", 0, 0),
             (".text", 1, 6, TEXT, b"\x90" * 0x4000, 0, 0),
             (".rodata", 1, 2, RODATA, rodata, 0, 0),
             (".notes", 7, 2, RODATA + 0x1000000, note(build_id), 0, 0)]
    if symbols:
        parts += [(".symtab", 2, 0, 0, entries, 5, 24), (".strtab", 3, 0, 0, strings, 0, 0)]
    parts.append((".shstrtab", 3, 0, 0, b"\0" + b"".join(
        one.encode() + b"\0" for one in [*(part[0] for part in parts), ".shstrtab"]), 0, 0))
    names_of = parts[-1][4]
    body, headers = b"", b""
    for name, form, flags, where, content, link, size in parts:
        at = names_of.index(b"\0" + name.encode() + b"\0") + 1 if name else 0
        headers += struct.pack("<IIQQQQIIQQ", at, form, flags, where, 64 + len(body),
                               len(content), link, 0, 8, size)
        body += _padded(content, 8)
    return b"\x7fELF\2\1\1" + bytes(9) + struct.pack(
        "<HHIQQQIHHHHHH", 2, machine, 1, TEXT, 0, 64 + len(body), 0, 64, 0, 0, 64, len(parts),
        len(parts) - 1) + body + headers


def vmlinux(layout: str = "6.4", banner: str = BANNER,
            build_id: bytes = b"\x11" * 20) -> bytes:
    """A stripped vmlinux with a kallsyms table."""
    text = _padded(banner.encode() + b"\n\0", 8)
    return elf(text + kallsyms(names(), layout, RODATA + len(text)), build_id)


def bzimage(payload: bytes, version: str = "6.1.0-9-test (a@b) #1") -> bytes:
    """A bzImage with the compressed kernel `payload`, and an ELF file before it."""
    setup = bytearray(1024)
    setup[0x1f1] = 1
    setup[0x202:0x206] = b"HdrS"
    decoy = elf(b"not the kernel")
    struct.pack_into("<H", setup, 0x206, 0x20f)
    struct.pack_into("<H", setup, 0x20e, 0x300 - 0x200)
    struct.pack_into("<II", setup, 0x248, len(decoy), len(payload))
    setup[0x300:0x300 + len(version)] = version.encode()
    return bytes(setup) + decoy + payload


def packed(data: bytes) -> bytes:
    """gzip's form of it."""
    return gzip.compress(data, 1)


def unified(*content: bytes) -> bytes:
    """An EFI program with kernels in it: a boot loader, whose code is another ELF file."""
    parts = [(b".text", elf(b"not the kernel")), *((b".linux", one) for one in content),
             (b".initrd", b"x" * 100)]
    heads, body, at = b"", b"", 0x400
    for name, data in parts:
        raw = _padded(data, 512)
        heads += struct.pack("<8sIIII", name, len(data), 0x10000 + at, len(raw), at) + bytes(16)
        body, at = body + raw, at + len(raw)
    head = b"MZ" + bytes(0x3a) + struct.pack("<I", 0x80) + bytes(0x40)
    head += b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, len(parts), 0, 0, 0, 16, 0) + bytes(16)
    return (head + heads).ljust(0x400, b"\0") + body
