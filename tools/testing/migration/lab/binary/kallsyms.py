# SPDX-License-Identifier: GPL-2.0
"""Finds the kernel's own symbol table (kallsyms) in an image, and reads it.

scripts/kallsyms writes the table into .rodata, without any mark that says where it is.  It is a few
arrays, each aligned:

    until 6.3   addresses | offsets + base, count, names, markers, [order], tokens, index
    from 6.4    count, names, markers, tokens, index, addresses | offsets + base, [order]

- tokens: 256 strings, most often a piece of names each.  Every character that occurs in a name
  stands for itself, so the digits are always there, one after the other: they are what is
  searched for.
- index: where each of the 256 strings starts.  It must agree with the strings, so what was found
  by chance is rejected.
- names: of each symbol the length, and as many bytes that are numbers of tokens.  The first letter
  is the symbol's kind.  From 6.1 on a length of 128 and more has two bytes.
- markers: where each 256th name starts.  8 bytes each until 4.19, 4 from 4.20 on.  They must agree
  with the names.
- addresses: 8 bytes each, or (from 4.6 on) offsets of 4 bytes, to be added to a base.  With
  KALLSYMS_ABSOLUTE_PERCPU those that are not negative are addresses, and the others count down
  from the base.  From 7.x on there is no base: an offset is relative to its own place.

An array counts as found only if it agrees with the others; so a table is read in full or not at
all.

Programs that do this exist (drgn wants debugging information or a core, crash a vmlinux,
vmlinux-to-elf guesses more than is wanted of something that must not be wrong); Debian has none
that reads an image without either.
"""

import re
import struct
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from lab.binary.image import Symbol

# Two dozen tables in one file are not an image but an attempt to keep the reader busy.
_TRIES = 24
# Of a processor: a kernel takes one or two.
_SECONDS = 15
# Beyond any kernel: Debian's have up to 250,000 symbols.
_MOST = 1 << 22
_DIGITS = b"".join(bytes((digit, 0)) for digit in b"0123456789")
# What 256 names take at least and at most: two bytes a name, and 2 + 0x3fff.
_STEP = (256 * 2, 256 * 0x4001)
# The lower half belongs to programs.
_KERNEL = 1 << 63
_PRINTABLE = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class Table:
    """What the image's kallsyms says."""

    symbols: list[Symbol]
    # The place in the data of a base that is 0 there, because only a relocation gives its value:
    # then the addresses are relative to an unknown base.  None where they are whole.
    base_at: int | None = None
    # Whether the addresses are relative to where the table is.
    moves: bool = False


@dataclass(frozen=True)
class _Tokens:
    start: int
    end: int                # behind the index
    texts: list[str]


@dataclass(frozen=True)
class _Names:
    start: int
    count: int
    names: list[str]        # each with its kind before it


def read(data: bytes, address: int) -> Table | None:
    """The table in `data`, which the kernel has at `address`; None where there is none."""
    deadline = time.thread_time() + _SECONDS
    for number, tokens in enumerate(_tokens(data)):
        if number == _TRIES:
            break
        for names in _names(data, tokens, deadline):
            if table := _table(data, address, tokens, names):
                return table
    return None


def _align(value: int, to: int) -> int:
    return (value + to - 1) // to * to


# ---- tokens --------------------------------------------------------------------------------


def _tokens(data: bytes) -> Iterator[_Tokens]:
    at = data.find(_DIGITS)
    while at >= 0:
        end = at
        for _token in range(ord("0"), 256):
            # A token is at most a whole name.
            end = data.find(b"\0", end, end + 1024) + 1
            if not end:
                break
        if end:
            for align in (8, 4):
                if found := _indexed(data, at, end, _align(end, align)):
                    yield found
                    break
        at = data.find(_DIGITS, at + 1)


def _indexed(data: bytes, digits: int, end: int, index_at: int) -> _Tokens | None:
    """The tokens that end at `end`, if an index of them is at `index_at`."""
    if index_at + 512 > len(data):
        return None
    index = struct.unpack_from("<256H", data, index_at)
    start = digits - index[ord("0")]
    if index[0] or start < 0:
        return None
    strings = data[start:end].split(b"\0")
    if len(strings) != 257:
        return None
    at = 0
    for string, where in zip(strings, index):
        if where != at:
            return None
        at += len(string) + 1
    return _Tokens(start, index_at + 512, [string.decode("latin-1") for string in strings[:256]])


# ---- names ---------------------------------------------------------------------------------


def _names(data: bytes, tokens: _Tokens, deadline: float) -> Iterator[_Names]:
    """The names whose markers are before the tokens."""
    # The markers end there, or (6.2 and 6.3) 3 bytes a symbol before.
    for reach in (1 << 16, 1 << 22):
        for width in (4, 8):
            for start, markers in _markers(data, max(0, tokens.start - reach), tokens.start, width):
                if time.thread_time() > deadline:
                    return
                if found := _named(data, start, markers, tokens.texts):
                    yield found


