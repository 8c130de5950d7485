# SPDX-License-Identifier: GPL-2.0
"""Decides by an image's code whether it has a defect: the [binary] section of a defect.toml.

`unaffected`, `protected` and `vulnerable` are lists of forms.  A form is what must all be seen,
separated by semicolons, to say so of an image.  What no form fits is unknown, and so is what fits
both a form of `protected` and one of `vulnerable`: a rule that was not seen to be true is not a
rule that is false.

F and G stand for functions; "a|b" is the first of them that the image has for F, and any of them
for G, which may be a pattern of the shell.  A function that was inlined is looked for in the one
that it was inlined into: name that last.

    there is F              one of them is there
    there is no F           none of them is
    F calls G               there is a direct call, or a jump as its last act, that can be reached
    F calls G with its own  the first argument is that which F was called with
    F calls G given N       each time one argument is this number, set right before it
    F calls H after G given N third     each H that can come after a call of G has this number as its
                            third argument, set right before it; and some do come
    F comes to H by bit N that G tests  of some struct it loads a word, at an offset where G loads
                            one and decides by this bit of it; so does F, and on one of the two ways
                            from there the next call, if it is one by name, is one of H
    F tests no bit N before H       nor in what may come before the first call of H; it calls one, and
                            all of it could be read
    F calls none of G       nor in code that is entered by other ways, and all of it could be read
    F calls G then H        a call of H can come after one of G, in the same round of a loop; not
                            on a way over a trap, which may be a BUG()
    F calls G then H with the same      both have the same first argument, as far as it can be told
    F calls no H after G    none can, of all that could be read; and G is called
    F calls G before H      whoever comes to H has passed G
    F calls H without G     there is a way to H that does not pass G
    F calls G held at H by U    on each way to H the last that is passed of G and U is one of G
    F calls G kept to H by U    a call of H can come after one of G, and on no way from the one to
                            the first of the others is one of U passed; some ways to H may do
                            without G
    F calls no H from G to U    after a call of G none of H can come before one of U, and G is
                            called
    F heeds G               where it calls one of G, it decides by what that returns
    F heeds of a page what G counts before H    it loads or compares an int at the offset of some
                            struct where G counts, not behind a pointer that it has from a struct,
                            decides by it, and a call of H can come after that and none before
    F widens what G returns     each time it extends the sign of an int
    F passes on what G returns  each time it returns that as it is, all 64 bits
    F clears before G       whoever comes to G has passed a store of a word to what a pointer leads
                            to, or an indirect call, by which it may be done; and after G it stores
                            no zero so, and makes no such call
    whoever calls F calls none of G     nor do those that it was inlined into; and somebody calls F
    F calls nothing         it is there, and calls nothing at all
    only F calls G          nobody but those of F calls G, jumps to it or takes its address; not
                            even code that F was inlined into; and one of F does
    each G in F comes to H  all of F that are there, not just the first: where they call G, H can
                            come after it; and some of them do
    all of F that call G come to H with the same    as "each", and the first argument is the same,
                            as far as it can be told; or none of F calls one
    F always comes to H after G     what returns after G has passed a call of H, or a jump that
                            decides on nothing else; or it calls none of G
    F refers to G           it takes the address of G
    F uses N                a number that is an operand of an instruction
    F uses none of N        and all of it could be read; "a|b" as above
    F looks only at N       of structs, it loads and stores at no other offsets: "0|8"
    F counts what G counts  both add to or subtract from an int, by a locked instruction, at the
                            same offset of some struct
    F counts other than G   both do so, and at no common offset
    F counts before H       whoever comes to H has passed such an instruction
    F counts up what G reads held at H      on each way to H the last such instruction for one
                            offset is one that adds; and G loads or compares an int at that offset
    F counts nothing        there is no such instruction, and all of it could be read
    F sets what G tests     it stores to a place that G loads or compares, at the same offset of
                            some struct
    F reads what G counts   it loads or compares an int at such an offset
    F reads nothing that G counts
    F runs straight on      it has no loop
    F stores by its second argument     a word to where that points; "third" as well
    it is for ARCH          the architecture; "it is not for ARCH"
    a page has N KiB        by the header that an image of arm64 begins with
    the config has OPTION   of those that an image can hold; "the config has none of A|B"

G may be "f@g", a call of f whose first argument is at the same offset of some struct as that of a
call of f, or of another function that begins like it up to "_", in g: that says which lock is
taken.  For g, "a/b" is the first that is there and calls one.
"""

import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lab.binary import code
from lab.binary.code import Call, Code, Function
from lab.binary.instruction import ZERO, number, values
from lab.binary.registers import changes, outlives_call, whole
from lab.errors import LabError



@dataclass(frozen=True)
class Seen:
    """Whether something was seen, and where."""

    true: bool
    places: tuple[str, ...] = ()


NOT_SEEN = Seen(False)


@dataclass(frozen=True)
class Condition:
    """One of the lines above."""

    text: str
    look: Callable[[Code], Seen]


def parse(form: str, names: Sequence[str] = ()) -> list[Condition]:
    """The conditions of a form.  LabError for one that is none.

    `names` are lines "NAME = what stands for it", a word of capitals each.
    """
    for line in names:
        name, equals, meaning = line.partition(" = ")
        if not equals or not re.fullmatch(r"[A-Z][A-Z_]+", name) or not meaning.strip():
            raise LabError(f"{line}: that is no name; NAME = what stands for it")
        form = re.sub(rf"\b{name}\b", meaning.strip().replace("\\", r"\\"), form)
    return [_condition(" ".join(part.split())) for part in form.split(";")]


def fits(form: str, image: Code, names: Sequence[str] = ()) -> Seen:
    """Whether all that a form asks for is to be seen in an image."""
    places: list[str] = []
    for condition in parse(form, names):
        seen = condition.look(image)
        if not seen.true:
            return NOT_SEEN
        places += seen.places
    return Seen(True, tuple(dict.fromkeys(places)))


