# SPDX-License-Identifier: GPL-2.0
"""Takes the kernel out of what kernels are shipped in: packages, boot images, EFI programs.

Each form is read by its own fields.  A search for magic numbers would take the first thing that
looks like a kernel, and that may be a part of another.
"""

import re
import struct
from collections.abc import Iterator

from lab.binary import bzimage, unpack
from lab.errors import LabError

# Forms within forms: a package, a zboot image in it, what that unpacks to.  More is no kernel.
_DEPTH = 6
# Packages hold all modules beside the kernel.
_PACKAGE_LIMIT = 4 << 30
_KERNEL_NAME = re.compile(
    r"(?:\./|/)?(?:usr/)?(?:boot|lib/modules/[^/]+)/"
    r"(?:vmlinu[xz]|bzImage|zImage|Image|kernel)[^/]*")
_VMLINUX = re.compile(r"(.*/)vmlinux(.*?)(?:\.(?:gz|xz|zst|bz2|lzma|lz4|lzo))?")
_ARM64, _RISCV = b"ARM\x64", b"RSC\x05"


def kernel(data: bytes, what: str) -> tuple[bytes, str]:
    """The innermost kernel in `data` (ELF, or an Image of arm64 or riscv64), and the version
    that a bzImage around it names ("" where there is none).

    LabError that names `what` where there is no kernel.
    """
    version = ""
    for _depth in range(_DEPTH):
        if data.startswith(b"\x7fELF"):
            return data, version
        if is_raw(data):
            # Most are EFI programs, too, which say how long they are; one may be signed behind that.
            if any(begin + size > len(data) for _name, begin, size in _pe_sections(data) or ()):
                raise _cut(what, "Image")
            return data, version
        if bzimage.is_one(data):
            boot = bzimage.read(data, what)
            version, data = boot.version, bzimage.kernel(boot, what)
        elif data.startswith(b"!<arch>\n"):
            data = _deb(data, what)
        elif data.startswith(b"\xed\xab\xee\xdb"):
            data = _rpm(data, what)
        elif data.startswith(b"ANDROID!"):
            data = _android(data, what)
        elif data.startswith(b"MZ") and data[4:8] == b"zimg":
            data = _zboot(data, what)
        elif data.startswith(b"MZ"):
            data = _unified(data, what)
        elif how := unpack.method(data):
            data = unpack.whole(data, how, what)
        elif not data:
            raise LabError(f"{what} is empty: fetch it again")
        else:
            raise LabError(f"{what} is no kernel image that is known, or it is encrypted: name a "
                           "bzImage, Image, vmlinux, .efi, .deb, .rpm or boot.img")
    raise LabError(f"{what} is packed more than {_DEPTH} times: that is no kernel")


def is_raw(data: bytes) -> bool:
    """Whether `data` is an Image of arm64 or riscv64 (their boot image headers)."""
    return len(data) > 64 and data[0x38:0x3c] in (_ARM64, _RISCV)


def raw_arch(data: bytes) -> str:
    """The architecture of such an Image."""
    return "arm64" if data[0x38:0x3c] == _ARM64 else "riscv64"


def _cut(what: str, form: str) -> LabError:
    return LabError(f"{what} is damaged or cut short ({form}): fetch it again")


def _part(data: bytes, begin: int, size: int, what: str, form: str) -> bytes:
    if size <= 0 or begin < 0 or begin + size > len(data):
        raise _cut(what, form)
    return data[begin:begin + size]


def _zboot(data: bytes, what: str) -> bytes:
    """The kernel in a compressed EFI image (drivers/firmware/efi/libstub/zboot-header.S)."""
    if len(data) < 64:
        raise _cut(what, "EFI zboot")
    offset, size = struct.unpack_from("<II", data, 8)
    said = data[24:56].partition(b"\0")[0].decode("latin-1")
    packed = _part(data, offset, size, what, "EFI zboot")
    how = unpack.method(packed)
    if how is None:
        raise LabError(f"{what} is an EFI image whose kernel is compressed in an unknown way "
                       f"({said!r}), or encrypted")
    return unpack.whole(packed, how, what)


