# SPDX-License-Identifier: GPL-2.0
"""Decompresses what kernels and packages are compressed with, with bounds.

zstd, lz4 and lzo are not in Python's library: Debian's programs for them do it, in a process with
bounded memory and time.
"""

import bz2
import lzma
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
import zlib
from collections.abc import Iterator

from lab.errors import LabError

# Kernels with everything built in have some 100 MiB.
LIMIT = 512 << 20
# Of a processor; what a busy machine takes longer for is a kernel all the same.
SECONDS = 60
_WALL = 600
_CHUNK = 1 << 20
_MEMORY = 1 << 30

_MAGIC = {"gzip": b"\x1f\x8b\x08", "xz": b"\xfd7zXZ\0", "bzip2": b"BZh", "lzma": b"\x5d\0\0",
          "lzo": b"\x89LZO\0\r\n\x1a\n", "lz4": b"\x02\x21\x4c\x18", "zstd": b"\x28\xb5\x2f\xfd",
          "lz4 frame": b"\x04\x22\x4d\x18"}
_PROGRAMS = {"zstd": ("zstd", "-dcq", "--no-check", f"--memory={_MEMORY >> 21}MiB"),
             "lz4": ("lz4", "-dcq"), "lz4 frame": ("lz4", "-dcq"), "lzo": ("lzop", "-dcq")}


def method(data: bytes) -> str | None:
    """How `data` is compressed, by its first bytes."""
    return next((name for name, magic in _MAGIC.items() if data.startswith(magic)), None)


def whole(data: bytes, how: str, what: str, limit: int = LIMIT) -> bytes:
    """All that `data` unpacks to; LabError that names `what` where it is damaged or too much."""
    return b"".join(chunks(data, how, what, limit))


def chunks(data: bytes, how: str, what: str, limit: int = LIMIT) -> Iterator[bytes]:
    """The same piece by piece.  What follows the compressed data is left out."""
    total = 0
    deadline = time.thread_time() + SECONDS
    source = _program(data, how, what, time.monotonic() + _WALL) if how in _PROGRAMS \
        else _library(data, how, what)
    for piece in source:
        total += len(piece)
        if total > limit:
            raise LabError(f"{what} unpacks to more than {limit >> 20} MiB: that is no kernel")
        if time.thread_time() > deadline:
            raise LabError(f"{what} does not unpack within {SECONDS} s: that is no kernel")
        yield piece


def _damaged(what: str, how: str) -> LabError:
    return LabError(f"{what} is damaged or cut short ({how}): fetch it again")


def _library(data: bytes, how: str, what: str) -> Iterator[bytes]:
    try:
        if how == "gzip":
            yield from _gzip(data)
            return
        machine: lzma.LZMADecompressor | bz2.BZ2Decompressor
        if how == "bzip2":
            machine = bz2.BZ2Decompressor()
        else:
            machine = lzma.LZMADecompressor(
                lzma.FORMAT_XZ if how == "xz" else lzma.FORMAT_ALONE, memlimit=_MEMORY)
        view = memoryview(data)
        at = 0
        while not machine.eof:
            fed = view[at:at + _CHUNK] if machine.needs_input else b""
            at += len(fed)
            if machine.needs_input and not fed:
                raise EOFError
            yield machine.decompress(fed, _CHUNK)
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as err:
        raise _damaged(what, how) from err


def _gzip(data: bytes) -> Iterator[bytes]:
    machine = zlib.decompressobj(31)
    view = memoryview(data)
    at, rest = 0, b""
    while not machine.eof:
        fed: bytes | memoryview = rest
        if not rest:
            fed = view[at:at + _CHUNK]
            at += len(fed)
        if not fed:
            raise EOFError
        piece = machine.decompress(fed, _CHUNK)
        rest = machine.unconsumed_tail
        yield piece


def _program(data: bytes, how: str, what: str, deadline: float) -> Iterator[bytes]:
    command = _PROGRAMS[how]
    for program, package in (("prlimit", "util-linux"), (command[0], command[0])):
        if not shutil.which(program):
            raise LabError(f"{program} is missing, and {what} is compressed with {how}: "
                           f"install Debian's {package}")
    with tempfile.TemporaryFile() as packed:
        packed.write(data)
        packed.seek(0)
        process = subprocess.Popen(
            ["prlimit", f"--as={_MEMORY}", f"--cpu={SECONDS}", *command], stdin=packed,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C"})
        assert process.stdout is not None
        try:
            while True:
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                    raise LabError(f"{what} does not unpack within {_WALL} s: free this machine of "
                                   "other work, or it is no kernel")
                piece = os.read(process.stdout.fileno(), _CHUNK)
                if not piece:
                    break
                yield piece
            status = process.wait(timeout=max(1.0, deadline - time.monotonic()))
        finally:
            process.send_signal(signal.SIGKILL)
            process.stdout.close()
            process.wait()
    if status in (-signal.SIGXCPU, -signal.SIGKILL):
        raise LabError(f"{what} does not unpack within {SECONDS} s: that is no kernel")
    if status:
        raise _damaged(what, how)