# Of functions, and of calls of them.
_ONE = r"[\w*]+(?:@\w+(?:/\w+)*)?"
_F = r"(?P<f>\w+(?:\|\w+)*)"
_N = r"(?P<n>-?\w+(?:\|-?\w+)*)"
_G, _H, _U = (rf"(?P<{name}>{_ONE}(?:\|{_ONE})*)" for name in "ghu")


def _condition(text: str) -> Condition:
    for pattern, make in _FORMS:
        if match := re.fullmatch(pattern, text):
            words = match.groupdict()
            return Condition(text, lambda image: make(image, **words))
    raise LabError(f"{text}: that is no condition; see lab/binary/rules.py")


def _split(names: str) -> list[str]:
    return names.split("|")


def _functions(image: Code, names: str) -> list[Function]:
    """The copies of the first function that is there."""
    for name in _split(names):
        if image.has(name):
            return image.functions(name)
    return []


def _own(image: Code, f: str, look: Callable[[Function], Seen]) -> Seen:
    """The same of what a function does by itself, and not by a call.

    Where functions of other files may be inlined into it, it may be they who do it.
    """
    return NOT_SEEN if image.inlines_across_files else _all(image, f, look)


def _all(image: Code, f: str, look: Callable[[Function], Seen]) -> Seen:
    """What is seen in each copy of a function: one that lacks it is enough to say no."""
    copies = _functions(image, f)
    if not copies:
        return NOT_SEEN
    seen = [look(one) for one in copies]
    if not all(one.true for one in seen):
        return NOT_SEEN
    return Seen(True, tuple(place for one in seen for place in one.places))


def calls_of(image: Code, function: Function, g: str, maybe: bool = False) -> list[int]:
    """Where a function calls one of g, in what can be reached or not.

    With `maybe`, also where it may be that call: what is said to be called nowhere must not be
    called there either.
    """
    found: set[int] = set()
    for one in _split(g):
        name, _, like = one.partition("@")
        offsets = _offsets(image, name, like) if like else set()
        found |= {address for address, call in function.calls.items() if _named(call, name)
                  and (not like or call.displacement in offsets
                       or maybe and (call.displacement is None or not offsets))}
    return sorted(found)


def _named(call: Call, name: str) -> bool:
    if "*" in name:
        return any(fnmatch.fnmatchcase(one, name) for one in call.names)
    return name in call.names


def _offsets(image: Code, name: str, like: str) -> set[int]:
    kind = name.partition("_")[0]
    for where in like.split("/"):
        if found := {call.displacement for one in image.functions(where)
                     for call in one.calls.values() if call.displacement is not None
                     and any(other.startswith(f"{kind}_") for other in call.names)}:
            return found
    return set()


def _place(function: Function, address: int) -> str:
    """Where it is, and what is called there."""
    where = f"{function.name}+{address - function.entries[0]:#x}"
    call = function.calls.get(address)
    return f"{where} calls {min(call.names)}" if call else where


def _reached(function: Function, addresses: Iterable[int]) -> list[int]:
    return [one for one in addresses if one in function.reached]


def _first(function: Function, addresses: Sequence[int]) -> Seen:
    reached = _reached(function, addresses)
    return Seen(True, (_place(function, reached[0]),)) if reached else NOT_SEEN


def _there_is(image: Code, f: str) -> Seen:
    return Seen(any(image.has(name) for name in _split(f)))


def _there_is_no(image: Code, f: str) -> Seen:
    # Where all of a kernel is optimized together, a function may be gone by being inlined.
    return Seen(not image.inlines_across_files and image.has("handle_mm_fault")
                and not any(image.has(name) for name in _split(f)))


def _calls_it(image: Code, f: str, g: str) -> Seen:
    return _all(image, f, lambda one: _first(one, calls_of(image, one, g)))


def _calls_own(image: Code, f: str, g: str) -> Seen:
    def look(one: Function) -> Seen:
        return _first(one, [at for at in calls_of(image, one, g) if one.calls[at].own])
    return _all(image, f, look)


def _calls_given(image: Code, f: str, g: str, n: str) -> Seen:
    numbers = {int(text, 0) for text in _split(n)}

    def look(one: Function) -> Seen:
        found = _reached(one, calls_of(image, one, g))
        if not found or not all(_gives(image, one, at, numbers) for at in found):
            return NOT_SEEN
        return Seen(True, (_place(one, found[0]),))
    return _all(image, f, look)


def _gives(image: Code, one: Function, at: int, numbers: set[int],
           arguments: Sequence[str] = ()) -> bool:
    """Whether what is right before a call sets one of its arguments to one of `numbers`.

    `arguments` are the registers of those that may be meant, if not all are.
    """
    jumped = {part.target for part in one.code.values()} | {*one.entries, *one.into.values()}
    before = {part.address + part.size: part for part in one.code.values() if part.falls}
    left = set(arguments or image.set.arguments)
    while left and at not in jumped and at in before:
        part = before[at]
        at = part.address
        if part.calls or at in one.calls:
            return False
        changed = changes(part, left)
        to, _, by = part.operands.partition(",")
        if whole(to) in changed and part.name in ("mov", "movz", "li") \
                and number(by.strip()) in numbers:
            return True
        # As x86 sets a register to nothing.
        if arguments and part.name == "xor" and to == by.strip() and whole(to) in changed:
            return 0 in numbers
        left -= changed
    return False


