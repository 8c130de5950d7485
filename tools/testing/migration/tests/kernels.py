# SPDX-License-Identifier: GPL-2.0
"""Writes tiny kernels: a kallsyms table in every layout, and the ELF file around it."""

import gzip
import io
import lzma
import struct
import tarfile
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


def deb(content: bytes, name: str = "./boot/vmlinuz-6.1", *more: tuple[str, bytes]) -> bytes:
    """A package of Debian's: an ar archive with a tar file in it."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for member, data in (("./usr/share/doc/vmlinuz", b"no"), (name, content), *more):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    out = b"!<arch>\n"
    for member, data in (("debian-binary", b"2.0\n"),
                         ("data.tar.xz", lzma.compress(tar.getvalue()))):
        out += f"{member:16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode()
        out += data + b"\n" * (len(data) % 2)
    return out


def rpm(content: bytes, name: str = "./lib/modules/6.1/vmlinuz",
        *more: tuple[str, bytes]) -> bytes:
    """A package of RPM: two headers, and a packed cpio archive."""
    archive = b""
    for member, data in ((name, content), *more, ("TRAILER!!!", b"")):
        fields = [1, 0o100644, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(member) + 1, 0]
        archive += b"070701" + b"".join(b"%08x" % one for one in fields)
        archive += member.encode() + b"\0"
        archive += bytes(-len(archive) % 4) + data
        archive += bytes(-len(archive) % 4)
    header = b"\x8e\xad\xe8\1" + bytes(4)
    return (b"\xed\xab\xee\xdb" + bytes(92) + header + struct.pack(">II", 1, 5) + bytes(16 + 5 + 3)
            + header + struct.pack(">II", 2, 3) + bytes(32 + 3) + packed(archive))


def android(content: bytes, version: int) -> bytes:
    """A boot.img."""
    head = b"ANDROID!" + struct.pack("<I", len(content)) + bytes(24) + struct.pack("<II", 2048,
                                                                                   version)
    return head + bytes((4096 if version > 2 else 2048) - len(head)) + content


def zboot(content: bytes) -> bytes:
    """An EFI zboot image around what is packed."""
    return b"MZ\0\0zimg" + struct.pack("<II", 128, len(content)) + bytes(8) + b"gzip" + bytes(100) \
        + content


def raw_image(arch: str, layout: str = "6.4", efi: bool = False) -> bytes:
    """An Image whose base only a relocation gives, and whose kallsyms starts at _stext.

    With `efi` it is an EFI program as well.
    """
    start = {"arm64": 0xffff800008000000, "riscv64": 0xffffffff80000000}[arch]
    symbols = sorted([*names(300, start + 0x10000), ("_stext", start + 0x10000, "T"),
                      ("_etext", start + 0x12000, "T")], key=lambda one: one[1])
    table = kallsyms(symbols, layout, start + 0x12000)
    base = (start + 0x10000).to_bytes(8, "little")
    at = 0x12000 + table.find(base)
    kind = {"arm64": 0x403, "riscv64": 3}[arch]
    # That of another place, and that of the base.
    rela = struct.pack("<QQQ", start + 0x11000, kind, start + 0x10100)
    rela += struct.pack("<QQQ", start + at, kind, start + 0x10000)
    head = bytearray(0x10000)
    head[0x38:0x3c] = {"arm64": b"ARM\x64", "riscv64": b"RSC\x05"}[arch]
    decoy = BANNER.replace("#1", "#").encode() + b"\n\0"
    vdso = bytearray(elf(b"", b"\x22" * 20))
    body = bytes(head) + b"\1" * 0x2000 + table.replace(base, bytes(8))
    body += bytes(-len(body) % 8) + rela + decoy + BANNER.encode() + b"\n\0"
    body += bytes(-len(body) % 8) + bytes(vdso) + note(b"\x11" * 20)
    if not efi:
        return body
    pe = b"PE\0\0" + struct.pack("<HHIIIHH", 0xaa64, 2, 0, 0, 0, 16, 0) + bytes(16)
    for name, begin, size in ((b".text", 0x10000, 0x2000),
                              # What is not in the file is cleared when it is loaded.
                              (b".data", 0x12000, len(body) - 0x12000)):
        pe += struct.pack("<8sIIII", name, size + 0x1000 * (name == b".data"), begin, size, begin)
        pe += bytes(16)
    made = bytearray(body)
    made[:2], made[0x3c:0x40] = b"MZ", struct.pack("<I", 0x40)
    made[0x40:0x40 + len(pe)] = pe
    return bytes(made)
