# SPDX-License-Identifier: GPL-2.0
"""Takes the compressed kernel out of an x86 bzImage, by the fields of its setup header.

Documentation/arch/x86/boot.rst of the kernel has the header.  A search for magic numbers instead
finds whatever comes first, and that need not be the kernel.
"""

import re
import struct
from dataclasses import dataclass

from lab.binary import unpack
from lab.errors import LabError

_HEADER = 0x1f1
# The first with payload_offset and payload_length is 2.08; kernels from 4.4 on have 2.13 or later.
_PROTOCOL = 0x208


@dataclass(frozen=True)
class BzImage:
    """What a bzImage holds."""

    version: str        # "6.1.0-56-amd64 (debian-kernel@...) #1 SMP ..."; "" where it has none
    payload: bytes      # the compressed kernel
    how: str            # what it is compressed with


def is_one(data: bytes) -> bool:
    """Whether `data` looks like a bzImage."""
    return data[0x202:0x206] == b"HdrS"


def read(data: bytes, what: str) -> BzImage:
    """LabError that names `what` where the payload is not where the header says."""
    if len(data) < 0x268:
        raise LabError(f"{what} ends within the header of its bzImage: fetch it again")
    protocol, = struct.unpack_from("<H", data, 0x206)
    if protocol < _PROTOCOL:
        raise LabError(f"{what} has boot protocol {protocol >> 8}.{protocol & 255:02d}, which does "
                       "not say where the kernel is: only kernels from 2.6.26 on can be read")
    sectors = data[_HEADER] or 4
    offset, length = struct.unpack_from("<II", data, 0x248)
    begin = (sectors + 1) * 512 + offset
    if not length:
        raise LabError(f"{what} is a bzImage that holds no kernel (payload_length is 0)")
    if begin + length > len(data):
        raise LabError(f"{what} is cut short: its kernel should end at byte {begin + length}, and "
                       f"it has {len(data)}; fetch it again")
    payload = data[begin:begin + length]
    how = unpack.method(payload)
    if how is None and not payload.startswith(b"\x7fELF"):
        raise LabError(f"{what} is a bzImage, but its kernel is compressed in an unknown way, or "
                       "encrypted")
    return BzImage(_version(data), payload, how or "")


def _version(data: bytes) -> str:
    at, = struct.unpack_from("<H", data, 0x20e)
    if not at:
        return ""
    said = data[at + 0x200:at + 0x200 + 256].partition(b"\0")[0].decode("latin-1")
    # A damaged one is told, and may not do things to the terminal.
    return re.sub("[^ -~]", "?", said)


def kernel(image: BzImage, what: str) -> bytes:
    """The kernel, unpacked."""
    if not image.how:
        return image.payload
    payload = image.payload
    # The build appends the unpacked size to all but gzip's, which has it.  Debian's programs would
    # take it for more compressed data.
    size = None
    if image.how != "gzip" and len(payload) > 4:
        size, = struct.unpack("<I", payload[-4:])
        payload = payload[:-4]
    data = unpack.whole(payload, image.how, what)
    if size is not None and len(data) != size:
        raise LabError(f"{what} is damaged: its kernel should have {size} bytes, and has "
                       f"{len(data)}; fetch it again")
    return data