def _calls_after_given(image: Code, f: str, h: str, g: str, n: str) -> Seen:
    numbers = {int(text, 0) for text in _split(n)}

    def look(one: Function) -> Seen:
        firsts, seconds = calls_of(image, one, g, True), calls_of(image, one, h, True)
        if not _reached(one, firsts) or not one.whole or image.inlines_across_files:
            return NOT_SEEN
        found = sorted(one.later(firsts, traps_end=False) & set(seconds))
        if not _reached(one, found) or not all(
                _gives(image, one, at, numbers, image.set.arguments[2:3]) for at in found):
            return NOT_SEEN
        return Seen(True, (_place(one, _reached(one, firsts)[0]), _place(one, found[0])))
    return _all(image, f, look)


# A load of a word of a struct, as the architectures write it: "mov rax, qword ptr [rdi + 0x20]",
# "ldr x0, [x1, #0x20]".
_LOADS_WORD = re.compile(r"(\w+), (?:(?:byte|word|dword|qword) ptr )?"
                         r"\[(?!rsp|rip|sp\b|x29|gs|fs)(\w+)(?:(?: \+ |, #)(0x[0-9a-f]+|\d+))?\]")
_LOADS = re.compile(r"mov|movzx|movsx|ldr|ldrb|ldrh|ldrsw|lw|lwu|lb|lbu|lh|lhu")
_TESTS_MEMORY = re.compile(r"(?:byte|word|dword|qword) ptr \[(?!rsp|rip|gs|fs)(\w+)"
                           r"(?: \+ (0x[0-9a-f]+|\d+))?\], (-?(?:0x[0-9a-f]+|\d+))")
_SECOND = ("ah", "bh", "ch", "dh")
# By these the highest bit of a byte is looked at.
_BY_SIGN = ("js", "jns", "jl", "jge")
# What may be called on the way to make an entry another one.
_PASSED = re.compile(r"(?:huge_)?ptep_get|huge_pte_\w+|pte_mk\w+|__stack_chk_fail")


def _jumps(one: Function, at: int) -> bool:
    part = one.code[at]
    return part.target is not None and part.falls and not part.calls


def _decided(one: Function, at: int, by_sign: bool, register: str = "") -> int | None:
    """Where it is decided by what an instruction tests, if that is the next decision."""
    for _ in range(8):
        steps = _following(one, at)
        if len(steps) != 1:
            return None
        at = steps[0]
        part = one.code[at]
        if _jumps(one, at):
            named = {whole(word) for word in re.findall(r"\w+", part.operands)}
            fits_it = register in named if register else by_sign == (part.name in _BY_SIGN)
            return at if fits_it else None
        # What tests something else, or may.
        if at in one.calls or part.calls or not re.fullmatch(
                r"movz?x?|movabs|lea|ldr|str|stp|ldp|push|nop|li|lw|lui|auipc|adrp", part.name):
            return None
    return None


def _tests_in_register(one: Function, at: int, register: str, bit: int) -> int | None:
    """Where it is decided by this bit of a register, if the instruction tests that."""
    part = one.code[at]
    words = [word.strip() for word in part.operands.split(",")]
    mask = 1 << bit
    # The second byte of a register: these are other bits.
    if words[0] in _SECOND:
        return None
    if part.name in ("tbz", "tbnz"):
        return at if whole(words[0]) == register and number(words[1]) == bit else None
    if part.name == "test" and len(words) == 2 and whole(words[0]) == register:
        if number(words[1]) == mask:
            return _decided(one, at, False)
        byte = bit == 7 and words[0] == words[1] and re.fullmatch(r"[abcd]l|\w+b|(?:[sd]i|bp)l",
                                                                  words[0])
        return _decided(one, at, True) if byte else None
    if part.name == "bt" and whole(words[0]) == register and number(words[1]) == bit:
        return _decided(one, at, False)
    if part.name == "tst" and whole(words[0]) == register and number(words[1]) == mask:
        return _decided(one, at, False)
    if part.name in ("and", "andi") and number(words[-1]) == mask and whole(words[-2]) == register:
        return _decided(one, at, False, "" if len(words) == 2 else whole(words[0]))
    return None


def _bit_tests(one: Function, bit: int) -> dict[int, int]:
    """Where a function decides by a bit of a word of some struct, and at which offset that is."""
    found: dict[int, int] = {}
    for at, part in one.code.items():
        match = _TESTS_MEMORY.fullmatch(part.operands)
        if match and part.name in ("test", "cmp"):
            by = number(match[3])
            sign = part.name == "cmp" and by == 0 and bit == 7 and part.operands.startswith("byte")
            where = _decided(one, at, sign) if sign or part.name == "test" and by == 1 << bit \
                else None
            if where is not None:
                found[where] = int(match[2] or "0", 0)
        match = _LOADS_WORD.fullmatch(part.operands)
        if not match or not _LOADS.fullmatch(part.name):
            continue
        register, seen, steps = whole(match[1]), {at}, _following(one, at)
        while steps:
            to = steps.pop()
            if to in seen:
                continue
            seen.add(to)
            where = _tests_in_register(one, to, register, bit)
            if where is not None:
                found[where] = int(match[3] or "0", 0)
            other = one.code[to]
            called = to in one.calls or other.calls
            # A jump writes to none.
            if called and not outlives_call(register) or \
                    not _jumps(one, to) and other.name != "tst" and changes(other, {register}):
                continue
            steps += _steps(one, to)
    return found


def _comes_by_bit(image: Code, f: str, h: str, n: str, g: str) -> Seen:
    bit = int(n, 0)
    theirs = {offset for one in _functions(image, g) for offset in _bit_tests(one, bit).values()}

    def look(one: Function) -> Seen:
        wanted = set(calls_of(image, one, h))
        other = frozenset(at for at, call in one.calls.items()
                          if not all(_PASSED.fullmatch(name) for name in call.names))
        for at, offset in sorted(_bit_tests(one, bit).items()):
            if offset not in theirs or at not in one.reached:
                continue
            for way in _steps(one, at):
                found = code.after(one, [way], other | wanted) & (other | wanted)
                if found and found <= wanted:
                    return Seen(True, (f"{_place(one, at)} decides by what {g} tests",
                                       _place(one, min(found))))
        return NOT_SEEN
    return _own(image, f, look)


