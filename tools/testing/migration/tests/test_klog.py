# SPDX-License-Identifier: GPL-2.0
"""The kernel log reader against golden logs of kernels from 4.4 to 7.x."""

import re

import pytest
from runs import GOLDEN, golden

from lab.judge import klog


@pytest.mark.parametrize("name, expected", [
    ("clean", []),
    ("panic", [("panic", 3)]),
    ("bug", [("BUG", 3), ("panic", 20)]),
    ("oops", [("oops", 1)]),
    ("oops-4.4", [("oops", 1)]),
    ("oops-arm64", [("oops", 1), ("oops", 9)]),
    ("warning", [("WARNING", 3)]),
    ("warning-4.4", [("WARNING", 2)]),
    ("warning-7", [("WARNING", 3)]),
    ("lockdep", [("lockdep", 3)]),
    ("lockdep-4.9", [("lockdep", 2), ("lockdep", 7)]),
    ("kasan", [("KASAN", 2)]),
    ("hung-task", [("hung task", 1)]),
    ("rcu-stall", [("RCU stall", 1)]),
    ("rcu-stall-4.4", [("RCU stall", 1)]),
    ("soft-lockup", [("soft lockup", 1)]),
    ("soft-lockup-4.4", [("soft lockup", 1)]),
    ("bad-page", [("bad page", 1), ("bad page", 11), ("bad page", 12)]),
    ("interleaved", [("BUG", 1), ("WARNING", 4)]),
    ("truncated", [("WARNING", 2)]),
])
def test_golden(name: str, expected: list[tuple[str, int]]) -> None:
    found = klog.read(golden(f"{name}.console"))
    assert [(complaint.kind, complaint.line) for complaint in found] == expected


def test_every_golden_log_is_tested() -> None:
    names = {path.stem for path in GOLDEN.glob("*.console")}
    mark = test_golden.pytestmark[0]            # type: ignore[attr-defined]
    assert names == {name for name, _ in mark.args[1]}


@pytest.mark.parametrize("name, lines", [
    ("warning-7", 6), ("oops-4.4", 7), ("oops-arm64", 7), ("kasan", 16), ("lockdep", 21)])
def test_an_excerpt_says_what_happened(name: str, lines: int) -> None:
    complaint = klog.read(golden(f"{name}.console"))[0]
    said = klog.excerpt(complaint)
    assert len(said) == lines and klog.excerpt(complaint, 5) == [*said[:4], "..."]
    assert complaint.text in said
    assert not [line for line in said if re.search(r"RSP: |^\[ |Code: |cut here|\? |^$", line)]
    assert any("+0x" in line for line in said)


def test_an_excerpt_holds_no_control_characters() -> None:
    [one] = klog.read("[    1.2] BUG: Bad page \x1b[31mred\x07\t1\n")
    assert klog.excerpt(one) == ["BUG: Bad page ?[31mred? 1"]


def test_empty() -> None:
    assert klog.read("") == [] and klog.last_lines("") == []


