# SPDX-License-Identifier: GPL-2.0
"""Finds what the kernel complains of in a console log: BUG, WARNING, oops, lockdep, a hang.

The words are those of the kernel's own printk()s, from 4.4 to 7.x; the file each comes from is
named beside it.  Where in doubt a line is a complaint: a verdict that is too careful costs a look
at the log, one that overlooks a splat is wrong.
"""

import re
from dataclasses import dataclass

# What stands before a message: a log level (console=...,raw), a time stamp (PRINTK_TIME), the task
# or CPU that spoke (PRINTK_CALLER).
_STAMP = r"(?:<\d+>)?\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ?"
_LEAD = re.compile(rf"(?:{_STAMP})*(?:<\d+>)?")
_CUT_HERE = "[ cut here ]---"
_RULE = re.compile(r"=={20,}$")
_END = re.compile(r"---\[ end ")

# Messages that say "warning" or repeat what somebody else wrote, and are no complaint.
_HARMLESS = re.compile(
    r"(?:Kernel )?[Cc]ommand line: "                        # init/main.c, arch/*/kernel/setup.c
    r"|Unknown kernel command line parameters "             # init/main.c
    r"|Linux version "                                      # a local version can say anything
    r"|WARNING: 'bootconfig' found on the kernel command line"      # init/main.c
    r"|WARNING: polling idle and HT enabled"                # arch/x86/kernel/process.c
)

# (kind, where in the line, what).  The first that matches names the complaint, so the particular
# ones come before the general.  "anywhere": another CPU may have written half a line before it.
_KINDS: tuple[tuple[str, re.Pattern[str]], ...] = tuple((kind, re.compile(what)) for kind, what in (
    # kernel/panic.c; arch/x86/kernel/traps.c (double fault)
    ("panic", r"(?<!end )Kernel panic - not syncing|\bPANIC: double fault"),
    # mm/kasan/report.c, mm/kfence/report.c, kernel/kcsan/report.c, mm/kmsan/report.c, lib/ubsan.c
    ("KASAN", r"\bBUG: KASAN: "),
    ("KFENCE", r"\bBUG: KFENCE: "),
    ("KCSAN", r"\bBUG: KCSAN: "),
    ("KMSAN", r"\bBUG: KMSAN: "),
    ("UBSAN", r"\bUBSAN: .+ in \S+:\d+"),
    # kernel/watchdog.c, kernel/workqueue.c
    ("soft lockup", r"\bBUG: soft lockup - CPU#\d+"),
    ("hard lockup", r"Watchdog detected hard LOCKUP"),
    ("workqueue lockup", r"\bBUG: workqueue lockup"),
    # kernel/hung_task.c
    ("hung task", r"\bINFO: task .+:\d+ .*blocked .*for more than \d+ seconds"),
    # kernel/rcu/tree_stall.h, tree_exp.h, tasks.h; kernel/rcu/tree.c before 5.3
    ("RCU stall", r"\bINFO: \S+ (?:self-)?detected (?:expedited )?stalls?\b"
                  r"|\brcu_\w+ kthread (?:starved for|timer wakeup didn't happen)"),
    # kernel/locking/*.c; "[ INFO: ... ]" until 4.10
    ("lockdep", r"\bWARNING: (?:possible (?:circular locking|recursive locking|irq lock inversion)"
                r"|inconsistent lock state|suspicious RCU usage|bad unlock balance"
                r"|bad contention detected|held lock freed|lock held when returning"
                r"|Nested lock was not taken|chain_key collision"
                r"|.* still has locks held|\S+-safe -> \S+-unsafe lock order)"
                r"|\[ (?:INFO|BUG): .+ \]"
                r"|\bINFO: trying to register non-static key"
                r"|\bBUG: MAX_(?:LOCK|STACK_TRACE)\w* too low"
                r"|\bBUG: (?:key \S+ has not been registered|looking up invalid subclass)"),
    # mm/page_alloc.c, mm/memory.c, mm/filemap.c, kernel/fork.c, mm/swapfile.c, pgtable.h
    ("bad page", r"\bBUG: Bad (?:page|rss-counter) "
                 r"|\bBUG: non-zero (?:pgtables_bytes|nr_ptes|nr_pmds)"
                 r"|\bBad swap (?:file|offset) entry "
                 r"|\S+:\d+: bad (?:pgd|p4d|pud|pmd|pte) "),
    # mm/page_poison.c, mm/slub.c, lib/list_debug.c: the messages that are no WARNING as such
    ("memory corruption", r"\bpagealloc: (?:single bit error|memory corruption)"
                          r"|\bBUG \S+ \(.*\): |\blist_(?:add|del) corruption"),
    # arch/*/mm/fault.c, arch/*/kernel/{dumpstack,traps}.c: the die counter tells the kernel's own
    # fault from "traps: prog[12] general protection fault", which is a user's program.
    ("oops", r"\[#\d+\]|\b[uU]nable to handle (?:kernel |page fault for )"
             r"|\bBUG: kernel NULL pointer dereference"),
    # lib/bug.c, kernel/sched/core.c, kernel/locking/spinlock_debug.c and many others
    ("BUG", r"\b[kK]ernel BUG at |\bBUG: "),
    # mm/oom_kill.c.  The guest has what the tests need; without it they mean nothing.
    ("OOM", r" invoked oom-killer: |\bOut of memory: Kill"),
    # kernel/panic.c: until 6.18 "WARNING: CPU: 1 PID: 2 at ...", then "WARNING: file:line at ..."
    ("WARNING", r"\bWARNING: CPU: \d+ PID: \d+ at |\bWARNING: (?:\S+:\d+ )?at \S+, CPU#\d+"),
))
# Any other message that begins so.  Not anywhere in the line: "Spectre V2 : WARNING: ..." and
# "RETBleed: WARNING: ..." tell of the CPU that QEMU plays.
_OTHER_WARNING = re.compile(r"WARNING: ")