def _tests_no_bit(image: Code, f: str, n: str, h: str) -> Seen:
    bit = int(n, 0)

    def look(one: Function) -> Seen:
        seconds = calls_of(image, one, h, True)
        if not _reached(one, seconds) or not one.whole or one.into:
            return NOT_SEEN
        early = code.after(one, [*one.entries, *one.hidden], frozenset(seconds))
        if any(_may_test(one, at, bit) for at in early):
            return NOT_SEEN
        return Seen(True, (f"{one.name} tests no such bit before {_place(one, min(seconds))}",))
    return _own(image, f, look)


def _may_test(one: Function, at: int, bit: int) -> bool:
    """Whether an instruction may ask for a bit of something, alone or with others."""
    part = one.code[at]
    words = [word.strip() for word in part.operands.split(",")]
    if part.name in ("tbz", "tbnz", "bt"):
        return number(words[1]) in (bit, None)
    if part.name in ("ubfx", "sbfx", "bfi", "shr", "sar", "lsr", "srl", "srli", "sll", "slli"):
        return number(words[-1] if part.name not in ("ubfx", "sbfx") else words[2]) == bit
    if part.name in ("test", "and", "tst", "ands", "andi"):
        by = number(words[-1])
        if by is not None and words[0] in _SECOND:
            by <<= 8
        if by is not None:
            return 0 < by < 1 << 16 and bool(by >> bit & 1)
    # What looks at a sign may look at that of a byte.
    if part.name in _BY_SIGN and bit == 7:
        before = [other for other in one.code.values() if other.falls
                  and other.address + other.size == at]
        return not before or "byte" in before[0].operands or bool(re.match(
            r"(?:[abcd]l|\w+b|(?:[sd]i|bp)l)\b", before[0].operands))
    return False


def _calls_none(image: Code, f: str, g: str) -> Seen:
    def look(one: Function) -> Seen:
        if image.inlines_across_files or not one.whole or calls_of(image, one, g, True):
            return NOT_SEEN
        return Seen(True, (f"{one.name} calls no {g.replace('|', ', ')}",))
    return _all(image, f, look)


def _calls_then(image: Code, f: str, g: str, h: str) -> Seen:
    def look(one: Function) -> Seen:
        firsts, seconds = (_reached(one, calls_of(image, one, names)) for names in (g, h))
        later = one.later(firsts, traps_end=True)
        found = [call for call in seconds if call in later]
        return Seen(True, (_place(one, firsts[0]), _place(one, found[0]))) if found else NOT_SEEN
    return _all(image, f, look)


def _calls_then_same(image: Code, f: str, g: str, h: str) -> Seen:
    def look(one: Function) -> Seen:
        firsts, seconds = (_reached(one, calls_of(image, one, names)) for names in (g, h))
        for first in firsts:
            argument = one.calls[first].displacement
            later = one.later([first], traps_end=True)
            for second in seconds:
                if second in later and argument is not None \
                        and one.calls[second].displacement == argument:
                    return Seen(True, (_place(one, first), _place(one, second)))
        return NOT_SEEN
    return _all(image, f, look)


def _calls_not_after(image: Code, f: str, h: str, g: str) -> Seen:
    def look(one: Function) -> Seen:
        firsts, seconds = calls_of(image, one, g), calls_of(image, one, h, True)
        if not firsts or not one.whole or image.inlines_across_files or one.into or \
                one.later([*firsts, *one.hidden], traps_end=False) & set(seconds):
            return NOT_SEEN
        return Seen(True, (_place(one, firsts[0]),))
    return _all(image, f, look)


def _each_comes_to(image: Code, g: str, f: str, h: str) -> Seen:
    places: list[str] = []
    for one in [copy for name in _split(f) for copy in image.functions(name)]:
        firsts, seconds = (calls_of(image, one, names) for names in (g, h))
        for call in firsts:
            later = one.later([call], traps_end=True)
            found = [after for after in seconds if after in later]
            if not found:
                return NOT_SEEN
            places.append(_place(one, found[0]))
        if not one.whole:
            return NOT_SEEN
    return Seen(bool(places), tuple(places))


def _all_come_same(image: Code, g: str, f: str, h: str) -> Seen:
    places: list[str] = []
    for one in [copy for name in _split(f) for copy in image.functions(name)]:
        firsts, seconds = (calls_of(image, one, names) for names in (g, h))
        for call in firsts:
            argument, later = one.calls[call], one.later([call], traps_end=True)
            found = [at for at in seconds if at in later and (
                argument.own == one.calls[at].own if argument.own or one.calls[at].own
                else argument.displacement in (None, one.calls[at].displacement)
                or one.calls[at].displacement is None)]
            if not found:
                return NOT_SEEN
            places.append(_place(one, found[0]))
        if not one.whole:
            return NOT_SEEN
    return Seen(True, tuple(places))


def _always_comes(image: Code, f: str, h: str, g: str) -> Seen:
    def look(one: Function) -> Seen:
        firsts, seconds = calls_of(image, one, g, True), _reached(one, calls_of(image, one, h))
        if not seconds or not one.whole or image.inlines_across_files:
            return NOT_SEEN
        stop = frozenset(seconds) | {at for at, part in one.code.items()
                                     if part.target in one.code and part.falls and not part.calls
                                     and any(_straight_to(one, to, seconds)
                                             for to in _steps(one, at))}
        late = code.after(one, [to for at in firsts for to in _following(one, at)], stop)
        if any(_leaves(one, at) for at in late - stop):
            return NOT_SEEN
        return Seen(True, (_place(one, seconds[0]),))
    return _all(image, f, look)


