# SPDX-License-Identifier: GPL-2.0
"""What single instructions of arm64 do, as Capstone writes them."""

import dataclasses
import re
import struct
from collections.abc import Sequence

from lab.binary.instruction import ZERO, Instruction, Set, Table, Touch, capstone, number, signed

# By one instruction, or by a loop: "ldxr w0, [x1]", "add w0, w0, #1", "stxr w2, w0, [x1]".  Which
# of them runs, the kernel finds out when it boots.
_ADDS = re.compile(r"(?:ld|st)add(?:a|l|al)? (?:w\w+, )?w\w+, \[(x\d+)\]")
_LOOP = re.compile(r"ldxr (w\d+), \[(x\d+)\]")
# Of some struct: not of the stack.
_LOADS = re.compile(r"ldr w\d+, \[x(?!29)\d+(?:, #(0x[0-9a-f]+|\d+))?\]")
_MEMORY = re.compile(r"\[(\w+)(?:, #(-?(?:0x[0-9a-f]+|\d+)))?\]")
_WORDS = re.compile(r"(ld|st)(?:u|l|a|apu?)?r(s?[bhw])? ([wx])")
_DOES = ("add", "clr", "eor", "set", "smax", "smin", "umax", "umin")
_SIZES = {"b": 1, "h": 2, "w": 4}
_STACK = ("sp", "x29")
# How far a made address may be behind the instruction that begins it.
_NEAR = 64
# The last byte of b and bl; of b.cond, cbz and cbnz; of tbz and tbnz; of adr; of adrp.
_FAR = re.compile(rb"[\x14-\x17\x94-\x97]")
_SHORT = re.compile(rb"[\x54\x34\x35\xb4\xb5\x36\x37\xb6\xb7\x10\x30\x50\x70]")
_STORES = re.compile(r"(x\w+), \[(?!sp|x29)x\d+[^]]*\].*")
_PAGE = re.compile(rb"[\x90\xb0\xd0\xf0]")


def _unknown(data: str) -> tuple[str, str] | None:
    """Name and operands of what Capstone 4 takes for data.

    That is all that ARMv8.1 adds to access memory, and what looks into that of a program.
    """
    found = int.from_bytes(bytes(int(byte, 16) for byte in data.split(", ")), "little")
    wide = "wx"[found >> 30 & 1]
    one, other, base = found >> 16 & 31, found & 31, f"[{_register('x', found >> 5 & 31)}]"
    operands = f"{_register(wide, one)}, {_register(wide, other)}, {base}"
    if found & 0x3f200c00 == 0x38200000:
        if found >> 15 & 1:
            return ("swp", operands) if found >> 12 & 7 == 0 else None
        return "ld" + _DOES[found >> 12 & 7], operands
    if found & 0x3f200c00 == 0x38000800:
        name = ("sttr", "ldtr", "ldtrs", "ldtrs")[found >> 22 & 3] + ("b", "h", "", "")[found >> 30]
        return name, f"{_register(wide, other)}, {base[:-1]}, #{signed(found >> 12 & 0x1ff, 9)}]"
    if found & 0x3fa07c00 == 0x08a07c00:
        return "cas", operands
    if found & 0xbfa07c00 == 0x08207c00:
        return "casp", ", ".join(_register(wide, number) for number in (
            one, one + 1, other, other + 1)) + f", {base}"
    return None


def _register(kind: str, index: int) -> str:
    # 31 is the stack's where it is an address, and else none.
    return f"{kind}{index}" if index < 31 else "sp" if kind == "x" else "wzr"


def _decode(address: int, size: int, name: str, operands: str) -> Instruction:
    if name == ".byte" and size == 4 and (known := _unknown(operands)):
        name, operands = known
    text = f"{name} {operands}".strip()
    last = number(operands.rpartition(",")[2].strip())
    if name == "bl":
        return Instruction(address, size, text, name, operands, last, calls=True)
    if name in ("blr", "blraa", "blraaz", "blrab", "blrabz"):
        return Instruction(address, size, text, name, operands, calls=True)
    if name == "b":
        return Instruction(address, size, text, name, operands, last, falls=False)
    if name.startswith("b.") or name in ("cbz", "cbnz", "tbz", "tbnz"):
        return Instruction(address, size, text, name, operands, last)
    if name in ("br", "braa", "braaz", "brab", "brabz"):
        return Instruction(address, size, text, name, operands, falls=False, indirect=True)
    if name in ("ret", "retaa", "retab", "eret"):
        return Instruction(address, size, text, name, operands, falls=False)
    return Instruction(address, size, text, name, operands, traps=name in ("brk", "udf"),
                       makes=last if name == "adr" else None)


def _follow(one: Instruction, pages: dict[str, int]) -> Instruction:
    """ "adrp x0, #0x1000" and "add x0, x0, #0x234" make 0x1234."""
    registers, loads, _ = one.operands.partition("[")
    parts = [part.strip() for part in registers.split(",")]
    page = pages.get(parts[1]) if one.name == "add" and len(parts) == 3 else None
    offset = number(parts[-1])
    # A call may change it; what begins elsewhere may not have it.
    if one.calls or not one.falls:
        pages.clear()
    for part in parts if loads else parts[:1]:
        pages.pop(part, None)
    if one.name == "adrp" and offset is not None:
        pages[parts[0]] = offset
    if page is None or offset is None:
        return one
    return dataclasses.replace(one, makes=page + offset)


def _counts(one: Instruction, after: Instruction | None) -> tuple[str, int] | None:
    if match := _ADDS.fullmatch(one.text):
        return match[1], 0
    match = _LOOP.fullmatch(one.text)
    adds = match and after and after.name in ("add", "sub") \
        and match[1] in after.operands.split(", ")[1:]
    return (match[2], 0) if match and adds else None