# The header lines of one event that has several: a BUG is followed by its oops, a stall by the
# news that the grace-period kthread starves.
_SAME_EVENT = {("BUG", "oops"), ("oops", "oops"), ("memory corruption", "BUG"),
               ("memory corruption", "WARNING"), ("RCU stall", "RCU stall")}
# Kinds after which a kernel is not what it was: panic_on_oops makes most of them a panic anyway.
FATAL = frozenset({"panic", "oops", "BUG", "KASAN", "bad page", "memory corruption"})
_CONTEXT = 60
# Lines that other CPUs may write between the "cut here" of one and the line that names it.
_BESIDE = 10
# Where the lab builds: __FILE__ of a kernel before 5.x names it.
_BUILT_IN = re.compile(r"(?<=at )/\S+/tree/(?=\w)")
# Lines of a splat that say where and how it was, but not what happened: registers, code, stack,
# frames that the unwinder only guesses, and marks.
_ASIDE = re.compile(
    r"\s*(?:$|R(?:[A-D]X|[SD]I|[SB]P|\d\d|IP): (?!0010:)|RIP  |RSP <|[CDEFGS]S: |[CD]R\d: |PKRU: "
    r"|IP: |x\d+ ?: |(?:sp|pmr_save|pstate|task|Code|Stack|Modules linked in|Tainted|Hardware name)\s?: ?"
    r"|PGD |(?:[0-9a-f]{16} ?)+$|(?:\[<\S+>\] )?\? |</?\w+>$|-+\[ (?:cut here|end )|=+$)")


@dataclass(frozen=True)
class Complaint:
    """One complaint of the kernel.

    `line` counts from 1 in the log; `text` is the line that names it, without time stamp; `context`
    the lines of the log from the "cut here" before it to its end, as they are.
    """

    kind: str
    line: int
    text: str
    context: tuple[str, ...] = ()


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.replace("\r", "").replace("\0", "").split("\n")]