def _leaves(one: Function, at: int) -> bool:
    """Whether an instruction returns from a function, or jumps to another one."""
    part = one.code[at]
    return not part.falls and not part.traps and part.target not in one.code \
        and at not in one.into


def _straight_to(one: Function, at: int, ends: Sequence[int]) -> bool:
    """Whether what comes next is one of `ends`, and no other call and no decision comes before."""
    seen: set[int] = set()
    while at not in seen:
        if at in ends:
            return True
        seen.add(at)
        steps = _steps(one, at)
        if len(steps) != 1 or at in one.calls:
            return False
        at = steps[0]
    return False


def _only(image: Code, f: str, g: str) -> Seen:
    callers = image.callers(_split(g))
    if not callers or image.inlines_across_files or callers - {*_split(f), *_split(g)}:
        return NOT_SEEN
    if not callers & set(_split(f)):
        return NOT_SEEN
    return Seen(True, (f"{g.replace('|', ', ')} is called by {', '.join(sorted(callers))} alone",))


def _following(function: Function, call: int) -> list[int]:
    after = call + function.code[call].size
    return [after] if function.code[call].falls and after in function.code else []


def _calls_before(image: Code, f: str, g: str, h: str) -> Seen:
    def look(one: Function) -> Seen:
        firsts, seconds = (calls_of(image, one, names) for names in (g, h))
        if not _reached(one, firsts) or not _reached(one, seconds):
            return NOT_SEEN
        # Code that is entered by other ways may be entered at any time.
        starts = [*one.entries, *one.hidden]
        early = code.after(one, starts, frozenset(firsts))
        if not one.whole or early & set(seconds) - set(firsts):
            return NOT_SEEN
        return Seen(True, (_place(one, firsts[0]), _place(one, seconds[0])))
    return _all(image, f, look)


def _calls_without(image: Code, f: str, h: str, g: str) -> Seen:
    def look(one: Function) -> Seen:
        firsts, seconds = calls_of(image, one, g, True), calls_of(image, one, h)
        # A piece that it calls may do what is looked for, and come back.
        if not one.whole or image.inlines_across_files or one.into:
            return NOT_SEEN
        early = code.after(one, one.entries, frozenset(firsts), traps_end=True)
        found = [call for call in seconds if call in early and call not in firsts]
        return Seen(True, (_place(one, found[0]),)) if found else NOT_SEEN
    return _all(image, f, look)


def _given_up(image: Code, one: Function, u: str) -> list[int]:
    """Where a function calls one of u or may do so, itself or in a piece of it that it calls."""
    found = calls_of(image, one, u, True)
    return found + [at for at, piece in one.into.items() if code.after(one, [piece]) & set(found)]


def _coming(one: Function, addresses: Sequence[int]) -> list[int]:
    """What follows instructions.  Behind one of a piece it is also what follows a call of that."""
    found = [to for at in addresses for to in _following(one, at)]
    return found + [to for at, piece in one.into.items()
                    if one.code[at].calls and code.after(one, [piece]) & set(addresses)
                    for to in _following(one, at)]


def _calls_held(image: Code, f: str, g: str, h: str, u: str) -> Seen:
    def look(one: Function) -> Seen:
        firsts, seconds = (calls_of(image, one, names) for names in (g, h))
        # What another file does may be inlined, and then it is no call.
        if not _reached(one, firsts) or not _reached(one, seconds) or not one.whole or \
                image.inlines_across_files:
            return NOT_SEEN
        starts = [*one.entries, *one.hidden]
        for at in _given_up(image, one, u):
            starts += _following(one, at)
        if code.after(one, starts, frozenset(firsts)) & set(seconds):
            return NOT_SEEN
        return Seen(True, (_place(one, _reached(one, firsts)[0]),
                           _place(one, _reached(one, seconds)[0])))
    return _all(image, f, look)


def _calls_kept(image: Code, f: str, g: str, h: str, u: str) -> Seen:
    def look(one: Function) -> Seen:
        firsts, seconds = (_reached(one, calls_of(image, one, names)) for names in (g, h))
        if not one.whole or image.inlines_across_files:
            return NOT_SEEN
        found = set(seconds) & one.later(firsts, traps_end=True)
        # What matters is on a way from one of G to the first of H.
        between = one.later(firsts, [*firsts, *seconds], traps_end=False)
        ends = [at for at in _given_up(image, one, u) if at in between]
        if not found or one.later(ends, firsts, traps_end=False) & set(seconds):
            return NOT_SEEN
        return Seen(True, (_place(one, firsts[0]), _place(one, min(found))))
    return _all(image, f, look)


def _calls_none_from(image: Code, f: str, h: str, g: str, u: str) -> Seen:
    def look(one: Function) -> Seen:
        firsts, ends = (calls_of(image, one, names) for names in (g, u))
        if not _reached(one, firsts) or not one.whole or image.inlines_across_files:
            return NOT_SEEN
        starts = [*_coming(one, firsts), *one.hidden]
        if code.after(one, starts, frozenset(ends)) & set(calls_of(image, one, h, True)):
            return NOT_SEEN
        return Seen(True, (_place(one, _reached(one, firsts)[0]),))
    return _all(image, f, look)


_BRACKETS = re.compile(r"\[[^]]*\]")


def _heeds(image: Code, f: str, g: str) -> Seen:
    def look(one: Function) -> Seen:
        found = _reached(one, calls_of(image, one, g))
        if not found or not all(_decides(image, one, at) for at in found):
            return NOT_SEEN
        return Seen(True, (_place(one, found[0]),))
    return _all(image, f, look)


