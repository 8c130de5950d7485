# SPDX-License-Identifier: GPL-2.0
"""Reads the code of single functions of a kernel image: what calls what, and in which order.

A function is disassembled when somebody asks for it, so that an image costs a second and not a
minute.  It consists of all that the compiler made of it: `f`, `f.isra.0`, `f.constprop.0`, and the
pieces `f.part.0` and `f.cold`, which it split off.  What it made of a function that it inlined is
in the one that calls it.

What can run is what can be reached from the first instruction.  The rest is padding, or code that
is entered by other ways: alternatives, which the kernel patches when it boots, jump tables, fixups
of faults, and static branches, if the image does not say where their table is.  Such code counts
where the question is whether a function does *not* do something, and it does not count as proof
that it does.
"""

import bisect
import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from lab.binary import patched
from lab.binary.image import Image, Symbol
from lab.binary.instruction import Instruction, values
from lab.binary.registers import OWN, base, outlives_call, track
from lab.binary.sets import SETS
from lab.errors import LabError

# What a compiler adds to the name of a function, or of a piece of it.
_SUFFIX = re.compile(r"(?:\.(?:isra|constprop|part|cold|unlikely|llvm|cfi|lto_priv)(?:\.\d+)*)+$")
_PIECE = re.compile(r"\.(?:part|cold|unlikely)\b")
_UNLIKELY = re.compile(r"\.(?:cold|unlikely)\b")
# After a call to one of these nothing is run.
_NEVER_RETURN = frozenset((
    "panic", "nmi_panic", "do_exit", "make_task_dead", "rewind_stack_and_make_dead",
    "__stack_chk_fail", "__ubsan_handle_builtin_unreachable", "fortify_panic", "__fortify_panic"))
# What is called at the start of a function to trace it, and leaves all as it is.
TRACES = frozenset(("__fentry__", "mcount", "_mcount", "ftrace_caller",
                    "__cyg_profile_func_enter"))
# Bytes of code without a name that are looked at.
_ASIDE = 512
# A function of mm/ that is larger than this is none: its end was not found.
_LARGEST = 256 << 10
# A table of static branches has so many at least, and so many are looked at.
_BRANCHES = 32
# So many functions are looked at to see if the names fit the code, if they call as much as that.
_SAMPLE, _FIRST, _ENOUGH = 64, 8, 20


@dataclass(frozen=True)
class Call:
    """A direct call, or a jump to another function, which is its tail."""

    address: int
    names: frozenset[str]           # of the function, without suffixes; several for an alias
    displacement: int | None        # of the first argument from some pointer, where it is known
    own: bool = False               # the first argument is that of the function that calls


