# SPDX-License-Identifier: GPL-2.0
"""What single instructions of riscv64 do, as objdump writes them."""

import re

from lab.binary.instruction import ZERO, Instruction, Set, Touch, number, signed
from lab.binary.objdump import Objdump

# objdump says where a jump by a register goes, or what an "addi" makes, if the instruction before
# it has the other half.
_FAR = re.compile(r" # (0x[0-9a-f]+)")
_OFFSET = re.compile(r"(\w+),(-?\d+)\((\w+)\)")
_BRANCH = re.compile(r"b(?:eq|ne|lt|ge|gt|le)[uz]?")
_ADDS = re.compile(r"amoadd\.w(?:\.aq)?(?:\.?rl)? \w+, ?\w+, ?\((\w+)\)")
# Of some struct: not of the stack, and not of a CPU's own.  s0 is a register as any other where
# there are no frame pointers.  Where there are, what a function has on its stack is below it.
_STACK = ("sp", "tp", "gp")
_MEMORY = re.compile(r"\w+, \[(\w+) ([+-]) (0x[0-9a-f]+)\]")
_WORDS = re.compile(r"([ls])([bhw])u?")
_SIZES = {"b": 1, "h": 2, "w": 4}
_INDIRECT = re.compile(r"\((\w+)\)")
# The first byte of jal and of auipc.
_FIRST = re.compile(rb"[\x6f\xef\x17\x97]")
# How far the second half of an address may be behind the first.
_NEAR = 32


def _decode(address: int, size: int, name: str, operands: str) -> Instruction:
    text = f"{name} {operands}".strip()
    words = operands.partition(" # ")[0]
    last = words.rpartition(",")[2]
    far = _FAR.search(operands)
    target = int(far[1], 16) if far else None
    if name == "jal":
        return Instruction(address, size, text, name, operands, number(last), calls=True)
    if name == "jalr":
        return Instruction(address, size, text, name, operands, target, calls=True)
    if name == "j":
        return Instruction(address, size, text, name, operands, number(last), falls=False)
    if name == "jr":
        return Instruction(address, size, text, name, operands, target, falls=False,
                           indirect=target is None)
    if _BRANCH.fullmatch(name):
        return Instruction(address, size, text, name, operands, number(last))
    if name in ("ret", "mret", "sret"):
        return Instruction(address, size, text, name, operands, falls=False)
    # As the others write it: "ldr a0, [s1 + 0x10]", "mov a0, s1".
    if match := _OFFSET.fullmatch(words):
        offset = int(match[2])
        operands = f"{match[1]}, [{match[3]} {'-' if offset < 0 else '+'} {abs(offset):#x}]"
    else:
        operands = words.replace(",", ", ")
    name = {"ld": "ldr", "sd": "str", "mv": "mov", "addi": "add"}.get(name, name)
    return Instruction(address, size, text, name, operands, traps=name in ("ebreak", "unimp"),
                       makes=target if name == "add" else None)


def _counts(one: Instruction, _after: Instruction | None) -> tuple[str, int] | None:
    match = _ADDS.fullmatch(one.text)
    return (match[1], 0) if match else None


def _adds(_one: Instruction, _after: Instruction | None) -> int:
    return 0


def _place(one: Instruction) -> int | None:
    """How far from a register that is which it loads or stores; None for the stack, too."""
    match = _MEMORY.fullmatch(one.operands)
    if not match or match[1] in _STACK or match[1] == "s0" and match[2] == "-":
        return None
    return int(match[3], 16) * (-1 if match[2] == "-" else 1)


def _reads(one: Instruction) -> int | None:
    return _place(one) if one.name in ("lw", "lwu") else None


def _touches(one: Instruction) -> Touch | None:
    kind, place = _WORDS.fullmatch(one.name), _place(one)
    if not kind or place is None:
        return None
    return Touch(place, _SIZES[kind[2]], kind[1] == "l", kind[1] == "s")


def _stores_word(one: Instruction) -> str:
    if one.name != "str" or _place(one) is None:
        return ""
    return ZERO if one.operands.startswith("zero") else "word"