def _pe_sections(data: bytes) -> list[tuple[bytes, int, int]] | None:
    """The sections of an EFI program: name, where it begins, its size; None where it is none."""
    if not data.startswith(b"MZ") or len(data) < 64:
        return None
    at, = struct.unpack_from("<I", data, 0x3c)
    if data[at:at + 4] != b"PE\0\0" or at + 24 > len(data):
        return None
    count, = struct.unpack_from("<H", data, at + 6)
    options, = struct.unpack_from("<H", data, at + 20)
    found: list[tuple[bytes, int, int]] = []
    for head in range(at + 24 + options, at + 24 + options + 40 * count, 40):
        if head + 40 > len(data):
            return None
        size, _address, raw, begin = struct.unpack_from("<IIII", data, head + 8)
        found.append((data[head:head + 8].rstrip(b"\0"), begin, min(size, raw) if size else raw))
    return found


def linux_parts(data: bytes) -> list[tuple[int, int]] | None:
    """Where kernels are in an EFI program, begin and size; None where it is none.

    A unified kernel image is a boot loader that has its kernel in a section of its own.
    """
    sections = _pe_sections(data)
    if sections is None:
        return None
    return [(begin, size) for name, begin, size in sections if name == b".linux"]


def _unified(data: bytes, what: str) -> bytes:
    parts = linux_parts(data)
    if parts is None:
        raise _cut(what, "EFI program")
    if not parts:
        raise LabError(f"{what} is an EFI program without a kernel in it: name a kernel image")
    kernels = {_part(data, begin, size, what, "EFI program") for begin, size in parts}
    if len(kernels) > 1:
        raise LabError(f"{what} holds {len(kernels)} kernels: take one out with objcopy, and name "
                       "it")
    return kernels.pop()


def _android(data: bytes, what: str) -> bytes:
    """The kernel in a boot.img (Android's bootimg.h)."""
    if len(data) < 48:
        raise _cut(what, "boot.img")
    size, = struct.unpack_from("<I", data, 8)
    version, = struct.unpack_from("<I", data, 40)
    # Until version 2 the page size is a field; the field of the version was another's before it.
    page = 4096 if version in (3, 4) else struct.unpack_from("<I", data, 36)[0]
    if page not in (2048, 4096, 8192, 16384, 32768, 65536):
        raise _cut(what, "boot.img")
    if not size:
        raise LabError(f"{what} is a boot.img without a kernel")
    return _part(data, page, size, what, "boot.img")


# ---- packages ------------------------------------------------------------------------------


def _chosen(files: Iterator[tuple[str, bytes]], what: str) -> bytes:
    """The one kernel of a package."""
    found: dict[str, bytes] = {}
    for name, content in files:
        found[name] = content
    # SUSE's have the vmlinux as well, packed: what is booted counts.
    for match in [one for name in found if (one := _VMLINUX.fullmatch(name))]:
        if any(f"{match[1]}{booted}{match[2]}" in found for booted in ("vmlinuz", "Image")):
            del found[match[0]]
    # The same kernel may be there twice, for the boot loader and for kexec.
    if len(set(found.values())) > 1:
        raise LabError(f"{what} holds several kernels ({', '.join(sorted(found))}): unpack it and "
                       "name one of them")
    if not found:
        raise LabError(f"{what} is a package without a kernel: take the one that has "
                       "/boot/vmlinuz-... or /lib/modules/.../vmlinuz")
    return next(iter(found.values()))


class _Stream:
    """Reads from pieces, and no more of them than asked for."""

    def __init__(self, pieces: Iterator[bytes], what: str, form: str) -> None:
        self._pieces, self._rest = pieces, b""
        self._what, self._form = what, form

    def take(self, size: int, keep: bool = True) -> bytes:
        """The next `size` bytes, or b"" if they are only to be skipped."""
        kept = []
        while size:
            if not self._rest:
                piece = next(self._pieces, None)
                if piece is None:
                    raise _cut(self._what, self._form)
                self._rest = piece
                continue
            got = self._rest[:size]
            self._rest = self._rest[len(got):]
            size -= len(got)
            if keep:
                kept.append(got)
        return b"".join(kept)