@dataclass
class Function:
    """The code of a function: all that goes by its name."""

    name: str
    entries: tuple[int, ...]
    code: dict[int, Instruction]
    calls: dict[int, Call]
    reached: frozenset[int]         # what can run, for certain
    hidden: frozenset[int]          # the rest, less padding
    whole: bool                     # all of it could be read
    into: dict[int, int] = field(default_factory=dict)      # calls of own pieces
    # Where it adds to or subtracts from an int by which other CPUs count, too, and at which offset
    # of some struct; None where that is not known.
    counts: dict[int, int | None] = field(default_factory=dict)
    # Where it loads or compares an int, and at which offset.
    reads: dict[int, int] = field(default_factory=dict)
    # Where it looks into what a pointer leads to that it has from some struct.
    followed: frozenset[int] = frozenset()

    def later(self, starts: Iterable[int], ends: Iterable[int] = (), *,
              traps_end: bool) -> set[int]:
        """What can be run after one of `starts`, in the same round of the loops that it is in.

        What each way to it has passed before is a new round.  What is in `ends` is run, and
        nothing after it.  A BUG() does not return, a WARN() does, and here they are alike.  So a
        trap ends the way if `traps_end`, for who asks what may come; and it does not for who asks
        what must not.
        """
        seen: set[int] = set()
        for start in starts:
            anew = frozenset(self._dominators(start))
            seen |= _reach(self.code, [to for to in _next(self.code, start, self.calls, self.into)
                                       if to not in anew],
                           self.calls, self.into, anew | frozenset(ends), traps_end) - anew
        return seen

    def _dominators(self, address: int) -> Iterator[int]:
        """What each way to an instruction passes, but for itself."""
        while (before := self._passed.get(address, address)) != address:
            yield before
            address = before

    @cached_property
    def _passed(self) -> dict[int, int]:
        """Of each instruction the last one that each way to it passes; an entry has itself."""
        order: list[int] = []
        # A damaged image may have no code at a name, and a piece of that function elsewhere.
        seen = {entry for entry in self.entries if entry in self.code}
        stack = [(entry, _next(self.code, entry, self.calls, self.into)) for entry in seen]
        while stack:
            address, steps = stack[-1]
            to = next(steps, None)
            if to is None:
                order.append(address)
                stack.pop()
            elif to not in seen:
                seen.add(to)
                stack.append((to, _next(self.code, to, self.calls, self.into)))
        order.reverse()
        rank = {address: number for number, address in enumerate(order)}
        before: dict[int, list[int]] = {}
        for address in order:
            for to in _next(self.code, address, self.calls, self.into):
                before.setdefault(to, []).append(address)
        passed = {entry: entry for entry in self.entries if entry in self.code}
        changed = True
        while changed:
            changed = False
            for address in order:
                if address in self.entries:
                    continue
                known = [one for one in before[address] if one in passed]
                common = known[0]
                for other in known[1:]:
                    while common != other:
                        if rank[common] > rank[other]:
                            common = passed[common]
                        else:
                            other = passed[other]
                if passed.get(address) != common:
                    passed[address] = common
                    changed = True
        return passed


def base_name(symbol: str) -> str:
    """The name of the function that `symbol` is, or is a piece of."""
    return _SUFFIX.sub("", symbol) if "." in symbol else symbol