def _kind(message: str) -> str | None:
    """The kind of complaint that a message (a line without its stamp) begins, if any."""
    if _HARMLESS.match(message):
        return None
    for kind, what in _KINDS:
        if what.search(message):
            return kind
    # Another CPU's half line may stand before the stamp of this one.
    last = re.split(_STAMP, message)[-1]
    if _OTHER_WARNING.match(last):
        return "WARNING"
    return None


def _headers(messages: list[str]) -> list[tuple[str, int, int]]:
    """(kind, line that names it, line where it begins) of each complaint; lines count from 0."""
    found: list[tuple[str, int, int]] = []
    # Each "cut here" whose complaint has not been named yet: several if several CPUs begin at once.
    cuts: list[int] = []
    open_kind: str | None = None    # the kind of the complaint that has not ended yet
    for index, message in enumerate(messages):
        if open_kind and (_END.search(message) or index - found[-1][1] > _CONTEXT):
            open_kind = None
        if cuts and index - cuts[-1] > (_BESIDE if _CUT_HERE in message else _CONTEXT):
            found += [("WARNING", cut, cut) for cut in cuts]
            cuts = []
        if _CUT_HERE in message:
            cuts.append(index)
            # list_del corruption is told before the "cut here" of its BUG, from 4.10 on.
            open_kind = open_kind if open_kind == "memory corruption" else None
            continue
        kind = _kind(message)
        if kind is None:
            continue
        if (open_kind, kind) in _SAME_EVENT and not (
                open_kind == "memory corruption" and "list_" not in messages[found[-1][1]]):
            # What was cut since it began is of the same event, what before it of another.
            open_kind, cuts = kind, [cut for cut in cuts if cut < found[-1][1]]
            continue
        if cuts:
            begin = cuts.pop(0)
        else:
            begin = index - 1 if index and _RULE.search(messages[index - 1]) else index
        found.append((kind, index, begin))
        open_kind = kind
    # The log ends between "cut here" and the line that says what it was.
    found += [("WARNING", cut, cut) for cut in cuts]
    return found


def read(text: str) -> list[Complaint]:
    """All complaints in a console log, in order; never raises, whatever the text is."""
    lines = _lines(text)
    messages = [line[_LEAD.match(line).end():] for line in lines]     # type: ignore[union-attr]
    headers = _headers(messages)
    complaints = []
    for number, (kind, index, begin) in enumerate(headers):
        # The next may have begun before this one was named.
        limit = max(headers[number + 1][2], index + 1) if number + 1 < len(headers) else len(lines)
        end = min(limit, begin + _CONTEXT)
        for at in range(index, end):
            if _END.search(messages[at]):
                end = at + 1
                break
        context = tuple(line for line in lines[begin:end] if line)
        text = _BUILT_IN.sub("", messages[index].strip())
        complaints.append(Complaint(kind, index + 1, text, context))
    return complaints


def excerpt(complaint: Complaint, most: int = 25) -> list[str]:
    """What a complaint says, to be shown where its log is not: no time stamps, no registers."""
    messages = [_BUILT_IN.sub("", line[_LEAD.match(line).end():])     # type: ignore[union-attr]
                for line in complaint.context]
    lines = ["".join(char if char.isprintable() else "?" for char in line.expandtabs())
             for line in messages if not _ASIDE.match(line)]
    return lines if len(lines) <= most else [*lines[:most - 1], "..."]


def last_lines(text: str, count: int = 20) -> list[str]:
    """The `count` lines that matter most to somebody who asks why a boot went wrong.

    The beginning of the first complaint, since what follows it is often its consequence; where
    there is none, the end of the log, without empty lines.
    """
    complaints = read(text)
    if complaints:
        return list(complaints[0].context[:count])
    return [line for line in _lines(text) if line][-count:]