def _looks(one: Instruction) -> frozenset[int] | None:
    if (place := _place(one)) is not None:
        return frozenset((place,))
    # Atomic ones have no offset.
    if match := _INDIRECT.search(one.operands):
        return frozenset() if match[1] in _STACK else frozenset((0,))
    return frozenset()


def _leads(code: bytes, begin: int, targets: frozenset[int]) -> list[int]:
    places: list[int] = []
    # Instructions are of two or four bytes, and the second half of one may look like another: that
    # finds too much, and never too little.
    for match in _FIRST.finditer(code[::2]):
        index = match.start() * 2
        found = int.from_bytes(code[index:index + 4], "little")
        at = begin + index
        if found & 0x7f == 0x17:    # auipc
            page = at + signed(found >> 12, 20) * 4096
            if any(abs(page - target) < 1 << 12 for target in targets) and \
                    _makes(code[index:index + _NEAR], page, targets):
                places.append(at)
        elif at + _jal(found) in targets:
            places.append(at)
    # Branches reach 4 KiB, and short jumps 2 KiB.
    for target in targets:
        for at in range(max(begin, target - 4096), min(begin + len(code) - 1, target + 4096), 2):
            if _branch(int.from_bytes(code[at - begin:at - begin + 4], "little"), at) == target:
                places.append(at)
    return places


def _jal(found: int) -> int:
    return signed(found >> 31 << 20 | (found >> 12 & 0xff) << 12 | (found >> 20 & 1) << 11
                   | (found >> 21 & 0x3ff) << 1, 21)


def _branch(found: int, at: int) -> int | None:
    """Where a branch, or a short jump or branch, leads."""
    if found & 0x7f == 0x63:
        return at + signed(found >> 31 << 12 | (found >> 7 & 1) << 11 | (found >> 25 & 0x3f) << 5
                            | (found >> 8 & 0xf) << 1, 13)
    if found & 0xe003 == 0xa001:
        return at + signed((found >> 12 & 1) << 11 | (found >> 8 & 1) << 10 | (found >> 9 & 3) << 8
                            | (found >> 6 & 1) << 7 | (found >> 7 & 1) << 6 | (found >> 2 & 1) << 5
                            | (found >> 11 & 1) << 4 | (found >> 3 & 7) << 1, 12)
    if found & 0xc003 == 0xc001:
        return at + signed((found >> 12 & 1) << 8 | (found >> 5 & 3) << 6 | (found >> 2 & 1) << 5
                            | (found >> 10 & 3) << 3 | (found >> 3 & 3) << 1, 9)
    return None


def _makes(code: bytes, page: int, targets: frozenset[int]) -> bool:
    """Whether "auipc", the first of `code`, is one half of an address out of `targets`.

    The other is in a "jalr" or "addi".
    """
    register = int.from_bytes(code[:4], "little") >> 7 & 31
    others = (int.from_bytes(code[at:at + 4], "little") for at in range(4, len(code) - 3, 2))
    return any(other & 0x7f in (0x67, 0x13) and other >> 15 & 31 == register
               and page + signed(other >> 20, 12) in targets for other in others)


SET = Set(Objdump, ("a0",), tuple(f"a{number}" for number in range(8)), _decode, _counts, _adds,
          _reads, _touches, _looks, _leads,
          forgets=re.compile(r"a0, ?(?!.*\ba0\b)"),
          only_reads=re.compile(r"b(?:eq|ne|[lg][te])[uz]?|s[bhw]|str"),
          restores=re.compile(r"mv a0, ?s\d+"),
          narrow=re.compile(r"$^"), widens=None,
          decides=re.compile(r"b\w+ (?:\w+, ?)?a0\b"),
          asks=re.compile(r"b(?:eq|ne|[lg][te])[uz]?"),
          stores_word=_stores_word,
          padding=frozenset(("nop", "unimp")), marks=frozenset(),
          # Most numbers are put together by several instructions.
          whole_numbers=False)
