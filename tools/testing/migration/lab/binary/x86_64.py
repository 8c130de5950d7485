# SPDX-License-Identifier: GPL-2.0
"""What single instructions of x86_64 do, as Capstone writes them."""

import re

from lab.binary.instruction import ZERO, Instruction, Set, Touch, capstone, number

_RIP = re.compile(r"\[rip ([+-]) (0x[0-9a-f]+|\d+)\]")
# The rest of an operand: "[rax + rdx*4 + 0x34]".
_AT = r"(?: \+ [a-z]\w*(?:\*\d)?)?(?: \+ (0x[0-9a-f]+|\d+))?\]"
_LOCKED = re.compile(rf"lock (?:inc|dec|add|sub|xadd) dword ptr \[[a-z]\w*{_AT}")
# Of some struct: not of the stack, and not of a variable.  rbp is a register as any other where
# there are no frame pointers.  Where there are, what a function has on its stack is below it.
_LOADS = re.compile(rf"dword ptr \[(?!rsp|rip)[a-z]\w*{_AT}")
_MEMORY = re.compile(rf"(byte|word|dword) ptr \[(?!rsp|rip)[a-z]\w*{_AT}")
_ANYWHERE = re.compile(r"\[(?!rsp|rip|rbp -)[a-z]\w*(?: ([+-]) (0x[0-9a-f]+|\d+))?\]")
_OWN = re.compile(r"\[(?:rsp\b|rip\b|rbp -)[^]]*\]|gs:\[[^]]*\]")
_STORES = re.compile(r"qword ptr \[(?!rsp|rip|rbp -)[a-z]\w*[^]]*\], (\w+)")
_SIZES = {"byte": 1, "word": 2, "dword": 4}
# What leads to another place, before the distance: call, jmp, jcc, lea.
_LEADS = re.compile(rb"[\xe8\xe9]|\x0f[\x80-\x8f]|\x8d[\x05\x0d\x15\x1d\x25\x2d\x35\x3d]")


def _decode(address: int, size: int, name: str, operands: str) -> Instruction:
    text = f"{name} {operands}".strip()
    *_prefixes, base = name.split()
    target = number(operands)
    if base == "call":
        return Instruction(address, size, text, base, operands, target, calls=True)
    if base == "jmp":
        return Instruction(address, size, text, base, operands, target, falls=False,
                           indirect=target is None)
    if base.startswith("j") or base.startswith("loop"):
        return Instruction(address, size, text, base, operands, target)
    if base in ("ret", "retf", "iretq", "sysretq", "hlt"):
        return Instruction(address, size, text, base, operands, falls=False)
    made = None
    if match := _RIP.search(operands):
        made = address + size + int(match[2], 0) * (-1 if match[1] == "-" else 1)
    return Instruction(address, size, text, base, operands, traps=base in ("ud2", "ud1", "ud0"),
                       makes=made)


def _counts(one: Instruction, _after: Instruction | None) -> tuple[str, int] | None:
    match = _LOCKED.match(one.text)
    return ("", int(match[1] or "0", 0)) if match else None


def _adds(one: Instruction, _after: Instruction | None) -> int:
    by = number(one.operands.rpartition(",")[2].strip())
    if one.name in ("inc", "dec"):
        by = 1
    if by is None or one.name == "xadd":
        return 0
    # It may be written without its sign.
    up = (0 < by < 1 << 31) == (one.name in ("inc", "add"))
    return 1 if up else -1


def _reads(one: Instruction) -> int | None:
    if one.name not in ("mov", "cmp", "test", "add", "sub") or one.text.startswith("lock"):
        return None
    match = _LOADS.search(one.operands)
    if not match or one.name not in ("cmp", "test") and one.operands.startswith("dword"):
        return None
    return int(match[1] or "0", 0)


def _touches(one: Instruction) -> Touch | None:
    match = _MEMORY.search(one.operands)
    # A flag is not set by counting: a count in another struct is soon found at its offset.
    if not match or one.name in ("lea", "nop", "call", "jmp") or one.text.startswith("lock"):
        return None
    stores = one.operands.startswith(match[0]) and one.name not in ("cmp", "test", "push", "bt")
    both = one.name in ("or", "and")
    return Touch(int(match[2] or "0", 0), _SIZES[match[1]], not stores or both, stores or both)


def _stores_word(one: Instruction) -> str:
    match = _STORES.fullmatch(one.operands) if one.name in ("mov", "xchg") else None
    return "" if not match else ZERO if match[1] == "0" else "word"


def _looks(one: Instruction) -> frozenset[int] | None:
    if one.name in ("lea", "nop"):
        return frozenset()
    rest = _OWN.sub("", one.operands)
    if "[" in _ANYWHERE.sub("", rest):
        return None
    return frozenset(int(match[2] or "0", 0) * (-1 if match[1] == "-" else 1)
                     for match in _ANYWHERE.finditer(rest))


def _leads(code: bytes, begin: int, targets: frozenset[int]) -> list[int]:
    places = [begin + match.end() for match in _LEADS.finditer(code)
              if begin + match.end() + 4 + int.from_bytes(
                  code[match.end():match.end() + 4], "little", signed=True) in targets]
    # As a number, which is extended by its sign.
    places += [begin + match.start() for target in targets if target >> 31 == (1 << 33) - 1
               for match in re.finditer(
                   re.escape((target & 0xffffffff).to_bytes(4, "little")), code)]
    # A short jump, of the one before or behind it.
    places += [at for target in targets for at in range(target - 129, target + 127)
               if begin <= at and at + 2 <= begin + len(code)
               and (code[at - begin] == 0xeb or code[at - begin] >> 4 == 7)
               and at + 2 + (code[at + 1 - begin] ^ 128) - 128 == target]
    return places


SET = Set(capstone("CS_ARCH_X86", "CS_MODE_64"), ("rdi", "edi"),
          ("rdi", "rsi", "rdx", "rcx", "r8", "r9"), _decode, _counts, _adds, _reads, _touches,
          _looks, _leads,
          forgets=re.compile(r"[er]ax, (?!.*\b(?:[er]ax|al)\b)|al, "),
          only_reads=re.compile(r"cmp|test|bt"),
          restores=re.compile(r"mov rax, r(?:bx|1[2-5])"),
          narrow=re.compile(r"\b(?:eax|ax|al|ah)\b"),
          widens=re.compile(r"cdqe|movsxd r\w+, eax"),
          decides=re.compile(r"(?:test|cmp) (?:.*, )?(?:[er]ax|al)\b"),
          asks=re.compile(r"test|cmp"),
          stores_word=_stores_word,
          padding=frozenset(("int3", "nop", "ud2")),
          # endbr64, and what the kernel puts there where no jump may come in.
          marks=frozenset((b"\xf3\x0f\x1e\xfa", b"\x66\x0f\x1f\x00", b"\x0f\x1f\x40\xd6")),
          returns=("__x86_return_thunk", "srso_", "retbleed_", "its_return_thunk"),
          indirect=("__x86_indirect_", "its_indirect_", "__llvm_retpoline_"),
          counts_all=True, jump=5)