class Code:
    """The functions of an image, disassembled as they are asked for."""

    def __init__(self, image: Image) -> None:
        """LabError where the image's instructions cannot be read."""
        self.image = image
        if image.arch not in SETS:
            raise LabError(f"{image.path}: the code of {image.arch} cannot be read, only that of "
                           f"{' and '.join(sorted(SETS))}: audit its source with KERNEL=")
        self.set = SETS[image.arch]
        self._reader = self.set.reader()
        self._known: dict[str, list[Function]] = {}

    @cached_property
    def _executable(self) -> list[tuple[int, int, bytes]]:
        return sorted((one.address, one.address + len(one.data), one.data)
                      for one in self.image.sections if one.executable and one.data)

    @cached_property
    def _symbols(self) -> dict[str, list[Symbol]]:
        """The symbols of code, by the name of the function that each belongs to."""
        found: dict[str, list[Symbol]] = {}
        for one in self.image.symbols:
            if one.kind in "tTwW" and "cfi_jt" not in one.name:
                found.setdefault(base_name(one.name), []).append(one)
        return found

    @cached_property
    def _names_at(self) -> dict[int, frozenset[str]]:
        found: dict[int, set[str]] = {}
        for name, symbols in self._symbols.items():
            for one in symbols:
                found.setdefault(one.address, set()).add(name)
        return {address: frozenset(names) for address, names in found.items()}

    @cached_property
    def _addresses(self) -> list[int]:
        return sorted(self._names_at)

    @cached_property
    def config(self) -> dict[str, str]:
        """The options that the image says that it was made with; {} where it does not say."""
        lines = (self.image.config or "").splitlines()
        return {name: value for name, is_, value in (line.partition("=") for line in lines)
                if is_ and name.startswith("CONFIG_")}

    @cached_property
    def inlines_across_files(self) -> bool:
        """Whether the compiler may have inlined a function of one file into another."""
        if any(name.startswith("CONFIG_LTO") and name != "CONFIG_LTO_NONE" and value == "y"
               for name, value in self.config.items()):
            return True
        # clang's full form of it, as opposed to the thin one, leaves no trace in the names.
        if not self.config and "clang version" in self.image.banner and \
                "LLD" in self.image.banner:
            return True
        return any(".llvm." in one.name or ".lto_priv" in one.name for one in self.image.symbols)

    @cached_property
    def _branches(self) -> dict[int, int]:
        sections = self.image.sections
        start, table = patched.table(self.image.symbols, sections, "__start___jump_table",
                                     "__stop___jump_table")
        if table:
            return patched.branches(start, table, sections)
        # Many images have names of code alone.  Who sorts the table knows where it is.
        made = sorted({value for at in self.address("jump_label_init") for one in self._decoded(at)
                       for value in values(one)})
        for first, last in itertools.combinations(made, 2):
            found = patched.branches(first, patched.between(sections, first, last), sections)
            if len(found) >= _BRANCHES and all(map(self._may_jump, list(found.items())[
                    ::len(found) // _BRANCHES])):
                return found
        return {}

    def _may_jump(self, branch: tuple[int, int]) -> bool:
        """Whether there is a nop, or a jump to where the branch leads."""
        one = self._at(branch[0])
        return one is not None and (one.name == "nop" or one.target == branch[1] and not one.calls)

    @cached_property
    def _alternatives(self) -> dict[int, int]:
        return patched.alternatives(self.image.symbols, self.image.sections, self.set.patched) \
            if self.set.patched else {}

    @cached_property
    def _faults(self) -> list[int]:
        return patched.faults(*patched.table(self.image.symbols, self.image.sections,
                                             "__start___ex_table", "__stop___ex_table"))

    def _as_patched(self, one: Instruction) -> Instruction:
        """An instruction that jumps or not, if whether it does is not for the image to say."""
        target = self._branches.get(one.address)
        if target is None and one.address in self._alternatives:
            by = self._alternatives[one.address]
            other = self._at(by) if by else None
            jumps, stays = (other, one) if one.name == "nop" else (one, other)
            if jumps and not jumps.calls and not jumps.falls and (
                    stays.name == "nop" if stays else not by):
                target = jumps.target
        return one if target is None else dataclasses.replace(one, target=target, falls=True,
                                                              name="jump")

    def _at(self, address: int) -> Instruction | None:
        """The instruction at an address; None where there is none."""
        for at, size, name, operands in self._reader.disasm_lite(self._bytes(address, 16), address):
            return self.set.decode(at, size, name, operands)
        return None

    def has(self, name: str) -> bool:
        """Whether the image has a function `name`, or a piece of it."""
        return name in self._symbols

    def address(self, name: str) -> set[int]:
        """Where a function begins; each of its copies."""
        return {one.address for one in self._symbols.get(name, ()) if not _PIECE.search(one.name)}

    def functions(self, name: str) -> list[Function]:
        """The copies of a function, each with its pieces; [] where the image has none."""
        if name not in self._known:
            symbols = self._symbols.get(name, [])
            starts = sorted({one.address for one in symbols if not _PIECE.search(one.name)})
            pieces = {one.address for one in symbols} - set(starts)
            # Of a function that is there only in pieces, the callers have the rest.  What is
            # unlikely in a piece is a piece of that.
            first = starts or sorted({one.address for one in symbols
                                      if not _UNLIKELY.search(one.name)}) or sorted(pieces)
            found = [self._read(name, start, pieces - {start}) for start in first]
            self._known[name] = found if starts else [
                dataclasses.replace(one, whole=False) for one in found]
        return self._known[name]

    def check(self) -> None:
        """LabError where the names are not those of this code.

        What the functions call has a name then only by chance.  A System.map of another build of
        the same version may have the banner at the right place.
        """
        # What is behind the last name of a section need not be of that function.
        starts = [one for one, after in zip(self._addresses, self._addresses[1:])
                  if len(self._bytes(one, after - one)) == after - one]
        named = total = 0
        for start in starts[::max(1, len(starts) // _SAMPLE)]:
            for one in itertools.islice((one for one in self._sweep(start)
                                         if one.calls and one.target is not None), _FIRST):
                assert one.target is not None
                total += 1
                named += self._called(one.target) is not None
        if total >= _ENOUGH and named * 10 < total * 9:
            raise LabError(f"{self.image.path}: the names of {self.image.symbols_from} do not fit "
                           f"its code ({total - named} of {total} calls lead to what has no "
                           "name): name the System.map or the vmlinux of this very build with "
                           "SYMBOLS=")

    def callers(self, names: Iterable[str]) -> set[str] | None:
        """The functions that call one of `names`, jump to it or take its address.

        None where that cannot be told, as of something that calls one and has no name.
        """
        targets = frozenset(address for name in names for address in self.address(name))
        targets |= {address + 4 for address in targets if self._marked(address)}
        found: set[str] = set()
        for begin, _end, data in self._executable:
            for place in self.set.leads(data, begin, targets) if targets else ():
                index = bisect.bisect_right(self._addresses, place) - 1
                if index < 0 or self._addresses[index] < begin:
                    return None
                found |= self._names_at[self._addresses[index]]
        return found

    def _bytes(self, start: int, size: int) -> bytes:
        index = bisect.bisect_right(self._executable, (start, 1 << 65, b"")) - 1
        if index < 0:
            return b""
        at, end, data = self._executable[index]
        return data[start - at:start - at + size] if start < end else b""

    def _end(self, start: int) -> int:
        index = bisect.bisect_right(self._addresses, start)
        after = self._addresses[index] if index < len(self._addresses) else start + _LARGEST
        return min(after, start + _LARGEST)

    def _sweep(self, start: int) -> Iterator[Instruction]:
        """What is between a symbol and the next."""
        return map(self._as_patched, self._decoded(start))

    def _decoded(self, start: int) -> Iterator[Instruction]:
        """The same, as it is in the image."""
        code = self._bytes(start, self._end(start) - start)
        known: dict[str, int] = {}
        for address, size, name, operands in self._reader.disasm_lite(code, start):
            yield self.set.follow(self.set.decode(address, size, name, operands), known)

    def _read(self, name: str, start: int, pieces: set[int]) -> Function:
        code = {one.address: one for one in self._sweep(start)}
        spans = [(start, self._end(start))]
        for piece in sorted(pieces):
            code |= {one.address: one for one in self._sweep(piece)}
            spans.append((piece, self._end(piece)))

        def inside(address: int) -> bool:
            return any(first <= address < end for first, end in spans)

        def thunk(one: Instruction, prefixes: tuple[str, ...]) -> bool:
            assert one.target is not None
            return any(other.startswith(prefixes) for other in self._names_at.get(one.target, ()))

        calls: dict[int, Call] = {}
        into: dict[int, int] = {}
        whole = bool(code)
        waiting = sorted(code)
        while waiting:
            address = waiting.pop()
            one = code[address]
            if one.target is None:
                continue
            if thunk(one, self.set.returns):
                code[address] = dataclasses.replace(one, name="ret", target=None, calls=False)
            elif thunk(one, self.set.indirect):
                code[address] = dataclasses.replace(one, target=None, indirect=not one.calls)
            elif one.target in code and not one.calls:
                continue
            elif one.target in pieces:
                into[address] = one.target
            elif names := self._called(one.target):
                calls[address] = Call(address, names, None)
            elif one.calls or inside(one.target):
                # Of its own, it calls its beginning or none; a jump goes to an instruction.
                whole = False
            elif aside := self._aside(one.target, len(code)):
                code |= aside
                waiting += aside
            else:
                whole = False
        code, reached, hidden = self._by_cpu(code, calls, into, spans)
        # A probe of a kernel that runs hides what was there.
        if any(code[address].text.startswith(".byte") or code[address].name == "int3"
               for address in reached):
            whole = False
        function = Function(name, (start,), code, calls, frozenset(reached), frozenset(hidden),
                            whole, into)
        known = self._registers(function)
        # The page of a table is not found so: its address is calculated from that of the table.
        function.followed = frozenset(
            address for address, registers in known.items()
            if registers.get(base(code[address].operands)) == 0)
        for address, one in code.items():
            if (offset := self.set.reads(one)) is not None:
                function.reads[address] = offset
            if counts := self.set.counts(one, code.get(address + one.size)):
                register, offset = counts
                # Where that is the function's own argument, it is at the beginning of it.
                at = known.get(address, {}).get(register) if register else 0
                function.counts[address] = None if at is None else \
                    offset + (at - OWN if at > OWN >> 1 else at)
        for address, value in self._first_arguments(function, known).items():
            # How far from its own argument it is, says as much as from another pointer.
            displacement = value - OWN if value > OWN >> 1 else value
            calls[address] = Call(address, calls[address].names,
                                  None if value == OWN else displacement, value == OWN)
        return function

    def _hidden(self, code: dict[int, Instruction], reached: set[int], calls: dict[int, Call],
                into: dict[int, int]) -> set[int]:
        """What is entered by other ways than those that are known.

        A cold piece that nothing reached by a direct jump belongs to such code.
        """
        hidden = {address for address, one in code.items()
                  if address not in reached and one.name not in self.set.padding
                  and not one.text.startswith("endbr")}
        return _reach(code, _heads(code, hidden), calls, into) - reached if hidden else hidden

    def _by_cpu(self, code: dict[int, Instruction], calls: dict[int, Call], into: dict[int, int],
                spans: list[tuple[int, int]]) -> tuple[dict[int, Instruction], set[int], set[int]]:
        """The code of a function, what can be reached of it, and what is hidden.

        In memory a jump may be there since the CPU lacks something, and would be none on another.
        What is behind it is then entered by no other way.  It is taken for such a jump, which is
        made or not, if that explains all that is hidden, and nothing else can: no jump goes where a
        register says, nothing faults, and there is no nop that may be a jump on other CPUs.
        """
        start = spans[0][0]
        reached = _reach(code, [start], calls, into)
        hidden = first = self._hidden(code, reached, calls, into)
        if not hidden or not self.image.live or not self.set.jump or not self._branches or \
                not self._faults or any(one.indirect for one in code.values()) or \
                any(bisect.bisect_left(self._faults, begin) < bisect.bisect_left(self._faults, end)
                    for begin, end in spans):
            return code, reached, hidden
        both, more = dict(code), reached
        while hidden:
            led = {code[at].target for at in hidden} | {into.get(at) for at in hidden}
            jumps = [self._before(both, head) for head in _heads(code, hidden) if head not in led]
            # One that is hidden itself has its turn when what is before it is known.
            found = [one for one in jumps if one and one.address in more]
            if not found:
                return code, reached, first
            both |= {one.address: dataclasses.replace(one, falls=True, name="jump")
                     for one in found}
            more = _reach(both, [start], calls, into)
            hidden = self._hidden(both, more, calls, into)
        # The first one is for tracing, behind the mark if there is one.
        at = start + 4 if self._marked(start) else start
        if any(both[one].name == "nop" and both[one].size >= self.set.jump
               for one in more - {at}):
            return code, reached, first
        return both, more, hidden

    def _before(self, code: dict[int, Instruction], head: int) -> Instruction | None:
        """The jump which ends, with its nops, where `head` begins."""
        one = code.get(head - self.set.jump)
        if one is None or one.name != "jmp" or one.target not in code:
            return None
        at = one.address + one.size
        while at in code and at < head and code[at].name == "nop":
            at += code[at].size
        return one if at == head else None

    def _aside(self, start: int, size: int) -> dict[int, Instruction]:
        """Code without a name that a function jumps to, up to where it jumps back or ends.

        That is where the kernel asks what the CPU can do, until alternatives are applied, and where
        old compilers put what is unlikely.  {} where there is none.
        """
        found: dict[int, Instruction] = {}
        for address, length, name, operands in self._reader.disasm_lite(
                self._bytes(start, _ASIDE), start):
            one = self.set.decode(address, length, name, operands)
            found[address] = one
            if not one.falls:
                return found if size < _LARGEST else {}
        return {}

    def _called(self, target: int) -> frozenset[str] | None:
        """The names of what is called.  A call may pass over the mark where jumps may come in."""
        if names := self._names_at.get(target):
            return names
        return self._names_at.get(target - 4) if self._marked(target - 4) else None

    def _marked(self, address: int) -> bool:
        return self._bytes(address, 4) in self.set.marks

    def _first_arguments(self, function: Function,
                         known: dict[int, dict[str, int]]) -> dict[int, int]:
        """The displacement of the first argument of calls."""
        return {address: known[address][register] for address in function.calls
                for register in self.set.first[::-1] if register in known.get(address, {})}

    def stores_by(self, function: Function, register: str) -> list[int]:
        """Where a function stores a word to where the argument that is in `register` points."""
        known = self._registers(function, register)
        return [address for address, one in sorted(function.code.items())
                if address in function.reached and self.set.stores_word(one)
                and self.set.looks(one) == frozenset((0,))
                and known.get(address, {}).get(base(one.operands)) == OWN]

    def _registers(self, function: Function, own: str = "") -> dict[int, dict[str, int]]:
        """What each instruction finds in registers, where all ways to it have the same.

        It is how far each is from some pointer.  The function's own argument is the first, or that
        which is in `own`.
        """
        known: dict[int, dict[str, int]] = {}
        # Code that is entered by other ways says nothing of what the rest comes to.
        for starts, within in ((function.entries, function.reached),
                               (_heads(function.code, function.hidden), function.hidden)):
            todo = [start for start in starts if start in within and start not in known]
            known |= {start: {own or self.set.first[0]: OWN} if start in function.entries else {}
                      for start in todo}
            while todo:
                address = todo.pop()
                after = known[address] if address in function.calls \
                    and function.calls[address].names & TRACES \
                    else self._after(function.code[address], known[address])
                for to in _next(function.code, address, function.calls, function.into):
                    if to not in within:
                        continue
                    both = after if to not in known else {
                        name: value for name, value in known[to].items()
                        if after.get(name) == value}
                    if both != known.get(to):
                        known[to] = both
                        todo.append(to)
        return known

    def _after(self, one: Instruction, known: dict[str, int]) -> dict[str, int]:
        """What is known of registers after an instruction."""
        if one.calls:
            # Of the registers that outlive a call nothing is forgotten.
            return {name: value for name, value in known.items()
                    if outlives_call(name)}
        after = dict(known)
        track(one, after)
        return after


def _heads(code: dict[int, Instruction], hidden: Iterable[int]) -> list[int]:
    """The first instruction of each run of `hidden` ones."""
    lot = set(hidden)
    follows = {one.address + one.size for one in code.values() if one.address in lot and one.falls}
    return [address for address in lot if address not in follows]


def _next(code: dict[int, Instruction], address: int, calls: dict[int, Call],
          into: dict[int, int]) -> Iterator[int]:
    """Where the run of a function may go on after an instruction."""
    one = code[address]
    if address in into:
        yield into[address]
    if address in calls and calls[address].names & _NEVER_RETURN:
        return
    if one.target is not None and not one.calls and one.target in code and address not in calls:
        yield one.target
    if one.falls and one.address + one.size in code:
        yield one.address + one.size


def _reach(code: dict[int, Instruction], starts: Iterable[int], calls: dict[int, Call],
           into: dict[int, int],
           stop: frozenset[int] = frozenset(), traps_end: bool = False) -> set[int]:
    """What can be run from `starts`.  What is in `stop` is, and nothing after it."""
    seen: set[int] = set()
    todo = [start for start in starts if start in code]
    while todo:
        address = todo.pop()
        if address in seen:
            continue
        seen.add(address)
        if address in stop or traps_end and code[address].traps:
            continue
        todo += _next(code, address, calls, into)
    return seen


def after(function: Function, starts: Iterable[int], stop: frozenset[int] = frozenset(),
          traps_end: bool = False) -> set[int]:
    """What of a function can be run from its instructions `starts`, and after none of `stop`."""
    return _reach(function.code, starts, function.calls, function.into, stop,
                  traps_end)