@pytest.mark.parametrize("line, kind", [
    ("watchdog: Watchdog detected hard LOCKUP on cpu 1", "hard lockup"),
    ("NMI watchdog: Watchdog detected hard LOCKUP on cpu 1", "hard lockup"),
    ("BUG: workqueue lockup - pool cpus=1 node=0 flags=0x0 nice=0 stuck for 33s!",
     "workqueue lockup"),
    ("INFO: task kworker/u8:1:31 blocked for more than 120 seconds.", "hung task"),
    ("INFO: task my test:31 blocked in I/O wait for more than 120 seconds.", "hung task"),
    ("rcu: INFO: rcu_preempt self-detected stall on CPU", "RCU stall"),
    ("rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 2-...D }", "RCU stall"),
    ("INFO: rcu_tasks detected stalls on tasks:", "RCU stall"),
    ("BUG: KFENCE: use-after-free read in huge_pmd_unshare+0x1/0x2", "KFENCE"),
    ("BUG: KCSAN: data-race in huge_pmd_unshare / huge_pte_alloc", "KCSAN"),
    ("UBSAN: shift-out-of-bounds in mm/hugetlb.c:12:3", "UBSAN"),
    ("UBSAN: Undefined behaviour in mm/hugetlb.c:12:3", "UBSAN"),
    ("WARNING: inconsistent lock state", "lockdep"),
    ("WARNING: HARDIRQ-safe -> HARDIRQ-unsafe lock order detected", "lockdep"),
    ("WARNING: suspicious RCU usage", "lockdep"),
    ("WARNING: init/1 still has locks held!", "lockdep"),
    ("[ BUG: Invalid wait context ]", "lockdep"),
    ("[ INFO: possible circular locking dependency detected ]", "lockdep"),
    ("INFO: trying to register non-static key.", "lockdep"),
    ("BUG: MAX_LOCKDEP_CHAINS too low!", "lockdep"),
    ("BUG: Bad page map in process prog  pte:800000002a4000e7 pmd:1d1f2067", "bad page"),
    ("BUG: non-zero pgtables_bytes on freeing mm: 4096", "bad page"),
    ("BUG: non-zero nr_pmds on freeing mm: 1", "bad page"),
    ("swap_info_get: Bad swap file entry 3fffffffffffe", "bad page"),
    ("mm/memory.c:412: bad pud ffff88003d3c1600(0000000000000001)", "bad page"),
    ("pagealloc: memory corruption", "memory corruption"),
    ("BUG kmalloc-64 (Not tainted): Poison overwritten", "memory corruption"),
    ("list_del corruption. prev->next should be ffff98, but was ca53", "memory corruption"),
    ("BUG: sleeping function called from invalid context at mm/rmap.c:1521", "BUG"),
    ("BUG: scheduling while atomic: prog/97/0x00000002", "BUG"),
    ("BUG: spinlock bad magic on CPU#1, prog/97", "BUG"),
    ("divide error: 0000 [#1] SMP", "oops"),
    ("general protection fault: 0000 [#1] SMP", "oops"),
    ("general protection fault, probably for non-canonical address 0xdead: 0000 [#1]", "oops"),
    ("BUG: kernel NULL pointer dereference, address: 0000000000000008", "oops"),
    ("PANIC: double fault, error_code: 0x0", "panic"),
    ("prog invoked oom-killer: gfp_mask=0x140dca, order=0, oom_score_adj=0", "OOM"),
    ("WARNING: CPU: 0 PID: 1 at huge_pmd_unshare+0x1/0x2", "WARNING"),
    ("WARNING: at huge_pmd_unshare+0x1/0x2, CPU#0: init/1", "WARNING"),
    ("WARNING: stack recursion on stack type 4", "WARNING"),
])
@pytest.mark.parametrize("lead", ["", "[    1.000000] ", "<4>[    1.000000] ",
                                  "[    1.000000][    T1] ", "[    1.000000][   C0] ",
                                  "[12345.000000] NMI wat[    1.000000] "])
def test_each_kind_under_each_stamp(line: str, kind: str, lead: str) -> None:
    assert [complaint.kind for complaint in klog.read(f"{lead}{line}\r\n")] == [kind]


def test_a_harmless_line_hides_nothing_but_itself() -> None:
    text = golden("clean.console") + golden("bug.console")
    assert [complaint.kind for complaint in klog.read(text)] == ["BUG", "panic"]


def test_an_oops_is_one_complaint_with_its_bug() -> None:
    bug = klog.read(golden("bug.console"))[0]
    assert bug.text == "kernel BUG at include/linux/swapops.h:129!"
    assert "cut here" in bug.context[0]
    assert any("[#1]" in line for line in bug.context)
    assert any("__migration_entry_wait" in line for line in bug.context)
    assert "end trace" in bug.context[-1]


def test_list_corruption_is_one_complaint_with_its_bug() -> None:
    text = ("list_del corruption. prev->next should be a, but was b\n"
            "------------[ cut here ]------------\nkernel BUG at lib/list_debug.c:51!\n"
            "invalid opcode: 0000 [#1] SMP\n---[ end trace 0000000000000000 ]---\n")
    assert len(klog.read(text)) == 1