def _decides(image: Code, one: Function, at: int) -> bool:
    """Whether what a call returns is looked at before the register holds something else."""
    steps = _following(one, at)
    seen: set[int] = set()
    while len(steps) == 1 and steps[0] not in seen:
        part = one.code[steps[0]]
        seen.add(part.address)
        if part.address in one.calls or part.calls:
            return False
        if image.set.decides.match(_BRACKETS.sub("", part.text)):
            return True
        if image.set.forgotten(part):
            return False
        steps = _steps(one, part.address)
    return False


def _heeds_count(image: Code, f: str, g: str, h: str) -> Seen:
    theirs = _counted_by(image, g)

    def look(one: Function) -> Seen:
        calls = _reached(one, calls_of(image, one, h))
        late = one.later(calls, traps_end=False)
        for at, offset in sorted(one.reads.items()):
            # Where a page is, is calculated.  Other structs may have another int at that offset.
            if offset in theirs and at in one.reached and at not in late | one.followed \
                    and _asked(image, one, at) and set(calls) & one.later([at], traps_end=True):
                return Seen(True, (f"{_place(one, at)} asks for what {g} counts",
                                   _place(one, calls[0])))
        return NOT_SEEN
    return _own(image, f, look)


def _asked(image: Code, one: Function, at: int) -> bool:
    """Whether what an instruction loads is looked at before something else is in the register."""
    part = one.code[at]
    if image.set.asks.fullmatch(part.name):
        return True
    register = whole(part.operands.partition(",")[0])
    steps, seen = _following(one, at), {at}
    while len(steps) == 1 and steps[0] not in seen:
        part = one.code[steps[0]]
        seen.add(part.address)
        if part.address in one.calls or part.calls:
            if not part.falls or not outlives_call(register):
                return False
            steps = _following(one, part.address)
            continue
        named = {whole(word) for word in re.findall(r"\w+", _BRACKETS.sub("", part.operands))}
        if image.set.asks.fullmatch(part.name) and register in named:
            return True
        if changes(part, {register}):
            return False
        steps = _steps(one, part.address)
    return False


def _widens(image: Code, f: str, g: str) -> Seen:
    def look(one: Function) -> Seen:
        found = _reached(one, calls_of(image, one, g))
        if not found or not all(_widened(image, one, at) for at in found):
            return NOT_SEEN
        return Seen(True, (_place(one, found[0]),))
    return _all(image, f, look)


def _widened(image: Code, one: Function, at: int) -> bool:
    steps = _following(one, at)
    seen: set[int] = set()
    while len(steps) == 1 and steps[0] not in {*one.calls, *seen}:
        seen.add(steps[0])
        part = one.code[steps[0]]
        if image.set.widens and image.set.widens.fullmatch(part.text):
            return True
        if image.set.narrow.search(part.operands) or image.set.forgotten(part):
            return False
        steps = _steps(one, part.address)
    return False


def _passes_on(image: Code, f: str, g: str) -> Seen:
    def look(one: Function) -> Seen:
        found = _reached(one, calls_of(image, one, g))
        # Where the ABI has each int extended, who calls does not.
        if not found or not one.whole or image.inlines_across_files or not image.set.widens:
            return NOT_SEEN
        for at in found:
            if one.code[at].calls and not _returned_whole(image, one, at):
                return NOT_SEEN
        return Seen(True, (_place(one, found[0]),))
    return _all(image, f, look)


def _returned_whole(image: Code, one: Function, at: int) -> bool:
    """Whether what a call returns is still whole where the function returns it."""
    ends = frozenset(at for at, part in one.code.items() if at in one.calls or part.calls
                     or image.set.forgotten(part)
                     and not image.set.restores.fullmatch(part.text))
    live = code.after(one, _following(one, at), ends)
    for other in live:
        part = one.code[other]
        if other not in ends and (image.set.narrow.search(part.operands)
                                  or image.set.widens and image.set.widens.fullmatch(part.text)):
            return False
    return any(_leaves(one, other) for other in live - ends)


def _clears_before(image: Code, f: str, g: str) -> Seen:
    def look(one: Function) -> Seen:
        firsts = calls_of(image, one, g)
        calls = {at for at, part in one.code.items()
                 if part.target is None and (part.calls or part.indirect)}
        stores = {at: image.set.stores_word(part) for at, part in one.code.items()}
        early = code.after(one, [*one.entries, *one.hidden],
                           frozenset(calls | {at for at, kind in stores.items() if kind}))
        late = code.after(one, [*_coming(one, firsts), *one.hidden])
        if not _reached(one, firsts) or not one.whole or early & set(firsts) or late & calls or \
                any(stores[at] == ZERO for at in late):
            return NOT_SEEN
        return Seen(True, (_place(one, _reached(one, firsts)[0]),))
    return _all(image, f, look)


def _callers_none(image: Code, f: str, g: str) -> Seen:
    callers = image.callers(_split(f))
    if not callers or not all(_calls_none(image, one, g).true for one in callers):
        return NOT_SEEN
    return Seen(True, (f"{', '.join(sorted(callers))} call no {g.replace('|', ', ')}",))


def _calls_nothing(image: Code, f: str) -> Seen:
    def look(one: Function) -> Seen:
        # Nor does it do anything of its own.
        other = [part for part in one.code.values() if part.calls]
        if not one.whole or any(call.names - code.TRACES for call in one.calls.values()) or \
                any(part.address not in one.calls and part.name != "ret" for part in other) or \
                any(part.indirect for part in one.code.values()) or len(one.reached) > 24:
            return NOT_SEEN
        return Seen(True, (f"{one.name} calls nothing",))
    return _all(image, f, look)