def _markers(data: bytes, low: int, high: int, width: int) -> Iterator[tuple[int, list[int]]]:
    """Runs of numbers that start with 0 and could be markers, the last first, and their places."""
    low = _align(low, 8)
    words = array("I" if width == 4 else "Q")
    words.frombytes(data[low:low + (high - low) // width * width])
    runs: list[tuple[int, int]] = []
    first, before = -1, 0
    for number, word in enumerate(words):
        if first >= 0 and not _STEP[0] <= word - before <= _STEP[1]:
            if number - first > 1:
                runs.append((first, number))
            first = -1
        if word == 0:
            first = number
        before = word
    if first >= 0 and len(words) - first > 1:
        runs.append((first, len(words)))
    for first, behind in sorted(runs, key=lambda run: run[0] - run[1])[:8]:
        yield low + first * width, list(words[first:behind])


def _named(data: bytes, markers_at: int, markers: list[int], tokens: list[str]) -> _Names | None:
    """The names that end at `markers_at` and agree with `markers`."""
    most = len(markers) * 256
    if most > _MOST:
        return None
    high = markers_at - markers[-1]
    # The last marker is followed by at most 256 names; few of these are long.
    for start in range(high // 4 * 4, max(8, high - 256 * 512), -4):
        # A count of 4 bytes before the names; or of 8, or of 4 with 4 to align the names.
        count, = struct.unpack_from("<I", data, start - 4)
        if count == 0:
            count, = struct.unpack_from("<I", data, start - 8)
        if not most - 256 < count <= most:
            continue
        names = _walk(data, start, count, markers, tokens)
        if names and _align(names[1], 8) >= markers_at >= names[1]:
            return _Names(start, count, names[0])
    return None


def _walk(data: bytes, start: int, count: int, markers: list[int],
          tokens: list[str]) -> tuple[list[str], int] | None:
    """The `count` names from `start` on, and where they end."""
    at, size = start, len(data)
    found: list[str] = []
    for number in range(count):
        if not number & 255 and at - start != markers[number >> 8]:
            return None
        if at + 1 >= size:
            return None
        length = data[at]
        at += 1
        if length >= 128:
            length = length & 127 | data[at] << 7
            at += 1
        if not length or at + length > size:
            return None
        found.append("".join([tokens[byte] for byte in data[at:at + length]]))
        at += length
    return found, at


# ---- addresses -----------------------------------------------------------------------------


def _table(data: bytes, address: int, tokens: _Tokens, names: _Names) -> Table | None:
    if not all(len(name) > 1 and _PRINTABLE.fullmatch(name) for name in names.names):
        return None
    count = names.count
    for start, base_at in (
            # From 6.4 on.
            (tokens.end, _align(tokens.end + 4 * count, 8)),
            # Before: the count has 8 bytes.
            (names.start - 16 - _align(4 * count, 8), names.start - 16)):
        if start >= 0 and (table := _relative(data, names.names, start, base_at)):
            return table
    for start in (tokens.end, names.start - 8 - 8 * count):
        if start >= 0 and (table := _absolute(data, names.names, start)):
            return table
    return _placed(data, address, names.names, tokens.end)


def _array(data: bytes, code: str, count: int, start: int) -> "array[int] | None":
    values = array(code)
    end = start + count * values.itemsize
    if end > len(data):
        return None
    values.frombytes(data[start:end])
    return values


def _symbols(names: list[str], addresses: list[int]) -> list[Symbol] | None:
    """None where the addresses are not sorted, as scripts/kallsyms sorts them."""
    if any(one > other for one, other in zip(addresses, addresses[1:])):
        return None
    return [Symbol(name[1:], address, name[0]) for name, address in zip(names, addresses)]


def _relative(data: bytes, names: list[str], start: int, base_at: int) -> Table | None:
    offsets = _array(data, "I", len(names), start)
    if offsets is None or base_at + 8 > len(data):
        return None
    base, = struct.unpack_from("<Q", data, base_at)
    if base and base < _KERNEL:
        return None
    if offsets[0] == 0 and offsets[-1] != 0:
        if symbols := _symbols(names, [base + offset for offset in offsets]):
            return Table(symbols, None if base else base_at)
    if base:
        # KALLSYMS_ABSOLUTE_PERCPU.
        addresses = [offset if offset < 1 << 31 else base - 1 + (1 << 32) - offset
                     for offset in offsets]
        if addresses[-1] >= _KERNEL and (symbols := _symbols(names, addresses)):
            return Table(symbols)
    return None


def _absolute(data: bytes, names: list[str], start: int) -> Table | None:
    addresses = _array(data, "Q", len(names), start)
    if addresses is None or addresses[-1] < _KERNEL:
        return None
    symbols = _symbols(names, list(addresses))
    return Table(symbols) if symbols else None


def _placed(data: bytes, address: int, names: list[str], start: int) -> Table | None:
    offsets = _array(data, "i", len(names), start)
    if offsets is None:
        return None
    addresses = [address + start + 4 * number + offset for number, offset in enumerate(offsets)]
    if addresses[0] < 0 or addresses[-1] >= 1 << 64:
        return None
    symbols = _symbols(names, addresses)
    return Table(symbols, moves=True) if symbols else None