def _deb(data: bytes, what: str) -> bytes:
    at = 8
    while at + 60 <= len(data):
        name = data[at:at + 16].decode("latin-1").strip().rstrip("/")
        digits = data[at + 48:at + 58].strip()
        if not digits.isdigit() or data[at + 58:at + 60] != b"`\n":
            break
        size = int(digits)
        if name.startswith("data.tar"):
            member = _part(data, at + 60, size, what, ".deb")
            return _chosen(_tar(_pieces(member, what), what), what)
        at += 60 + size + size % 2
    raise _cut(what, ".deb")


def _pieces(member: bytes, what: str) -> Iterator[bytes]:
    how = unpack.method(member)
    return unpack.chunks(member, how, what, _PACKAGE_LIMIT) if how else iter((member,))


def _tar(pieces: Iterator[bytes], what: str) -> Iterator[tuple[str, bytes]]:
    """The kernels in a tar file.  Those in /boot are at its start: what follows is not read."""
    stream = _Stream(pieces, what, "tar")
    found = long_name = ""
    while True:
        head = stream.take(512)
        if not head.strip(b"\0"):
            return
        if head[257:262] != b"ustar":
            raise _cut(what, "tar")
        try:
            size = int(head[124:136].strip(b" \0") or b"0", 8)
        except ValueError as err:
            raise _cut(what, "tar") from err
        if size < 0:
            raise _cut(what, "tar")
        kind, padded = head[156:157], (size + 511) // 512 * 512
        if kind == b"L" and size < 4096:
            long_name = stream.take(padded)[:size].rstrip(b"\0").decode("latin-1")
            continue
        name = long_name or head[:100].rstrip(b"\0").decode("latin-1")
        long_name = ""
        if found and not name.startswith(found):
            return
        if kind in (b"0", b"\0") and _KERNEL_NAME.fullmatch(name) and size:
            if size > unpack.LIMIT:
                raise LabError(f"{what}: {name} has more than {unpack.LIMIT >> 20} MiB: that is "
                               "no kernel")
            yield name, stream.take(padded)[:size]
            found = name.rpartition("/")[0] + "/"
        else:
            stream.take(padded, keep=False)


def _rpm(data: bytes, what: str) -> bytes:
    at = 96
    # The signature's header, aligned to 8, and the package's.
    for align in (8, 1):
        if data[at:at + 3] != b"\x8e\xad\xe8" or at + 16 > len(data):
            raise _cut(what, ".rpm")
        count, size = struct.unpack_from(">II", data, at + 8)
        at += 16 + 16 * count + size
        at = (at + align - 1) // align * align
        if at >= len(data):
            raise _cut(what, ".rpm")
    return _chosen(_cpio(_pieces(data[at:], what), what), what)


def _cpio(pieces: Iterator[bytes], what: str) -> Iterator[tuple[str, bytes]]:
    """The kernels in a cpio archive ("newc")."""
    stream = _Stream(pieces, what, "cpio")
    while True:
        head = stream.take(110)
        if head[:6] not in (b"070701", b"070702"):
            raise _cut(what, "cpio")
        try:
            fields = [int(head[begin:begin + 8], 16) for begin in range(6, 110, 8)]
        except ValueError as err:
            raise _cut(what, "cpio") from err
        mode, size, length = fields[1], fields[6], fields[11]
        if not 0 < length <= 4096:
            raise _cut(what, "cpio")
        name = stream.take(length + -(110 + length) % 4)[:length].rstrip(b"\0").decode("latin-1")
        if name == "TRAILER!!!":
            return
        padded = size + -size % 4
        if mode & 0o170000 == 0o100000 and _KERNEL_NAME.fullmatch(name) and size:
            if size > unpack.LIMIT:
                raise LabError(f"{what}: {name} has more than {unpack.LIMIT >> 20} MiB: that is "
                               "no kernel")
            yield name, stream.take(padded)[:size]
        else:
            stream.take(padded, keep=False)