def _refers(image: Code, f: str, g: str) -> Seen:
    addresses = {address for name in _split(g) for address in image.address(name)}

    def look(one: Function) -> Seen:
        found = [at for at in sorted(one.reached) if addresses & values(one.code[at])]
        return Seen(True, (f"{_place(one, found[0])} takes the address of "
                           f"{g.partition('|')[0]}",)) if found else NOT_SEEN
    return _all(image, f, look)


def _uses(image: Code, f: str, n: str) -> Seen:
    numbers = {int(text, 0) for text in _split(n)}

    def look(one: Function) -> Seen:
        found = [at for at in sorted(one.reached) if numbers & values(one.code[at])]
        return Seen(True, (f"{_place(one, found[0])} uses {n}",)) if found else NOT_SEEN
    return _own(image, f, look)


def _uses_none(image: Code, f: str, n: str) -> Seen:
    numbers = {int(text, 0) for text in _split(n)}

    def look(one: Function) -> Seen:
        if not one.whole or any(numbers & values(part) for part in one.code.values()) or \
                not image.set.whole_numbers:
            return NOT_SEEN
        return Seen(True, (f"{one.name} does not use {n}",))
    return _own(image, f, look)


def _looks_only(image: Code, f: str, n: str) -> Seen:
    offsets = {int(text, 0) for text in _split(n)}

    def look(one: Function) -> Seen:
        for part in one.code.values():
            looks = image.set.looks(part)
            if looks is None or looks - offsets:
                return NOT_SEEN
        return Seen(one.whole, (f"{one.name} looks at no other offset than {n}",))
    return _own(image, f, look)


def _counted(one: Function) -> set[int]:
    """The offsets at which a function counts, as far as they are known."""
    return {offset for offset in one.counts.values() if offset is not None}


def _counted_by(image: Code, g: str) -> set[int]:
    return {offset for one in _functions(image, g) for offset in _counted(one)}


def _counts_what(image: Code, f: str, g: str) -> Seen:
    theirs = _counted_by(image, g)

    def look(one: Function) -> Seen:
        common = _counted(one) & theirs
        return Seen(True, (f"{one.name} counts at offset {min(common):#x}, as {g} does",)) \
            if common else NOT_SEEN
    return _own(image, f, look)


def _counts_other(image: Code, f: str, g: str) -> Seen:
    theirs = _counted_by(image, g)

    def look(one: Function) -> Seen:
        own = _counted(one)
        if not theirs or not own or own & theirs or not one.whole or None in one.counts.values():
            return NOT_SEEN
        return Seen(True, (f"{one.name} counts at offset {min(own):#x}, {g} elsewhere",))
    return _own(image, f, look)


def _counts_before(image: Code, f: str, h: str) -> Seen:
    def look(one: Function) -> Seen:
        counts = set(one.counts)
        seconds = calls_of(image, one, h)
        early = code.after(one, [*one.entries, *one.hidden], frozenset(counts))
        if not one.whole or not _reached(one, seconds) or early & set(seconds):
            return NOT_SEEN
        return Seen(True, (_place(one, min(counts)), _place(one, seconds[0])))
    return _own(image, f, look)


def _counts_held(image: Code, f: str, g: str, h: str) -> Seen:
    theirs = {offset for one in _functions(image, g)
              for at, offset in one.reads.items() if at in one.reached}

    def look(one: Function) -> Seen:
        seconds = calls_of(image, one, h)
        if not one.whole or not _reached(one, seconds):
            return NOT_SEEN
        for offset in sorted(_counted(one) & theirs):
            ups, downs = [], []
            for at, where in one.counts.items():
                part = one.code[at]
                adds = image.set.adds(part, one.code.get(at + part.size))
                if where == offset and adds > 0:
                    ups.append(at)
                # What it does, or where, is not known: it may take back.
                elif adds <= 0 and where in (offset, None):
                    downs.append(at)
            starts = [*one.entries, *one.hidden, *_coming(one, downs)]
            if _reached(one, ups) and not code.after(one, starts, frozenset(ups)) & set(seconds):
                return Seen(True, (f"{_place(one, min(ups))} counts up at offset {offset:#x}",
                                   _place(one, _reached(one, seconds)[0])))
        return NOT_SEEN
    return _own(image, f, look)


def _counts_nothing(image: Code, f: str) -> Seen:
    def look(one: Function) -> Seen:
        if not one.whole or one.counts or not image.set.counts_all:
            return NOT_SEEN
        return Seen(True, (f"{one.name} counts nothing",))
    return _own(image, f, look)


def _touched(image: Code, one: Function, stores: bool) -> dict[int, int]:
    """The bytes of structs that a function stores to, or else loads; and where it does."""
    found: dict[int, int] = {}
    for at, part in one.code.items():
        touch = image.set.touches(part)
        if touch and (touch.stores if stores else touch.loads):
            for byte in range(touch.first, touch.first + touch.size):
                found.setdefault(byte, at)
    return found


def _sets_what(image: Code, f: str, g: str) -> Seen:
    theirs = {byte for one in _functions(image, g) for byte in _touched(image, one, False)}

    def look(one: Function) -> Seen:
        common = sorted(at for byte, at in _touched(image, one, True).items()
                        if byte in theirs and at in one.reached)
        return Seen(True, (f"{_place(one, common[0])} sets what {g} tests",)) \
            if common else NOT_SEEN
    return _own(image, f, look)


def _read_offsets(one: Function) -> dict[int, int]:
    found: dict[int, int] = {}
    for at, offset in one.reads.items():
        found.setdefault(offset, at)
    return found


def _reads_what(image: Code, f: str, g: str) -> Seen:
    theirs = _counted_by(image, g)

    def look(one: Function) -> Seen:
        common = sorted(at for offset, at in _read_offsets(one).items()
                        if offset in theirs and at in one.reached)
        return Seen(True, (f"{_place(one, common[0])} reads what {g} counts",)) \
            if common else NOT_SEEN
    return _own(image, f, look)