def _adds(one: Instruction, after: Instruction | None) -> int:
    # One instruction adds what is in a register, and what comes after it is no part of that.
    if not after or not _LOOP.fullmatch(one.text):
        return 0
    by = number(after.operands.rpartition(",")[2].strip())
    if by is None or by <= 0:
        return 0
    return {"add": 1, "sub": -1}.get(after.name, 0)


def _reads(one: Instruction) -> int | None:
    match = _LOADS.fullmatch(one.text)
    return int(match[1] or "0", 0) if match else None


def _touches(one: Instruction) -> Touch | None:
    kind, place = _WORDS.match(one.text), _MEMORY.search(one.operands)
    if not kind or not place or place[1] in _STACK or kind[3] == "x" and not kind[2]:
        return None
    size = _SIZES[(kind[2] or "w")[-1]]
    return Touch(int(place[2] or "0", 0), size, kind[1] == "ld", kind[1] == "st")


def _stores_word(one: Instruction) -> str:
    match = _STORES.fullmatch(one.operands) if one.name in ("str", "stlr", "stur") else None
    return "" if not match else ZERO if match[1] == "xzr" else "word"


def _looks(one: Instruction) -> frozenset[int] | None:
    if "[" not in one.operands or one.name.startswith("prf"):
        return frozenset()
    place = _MEMORY.search(one.operands)
    if not place:
        return None if not one.operands.partition("[")[2].startswith("sp") else frozenset()
    if place[1] in _STACK:
        return frozenset()
    at = int(place[2] or "0", 0)
    pair = one.name in ("ldp", "stp", "ldpsw", "ldnp", "stnp", "ldxp", "stxp", "ldaxp", "stlxp")
    wide = 8 if one.operands.startswith("x") else 16 if one.operands.startswith("q") else 4
    return frozenset((at, at + wide) if pair else (at,))


def _leads(code: bytes, begin: int, targets: frozenset[int]) -> list[int]:
    places: list[int] = []
    last = code[3::4]
    words = memoryview(code[:len(code) // 4 * 4])

    def word(index: int) -> int:
        return int(struct.unpack_from("<I", words, index * 4)[0])

    for match in _FAR.finditer(last):
        at = begin + match.start() * 4
        if at + signed(word(match.start()) & 0x3ffffff, 26) * 4 in targets:
            places.append(at)
    # These reach 1 MiB at most.
    for target in targets:
        middle = (target - begin) // 4
        for match in _SHORT.finditer(last, max(0, middle - (1 << 18)), max(0, middle + (1 << 18))):
            at = begin + match.start() * 4
            if _short(word(match.start()), at) == target:
                places.append(at)
    pages = {target & ~0xfff for target in targets}
    for match in _PAGE.finditer(last):
        index = match.start()
        at, found = begin + index * 4, word(index)
        page = (at & ~0xfff) + (signed((found >> 5 & 0x7ffff) << 2 | found >> 29 & 3, 21) << 12)
        if page in pages and _makes([word(one) for one in range(index, min(
                index + _NEAR, len(last)))], page, targets):
            places.append(at)
    return places


def _short(found: int, at: int) -> int:
    """Where a branch with a condition leads, or what an "adr" makes."""
    if found >> 24 & 0x1f == 0x10:      # adr
        return at + signed((found >> 5 & 0x7ffff) << 2 | found >> 29 & 3, 21)
    if found >> 24 & 0x7e == 0x36:      # tbz, tbnz
        return at + signed(found >> 5 & 0x3fff, 14) * 4
    return at + signed(found >> 5 & 0x7ffff, 19) * 4


def _makes(words: Sequence[int], page: int, targets: frozenset[int]) -> bool:
    """Whether "adrp", the first of `words`, is one half of an address out of `targets`."""
    return any(found >> 22 == 0x244 and found >> 5 & 31 == words[0] & 31
               and page + (found >> 10 & 0xfff) in targets for found in words[1:])


SET = Set(capstone("CS_ARCH_ARM64", "CS_MODE_ARM"), ("x0", "w0"),
          tuple(f"x{number}" for number in range(8)), _decode, _counts, _adds, _reads, _touches,
          _looks, _leads,
          forgets=re.compile(r"[wx]0, (?!.*\b[wx]0\b)"),
          # Stores that may fail write to their first; atomic ones what they find to their second.
          only_reads=re.compile(r"cmp|cmn|tst|ccmp|ccmn|cbn?z|tbn?z|st(?!l?x).*|swp.*"
                                r"|ld(?:add|clr|eor|set|[su]max|[su]min).*"),
          restores=re.compile(r"mov x0, x(?:19|2\d)"),
          narrow=re.compile(r"\bw0\b"), widens=re.compile(r"sxtw x\d+, w0"),
          decides=re.compile(r"(?:cmp|cmn|tst|cbn?z|tbn?z|subs|ands) (?:.*, )?[wx]0\b"),
          asks=re.compile(r"cmp|cmn|tst|cbn?z|tbn?z|subs|ands"),
          stores_word=_stores_word,
          padding=frozenset(("nop", "udf")),
          # bti c, bti jc, paciasp
          marks=frozenset((b"\x5f\x24\x03\xd5", b"\xdf\x24\x03\xd5", b"\x3f\x23\x03\xd5")),
          follow=_follow,
          # Those of more than 16 bits may be put together by several instructions.
          whole_numbers=False,
          # struct alt_instr: where, by what, of which CPUs, its size, the other's.
          patched=Table("__alt_instructions", "__alt_instructions_end", "<iiHBB", 4))
