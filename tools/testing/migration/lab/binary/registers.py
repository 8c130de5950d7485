# SPDX-License-Identifier: GPL-2.0
"""What is known of registers: how far what each holds is from some pointer."""

import re

from lab.binary.instruction import Instruction, number

_MEMORY = re.compile(r"\[(\w+)(?: ([+-]) (0x[0-9a-f]+|\d+))?\]")
_BASE = re.compile(r"\[([a-z]\w*)")
# These write to all their operands, and to what stands beside them.
_CHANGES_MORE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("xchg", "xadd", "ldp", "ldpsw"), ()), "cmpxchg": ("rax",),
    **dict.fromkeys(("cmpxchg8b", "cmpxchg16b", "mul", "imul", "div", "idiv", "rdtsc", "rdmsr"),
                    ("rax", "rdx")),
    "cpuid": ("rax", "rbx", "rcx", "rdx"), "syscall": ("rax", "rcx", "r11")}
# And so do these of arm64, with what they add to their names.
_ATOMIC = re.compile(r"(?:swp|casp?|ld(?:add|clr|eor|set|[su]max|[su]min))(?:a?l?[bh]?)")
# Where arm64 adds to the register that it looks by: "[x0, #8]!", "[x0], #8".
_MOVES = re.compile(r"\[(\w+)[^]]*\](?:!|, #)")
_BRACKETS = re.compile(r"\[[^]]*\]")
_STACK = ("rsp", "rbp", "sp", "s0")
# What instructions for strings write to.
_STRINGS = re.compile(r"(?:rep\w* )?(?:movs|stos|lods|cmps|scas)[bwdq] .*\[.*")
_OF_STRINGS = ("rax", "rcx", "rsi", "rdi")
# The parts of registers: r8d, r8w, r8b; eax, ax, al, ah; edi, di, dil.
_PART = re.compile(r"r(\d+)[dwb]")
_LETTERS = re.compile(r"e?([abcd])[xlh]")
_POINTERS = re.compile(r"e?(di|si|bp|sp)l?")
# The registers of which a function has to give back what was in them.
_OUTLIVES = re.compile(r"rbx|rbp|rsp|r1[2-5]|x(?:19|2\d)|s\d+|sp")
# What stands for a function's own first argument.
OWN = 1 << 62
# Where a function keeps a register on its stack, as x86 and the others write it.
_SLOT = re.compile(r"\[(?:rsp\b|rbp - |sp\b|s0 - )[^]]*\]")
_KEEPS = re.compile(r"qword ptr (\[.*\]), (\w+)|([xast]\d+), (\[.*\])")
# Their first operand is only read.
_WRITE_NO_REGISTER = frozenset(
    "cmp test push nop str strb strh stur sturb sturh sttr sttrb sttrh stp cmn tst cbz cbnz sb sh "
    "sw beq bne blt bge bltu bgeu bgt ble bgtu bleu beqz bnez blez bgez bltz bgtz".split())
_LOADED = re.compile(r"\[([a-z]\w*)[^]]*\]$")


def outlives_call(name: str) -> bool:
    """Whether a register, or a place on the stack, has after a call what it had before."""
    return bool(_OUTLIVES.fullmatch(name) or _SLOT.fullmatch(name))


def base(operands: str) -> str:
    """The register by which an instruction looks into memory, or ""."""
    match = _BASE.search(operands)
    return match[1] if match else ""


def _forget(register: str, known: dict[str, int]) -> None:
    """A register has changed.  If it is that of the stack, its places go by other names now."""
    known.pop(register, None)
    if register in _STACK:
        for slot in [name for name in known if _SLOT.fullmatch(name)]:
            del known[slot]


def track(one: Instruction, known: dict[str, int]) -> None:
    """Note what an instruction makes of the register that it writes to."""
    if _STRINGS.fullmatch(one.text):
        for name in _OF_STRINGS:
            known.pop(name, None)
        return
    if match := _MOVES.search(one.operands):
        _forget(match[1], known)
    if one.name in _CHANGES_MORE or _ATOMIC.fullmatch(one.name):
        changed = re.findall(r"\w+", _BRACKETS.sub("", one.operands))
        for name in (*_CHANGES_MORE.get(one.name, ()), *map(whole, changed)):
            known.pop(name, None)
        return
    if one.name in ("mov", "str") and (match := _KEEPS.fullmatch(one.operands)):
        register, slot = (match[2], match[1]) if match[1] else (match[3], match[4])
        if _SLOT.fullmatch(slot):
            known.pop(slot, None)
            if register in known:
                known[slot] = known[register]
            return
    parts = [part.strip() for part in one.operands.split(",")]
    if one.name in ("push", "pop") or parts[0] in _STACK:
        _forget("sp", known)
    if not re.fullmatch(r"[a-z]\w*", parts[0]):
        return
    to = whole(parts[0])
    value: int | None = None
    if one.name == "lea" and (match := _MEMORY.fullmatch(one.operands.partition(",")[2].strip())):
        offset = int(match[3] or "0", 0) * (-1 if match[2] == "-" else 1)
        value = offset + known.get(match[1], 0)
    elif one.name == "mov" and len(parts) == 2 and parts[1] in known:
        value = known[parts[1]]
    elif one.name in ("mov", "ldr") and (slot := one.operands.partition(", ")[2].removeprefix(
            "qword ptr ")) in known and _SLOT.fullmatch(slot):
        value = known[slot]
    elif one.name in ("mov", "ldr") and (match := _LOADED.search(one.operands)) \
            and match[1] not in ("rsp", "rbp", "rip", "sp", "x29", "s0"):
        # A pointer that is kept in some struct.  On the stack can be any address.
        value = 0
    elif one.name == "add" and len(parts) == 2 and (by := number(parts[1])) is not None:
        value = known.get(to, 0) + by
    elif one.name == "add" and len(parts) == 3 and (by := number(parts[2])) is not None:
        value = known.get(parts[1], 0) + by
    elif one.name in _WRITE_NO_REGISTER:
        return
    known.pop(to, None)
    # A part of a register is no pointer.
    if value is not None and to == parts[0]:
        known[to] = value


def changes(one: Instruction, registers: set[str]) -> set[str]:
    """Which of some registers, whole ones, an instruction writes to."""
    marks = {register: number << 48 for number, register in enumerate(sorted(registers), 1)}
    known = dict(marks)
    track(one, known)
    return {register for register in registers if known.get(register) != marks[register]}


def whole(register: str) -> str:
    """The register that one is, or is a part of: "rbx" of "ebx" and "bl", "x3" of "w3"."""
    if match := _PART.fullmatch(register):
        return f"r{match[1]}"
    if match := _LETTERS.fullmatch(register):
        return f"r{match[1]}x"
    if match := _POINTERS.fullmatch(register):
        return f"r{match[1]}"
    return f"x{register[1:]}" if re.fullmatch(r"w\d+", register) else register