def _reads_nothing(image: Code, f: str, g: str) -> Seen:
    theirs = _counted_by(image, g)

    def look(one: Function) -> Seen:
        if not theirs or not one.whole or theirs & _read_offsets(one).keys() or \
                any(None in other.counts.values() for other in _functions(image, g)):
            return NOT_SEEN
        return Seen(True, (f"{one.name} does not read what {g} counts",))
    return _own(image, f, look)


def _straight(image: Code, f: str) -> Seen:
    def look(one: Function) -> Seen:
        # Where nothing can come back to where it was, each instruction runs once.
        loops = any(at in code.after(one, _steps(one, at)) for at in one.code)
        if not one.whole or loops:
            return NOT_SEEN
        return Seen(True, (f"{one.name} has no loop",))
    return _all(image, f, look)


def _stores_by(image: Code, f: str, which: str) -> Seen:
    register = image.set.arguments[("first", "second", "third").index(which)]

    def look(one: Function) -> Seen:
        found = image.stores_by(one, register)
        return Seen(True, (f"{_place(one, found[0])} stores by its {which} argument",)) \
            if found else NOT_SEEN
    return _own(image, f, look)


def _steps(one: Function, at: int) -> list[int]:
    part = one.code[at]
    found = [part.target] if part.target in one.code and not part.calls else []
    found += _following(one, at)
    return [to for to in found if to is not None]


def _for(image: Code, arch: str) -> Seen:
    return Seen(image.image.arch == arch)


def _not_for(image: Code, arch: str) -> Seen:
    return Seen(bool(image.image.arch) and image.image.arch != arch)


def _page(image: Code, kib: str) -> Seen:
    # Documentation/arch/arm64/booting.rst of the kernel: magic at 56, flags at 24.
    for symbol in image.image.by_name.get("_text", ()):
        section = image.image.section_at(symbol.address)
        head = section.data[symbol.address - section.address:][:64] if section else b""
        if len(head) == 64 and head[56:60] == b"ARM\x64":
            size = int.from_bytes(head[24:32], "little") >> 1 & 3
            return Seen(bool(size) and 1 << 2 * size == int(kib))
    return Seen(False)


def _config(image: Code, option: str) -> Seen:
    return Seen(image.config.get(f"CONFIG_{option}") in ("y", "m"))


def _config_none(image: Code, option: str) -> Seen:
    return Seen(bool(image.config)
                and not any(_config(image, one).true for one in _split(option)))


_FORMS: tuple[tuple[str, Callable[..., Seen]], ...] = (
    (rf"there is no {_F}", _there_is_no),
    (rf"there is {_F}", _there_is),
    (rf"{_F} calls nothing", _calls_nothing),
    (rf"{_F} calls {_H} after {_G} given {_N} third", _calls_after_given),
    (rf"{_F} comes to {_H} by bit {_N} that {_G} tests", _comes_by_bit),
    (rf"{_F} tests no bit {_N} before {_H}", _tests_no_bit),
    (rf"{_F} calls none of {_G}", _calls_none),
    (rf"{_F} calls {_G} then {_H} with the same", _calls_then_same),
    (rf"all of {_F} that call {_G} come to {_H} with the same", _all_come_same),
    (rf"{_F} always comes to {_H} after {_G}", _always_comes),
    (rf"{_F} calls {_G} held at {_H} by {_U}", _calls_held),
    (rf"{_F} calls {_G} kept to {_H} by {_U}", _calls_kept),
    (rf"{_F} calls no {_H} from {_G} to {_U}", _calls_none_from),
    (rf"{_F} heeds {_G}", _heeds),
    (rf"{_F} heeds of a page what {_G} counts before {_H}", _heeds_count),
    (rf"{_F} widens what {_G} returns", _widens),
    (rf"{_F} passes on what {_G} returns", _passes_on),
    (rf"{_F} clears before {_G}", _clears_before),
    (rf"whoever calls {_F} calls none of {_G}", _callers_none),
    (rf"{_F} calls {_G} then {_H}", _calls_then),
    (rf"{_F} calls no {_H} after {_G}", _calls_not_after),
    (rf"only {_F} calls {_G}", _only),
    (rf"each {_G} in {_F} comes to {_H}", _each_comes_to),
    (rf"{_F} calls {_G} before {_H}", _calls_before),
    (rf"{_F} calls {_H} without {_G}", _calls_without),
    (rf"{_F} calls {_G} with its own", _calls_own),
    (rf"{_F} calls {_G} given {_N}", _calls_given),
    (rf"{_F} calls {_G}", _calls_it),
    (rf"{_F} refers to {_G}", _refers),
    (rf"{_F} uses none of {_N}", _uses_none),
    (rf"{_F} uses {_N}", _uses),
    (rf"{_F} looks only at {_N}", _looks_only),
    (rf"{_F} counts what {_G} counts", _counts_what),
    (rf"{_F} counts other than {_G}", _counts_other),
    (rf"{_F} counts before {_H}", _counts_before),
    (rf"{_F} counts nothing", _counts_nothing),
    (rf"{_F} counts up what {_G} reads held at {_H}", _counts_held),
    (rf"{_F} sets what {_G} tests", _sets_what),
    (rf"{_F} reads what {_G} counts", _reads_what),
    (rf"{_F} reads nothing that {_G} counts", _reads_nothing),
    (rf"{_F} runs straight on", _straight),
    (rf"{_F} stores by its (?P<which>second|third) argument", _stores_by),
    (r"it is for (?P<arch>\w+)", _for),
    (r"it is not for (?P<arch>\w+)", _not_for),
    (r"a page has (?P<kib>\d+) KiB", _page),
    (r"the config has none of (?P<option>[\w|]+)", _config_none),
    (r"the config has (?P<option>\w+)", _config),
)