def test_two_events_are_two_complaints() -> None:
    assert len(klog.read(golden("oops.console") * 2)) == 2
    assert len(klog.read(golden("warning.console") * 2)) == 2
    assert len(klog.read("BUG: one thing\nBUG: another thing\n")) == 2


def test_an_oops_after_the_end_of_another_is_another() -> None:
    bug = "kernel BUG at mm/rmap.c:1!\n"
    oops = "Oops: 0000 [#2] SMP\n"
    assert len(klog.read(bug + oops)) == 1
    assert len(klog.read(bug + "---[ end trace 0000000000000000 ]---\n" + oops)) == 2
    assert len(klog.read(bug + "noise\n" * 100 + oops)) == 2


def test_a_first_line_has_no_line_before_it() -> None:
    text = "BUG: KASAN: double-free in x+0x1/0x2\n" + "=" * 66
    assert klog.read(text)[0].context == tuple(text.split("\n"))


def test_context_starts_where_the_report_does_and_has_no_stray_bytes() -> None:
    kasan = klog.read(golden("kasan.console").replace("\n", "\r\n\0"))[0]
    assert kasan.context[0].endswith("=" * 66)
    assert not any("\r" in line or "\0" in line for line in kasan.context)
    warning = klog.read(golden("warning-7.console"))[0]
    assert "cut here" in warning.context[0] and "without the lock" in warning.context[1]


def test_context_has_an_end() -> None:
    text = "BUG: one thing\n" + "noise\n" * 1000
    assert len(klog.read(text)[0].context) <= 60


def test_last_lines_are_the_complaint() -> None:
    lines = klog.last_lines(golden("bug.console") + "noise\n" * 500, 10)
    assert len(lines) == 10
    assert "cut here" in lines[0] and "kernel BUG at include/linux/swapops.h:129!" in lines[1]


def test_last_lines_without_a_complaint_are_the_tail() -> None:
    lines = klog.last_lines(golden("clean.console") + "\n\n\r\n", 2)
    assert [line.split("] ")[1] for line in lines] == \
        ["ACPI: PM: Preparing to enter system sleep state S5", "reboot: Power down"]


def test_several_cpus_die_at_once() -> None:
    """Each says where to cut before any says why: 5.10.262 did, of one freed page table."""
    cut, bug, end = ("------------[ cut here ]------------", "kernel BUG at mm/hugetlb.c:5555!",
                     "---[ end trace ca801b7a9dfd5a60 ]---")
    lines = [cut, cut, cut, bug, bug, "invalid opcode: 0000 [#1] SMP", bug, end]
    text = "".join(f"[    5.50{number:04}] {line}\n" for number, line in enumerate(lines))
    found = klog.read(text)
    assert [(one.kind, one.line) for one in found] == [("BUG", 4), ("BUG", 5), ("BUG", 7)]
    assert all(any(bug in line for line in one.context) for one in found)
    # One that is never named is a complaint all the same.
    assert [one.kind for one in klog.read(text.replace(bug, "x", 1))] == ["BUG", "BUG", "WARNING"]


def test_two_cpus_die_beside_each_other() -> None:
    """Each dumps a page before it says why, and the other's dump lies between."""
    cut, bug = "------------[ cut here ]------------", "kernel BUG at include/linux/mm.h:2572!"
    page = ["flags: 0x400000000000000(node=1|zone=0)", "raw: 0400000000000000 ffffea0000459988",
            "page dumped because: VM_BUG_ON_PAGE(page->pmd_huge_pte)"]
    log = "\n".join([cut, *page, cut, bug, "invalid opcode: 0000 [#1] SMP", "CPU: 0 PID: 225",
                     bug, "RIP: 0010:___pmd_free_tlb+0x99/0xc0"])
    assert [(one.kind, one.line) for one in klog.read(log)] == [("BUG", 6), ("BUG", 9)]
    # What is cut and never named stays a complaint.
    other = "\n".join([cut, *page, cut, bug, "invalid opcode: 0000 [#1] SMP"])
    assert [one.kind for one in klog.read(other)] == ["BUG", "WARNING"]
    far = "\n".join([cut, *page * 4, cut, bug])
    assert [(one.kind, one.line) for one in klog.read(far)] == [("WARNING", 1), ("BUG", 15)]
