# SPDX-License-Identifier: GPL-2.0
"""What Documentation/mm/hugetlb_pmd_sharing.rst says about locks, as rules for coccinelle.

A claim is about calls in one function.  It is broken where a path leads to such a call without the
lock: from the beginning of the function, or from where the lock was released.  It says nothing
where the function has no such call, and that is an error too.

Coccinelle does not know that two conditions are the same.  A function that takes a lock under a
condition, and needs it under the same one, has a claim for `some` path.
"""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lab.kernel import spatch

HUGETLB, RMAP, INODE = "mm/hugetlb.c", "mm/rmap.c", "fs/hugetlbfs/inode.c"
READ = "VMA lock, for reading"
WRITE = "VMA lock, for writing"
TRIED = "VMA lock, tried for writing"
MAPPED = "i_mmap_rwsem, for writing"
SOUGHT = "i_mmap_rwsem, for reading"
ENTRY = "page table lock"
PUD = "mm->page_table_lock"
FOLIO = "folio lock"
MMAP = "mmap lock, for writing"
STARTED = "per-VMA lock, for writing"
OFF = "interrupts off"
# Many rules at once: one file took more than a minute on a machine with 16 jobs for 2 CPUs.
SECONDS = 600


@dataclass(frozen=True)
class Lock:
    """The calls that take a lock, or show that it is held, and those that release it."""

    takes: tuple[str, ...]
    releases: tuple[str, ...]


LOCKS = {
    READ: Lock(("hugetlb_vma_lock_read(...)", "vma_pgtable_walk_begin(...)"),
               ("hugetlb_vma_unlock_read(...)", "vma_pgtable_walk_end(...)")),
    WRITE: Lock(("hugetlb_vma_lock_write(...)",), ("hugetlb_vma_unlock_write(...)",)),
    TRIED: Lock(("hugetlb_vma_trylock_write(...)",), ("hugetlb_vma_unlock_write(...)",)),
    MAPPED: Lock(("i_mmap_lock_write(...)", "i_mmap_assert_write_locked(...)",
                  "hugetlb_folio_mapping_lock_write(...)", "hugetlb_page_mapping_lock_write(...)",
                  "vma_prepare(...)"), ("i_mmap_unlock_write(...)", "vma_complete(...)")),
    # Before 6.1 the caller has it, and that is checked.
    SOUGHT: Lock(("i_mmap_lock_read(...)", "i_mmap_assert_locked(...)"),
                 ("i_mmap_unlock_read(...)",)),
    ENTRY: Lock(("huge_pte_lock(...)",), ("spin_unlock(ptl)", "spin_unlock(vmf.ptl)")),
    PUD: Lock(("spin_lock(&mm->page_table_lock)",), ("spin_unlock(&mm->page_table_lock)",)),
    OFF: Lock(("local_irq_save(...)",), ("local_irq_restore(...)",)),
    # The last four are those of 6.1.
    FOLIO: Lock(("folio_lock(...)", "folio_trylock(...)", "filemap_lock_hugetlb_folio(...)",
                 "lock_page(...)", "trylock_page(...)", "find_lock_page(...)",
                 "filemap_lock_folio(...)"), ("folio_unlock(...)", "unlock_page(...)")),
    # Where it is not taken it is checked: also by what write-locks a VMA, or checks that.
    MMAP: Lock(("mmap_assert_write_locked(...)", "vma_assert_write_locked(...)",
                "vma_start_write(...)"),
               ("mmap_write_unlock(...)", "mmap_write_downgrade(...)")),
    # It has no end of its own.
    STARTED: Lock(("vma_start_write(vma)",),
                  ("mmap_write_unlock(...)", "mmap_write_downgrade(...)")),
}


@dataclass(frozen=True)
class Claim:
    """Each `call` in `function` is made with `lock` held."""

    function: str
    call: str
    lock: str
    file: str = HUGETLB
    by_caller: bool = False     # it has the lock when it begins
    some: bool = False          # on some path
    unless: tuple[str, ...] = ()    # not where the path comes by one of these
    moved: str = ""             # names in older kernels: of the file, the function, the call
    older: str = ""
    called: str = ""
    bug: bool = False           # it has the lock, and should not
    first: str = ""             # not of kernels before this one, nor after that: another claim
    last: str = ""              # is about the same there
    row: str = ""               # the function that the page names, where it is not this one

    def name(self) -> str:
        return f"{self.function}() calls {self.call}() with: {self.lock}"

    def metavariables(self) -> str:
        """The function and the call, by each name that they have had."""
        return "".join(f"identifier {what} = {{{', '.join(filter(None, names))}}};\n"
                       for what, names in (("fn", (self.function, self.older)),
                                           ("call", (self.call, self.called))))


USERFAULTFD, FAILURE = "mm/userfaultfd.c", "mm/memory-failure.c"
CLAIMS = (
    # Those who use an entry.
    Claim("hugetlb_fault", "huge_pte_alloc", READ),
    Claim("hugetlb_fault", "hugetlb_no_page", READ),
    Claim("hugetlb_fault", "hugetlb_wp", READ),
    Claim("hugetlb_fault", "migration_entry_wait_huge", READ),
    Claim("handle_userfault", "userfaultfd_huge_must_wait", READ, USERFAULTFD, some=True,
          moved="fs/userfaultfd.c"),
    Claim("mfill_atomic_hugetlb", "huge_pte_alloc", READ, USERFAULTFD,
          older="__mcopy_atomic_hugetlb"),
    Claim("mfill_atomic_hugetlb", "hugetlb_mfill_atomic_pte", READ, USERFAULTFD,
          older="__mcopy_atomic_hugetlb", called="hugetlb_mcopy_atomic_pte"),
    Claim("copy_hugetlb_page_range", "hugetlb_walk", READ, called="huge_pte_offset",
          # Where entries are copied to be written to, the mapping is private.
          unless=("raw_write_seqcount_begin(...)",)),
    Claim("walk_hugetlb_range", "hugetlb_walk", READ, "mm/pagewalk.c"),
    Claim("follow_page_mask", "follow_p4d_mask", READ, "mm/gup.c", first="6.12"),
    Claim("hugetlb_follow_page_mask", "hugetlb_walk", READ, last="6.6", row="follow_page_mask"),
    Claim("folio_walk_start", "pgd_offset", READ, "mm/pagewalk.c"),
    # Who shares.
    Claim("huge_pmd_share", "page_table_shareable", SOUGHT),
    Claim("huge_pmd_share", "ptdesc_pmd_pts_inc", SOUGHT, called="atomic_inc"),
    Claim("huge_pmd_share", "pud_populate", SOUGHT),
    Claim("huge_pmd_share", "pmd_alloc", SOUGHT),
    Claim("huge_pmd_share", "pud_populate", PUD),
    # Those who unshare.
    Claim("move_hugetlb_page_tables", "huge_pmd_unshare", WRITE),
    Claim("move_hugetlb_page_tables", "huge_pmd_unshare", MAPPED),
    Claim("hugetlb_change_protection", "huge_pmd_unshare", WRITE),
    Claim("hugetlb_change_protection", "huge_pmd_unshare", MAPPED),
    Claim("hugetlb_change_protection", "huge_pmd_unshare", ENTRY),
    Claim("hugetlb_unshare_pmds", "__huge_pmd_unshare", WRITE, called="huge_pmd_unshare",
          unless=("i_mmap_assert_write_locked(...)",)),
    Claim("hugetlb_unshare_pmds", "__huge_pmd_unshare", MAPPED, called="huge_pmd_unshare"),
    Claim("hugetlb_unshare_pmds", "__huge_pmd_unshare", ENTRY, called="huge_pmd_unshare"),
    Claim("__split_vma", "hugetlb_split", MAPPED, "mm/vma.c", moved="mm/mmap.c"),
    Claim("__split_vma", "hugetlb_split", STARTED, "mm/vma.c", moved="mm/mmap.c"),
    Claim("hugetlb_split", "hugetlb_unshare_pmds", MMAP),
    Claim("__unmap_hugepage_range", "huge_pmd_unshare", MAPPED, by_caller=True),
    Claim("__unmap_hugepage_range", "huge_pmd_unshare", ENTRY),
    Claim("try_to_migrate_one", "huge_pmd_unshare", TRIED, RMAP),
    Claim("try_to_unmap_poisoned_hugetlb_one", "huge_pmd_unshare", TRIED, RMAP,
          older="try_to_unmap_one"),
    Claim("unmap_and_move_hugetlb_folio", "try_to_migrate", MAPPED, "mm/migrate.c", some=True,
          older="unmap_and_move_huge_page"),
    Claim("unmap_poisoned_folio", "try_to_unmap", MAPPED, FAILURE, some=True,
          older="hwpoison_user_mappings"),
    Claim("hugetlb_vmdelete_list", "unmap_hugepage_range", TRIED, INODE),
    Claim("hugetlb_unmap_file_folio", "unmap_hugepage_range", MAPPED, INODE,
          older="remove_inode_hugepages", called="hugetlb_vmdelete_list"),
    # What is freed, and when.
    Claim("__hugetlb_zap_end", "__hugetlb_vma_unlock_write_free", MAPPED, by_caller=True,
          older="__unmap_hugepage_range_final"),
    # Who waits for i_mmap_rwsem with the folio locked.
    Claim("remove_inode_single_folio", "hugetlb_unmap_file_folio", FOLIO, INODE,
          older="remove_inode_hugepages", called="hugetlb_vmdelete_list"),
    Claim("hugetlb_unmap_file_folio", "i_mmap_lock_write", FOLIO, INODE, by_caller=True,
          older="remove_inode_hugepages"),
    # Who waits for the VMA lock with the folio locked.
    Claim("hugetlb_unmap_file_folio", "down_write", FOLIO, INODE, by_caller=True),
    Claim("hugetlb_wp", "hugetlb_vma_lock_read", FOLIO, by_caller=True),
    Claim("hugetlb_fault", "hugetlb_wp", FOLIO, some=True, called="hugetlb_cow"),
    Claim("hugetlb_wp", "unmap_ref_private", FOLIO, by_caller=True, older="hugetlb_cow"),
    Claim("try_memory_failure_hugetlb", "hwpoison_user_mappings", FOLIO, FAILURE),
    Claim("hwpoison_user_mappings", "collect_procs", FOLIO, FAILURE, by_caller=True),
    Claim("collect_procs", "collect_procs_file", FOLIO, FAILURE, by_caller=True),
    Claim("collect_procs_file", "i_mmap_lock_read", FOLIO, FAILURE, by_caller=True),
    # Who makes an entry.
    Claim("hugetlb_no_page", "huge_pte_lock", FOLIO),
    # huge_pte_alloc() may take it for reading: a bug, but for a VMA that never shares.
    Claim("move_hugetlb_page_tables", "huge_pte_alloc", MAPPED, bug=True),
    Claim("hugetlb_change_protection", "huge_pte_alloc", MAPPED),
    # A bug: who has the folio may wait for it.
    Claim("hugetlbfs_punch_hole", "hugetlbfs_zero_partial_page", MAPPED, INODE, bug=True),
    Claim("hugetlbfs_zero_partial_page", "filemap_lock_hugetlb_folio", MAPPED, INODE,
          by_caller=True, bug=True, called="filemap_lock_folio"),
    # Who takes none.
    Claim("gup_fast", "gup_fast_pgd_range", OFF, "mm/gup.c", older="lockless_pages_from_mm",
          called="gup_pgd_range"),
)


def rules(claims: Sequence[Claim]) -> str:
    """For files that these claims are about: lines `CALLS n` and `BROKEN n line`."""
    return "".join(_rules(number, claim) for number, claim in enumerate(claims))


def _rules(number: int, claim: Claim) -> str:
    lock = LOCKS[claim.lock]
    without = "".join(f"    when != {one}\n" for one in (*lock.takes, *claim.unless))
    found = [_rule(f"calls{number}", "", claim,
                   "<+...\ncall@p(...)\n...+>", "CALLS", number)]
    if claim.some:
        # Seen is what is right: the rest is broken.
        held = "".join(f"    when != {one}\n" for one in lock.releases)
        found += [_rule(f"held{number}_{at}", " exists", claim,
                        f"... when any\n{take}\n...\n{held}call@p(...)\n... when any",
                        "HELD", number) for at, take in enumerate(lock.takes)]
        return "".join(found)
    if not claim.by_caller:
        found.append(_rule(f"never{number}", " exists", claim,
                           f"...\n{without}call@p(...)\n... when any", "BROKEN", number))
    for at, release in enumerate(lock.releases):
        found.append(_rule(f"late{number}_{at}", " exists", claim,
                           f"... when any\n{release}\n...\n{without}call@p(...)\n"
                           "... when any", "BROKEN", number))
    return "".join(found)


def _rule(name: str, how: str, claim: Claim, body: str, word: str, number: int) -> str:
    return f"""
@{name}{how}@
{claim.metavariables()}position p;
@@
fn(...)
{{
{body}
}}

@script:python@
p << {name}.p;
@@
print("{word} {number} %s" % p[0].line)
"""


def file_of(tree: Path, claim: Claim) -> str:
    """Where the function is in this tree."""
    for name in filter(None, (claim.file, claim.moved)):
        path = tree / name
        if path.exists() and re.search(rf"(?m)^(?!\s).*\b{claim.function}\(",
                                        path.read_text("utf-8", "replace")):
            return name
    return claim.file


# The order of locks: who has the second does not wait for the first.  And what is to be done
# before something is over.  spatch looks at one function at a time, and the page has those that are
# in the wrong order with what their callers hold: each of these is a claim.
ORDER = """
@order exists@
identifier fn;
identifier map = {i_mmap_lock_write, i_mmap_lock_read};
identifier vma = {hugetlb_vma_lock_write, hugetlb_vma_lock_read};
position p;
@@
fn(...)
{
... when any
map(...)
...  when != i_mmap_unlock_write(...)
     when != i_mmap_unlock_read(...)
vma@p(...)
... when any
}

@script:python@
p << order.p;
fn << order.fn;
@@
print("order %s %s:%s" % (fn, p[0].file, p[0].line))

@fault exists@
identifier fn;
identifier held = {hugetlb_vma_lock_write, hugetlb_vma_lock_read, i_mmap_lock_write,
		   i_mmap_lock_read};
position p;
@@
fn(...)
{
... when any
held(...)
...  when != hugetlb_vma_unlock_write(...)
     when != hugetlb_vma_unlock_read(...)
     when != i_mmap_unlock_write(...)
     when != i_mmap_unlock_read(...)
mutex_lock@p(&hugetlb_fault_mutex_table[...])
... when any
}

@script:python@
p << fault.p;
fn << fault.fn;
@@
print("fault %s %s:%s" % (fn, p[0].file, p[0].line))

@folio exists@
identifier fn;
identifier map = {i_mmap_lock_write, i_mmap_lock_read};
identifier wait = {folio_lock, filemap_lock_hugetlb_folio, filemap_lock_folio};
position p;
@@
fn(...)
{
... when any
map(...)
...  when != i_mmap_unlock_write(...)
     when != i_mmap_unlock_read(...)
wait@p(...)
... when any
}

@script:python@
p << folio.p;
fn << folio.fn;
@@
print("folio %s %s:%s" % (fn, p[0].file, p[0].line))

@above exists@
identifier fn;
identifier has = {folio_lock, folio_trylock, filemap_lock_hugetlb_folio, filemap_lock_folio};
identifier wait = {i_mmap_lock_write, i_mmap_lock_read, hugetlb_vma_lock_write,
		   hugetlb_vma_lock_read};
position p;
@@
fn(...)
{
... when any
has(...)
...  when != folio_unlock(...)
wait@p(...)
... when any
}

@script:python@
p << above.p;
fn << above.fn;
@@
print("above %s %s:%s" % (fn, p[0].file, p[0].line))

@sleeps exists@
identifier fn;
expression h, ptep, range, mm, ptl;
position p;
@@
fn(...)
{
... when any
ptl = huge_pte_lock(h, mm, ptep)
...  when != spin_unlock(ptl)
mmu_notifier_invalidate_range_start@p(range)
... when any
}

@script:python@
p << sleeps.p;
fn << sleeps.fn;
@@
print("sleeps %s %s:%s" % (fn, p[0].file, p[0].line))

@inside@
identifier fn;
identifier unshare = {huge_pmd_unshare, __huge_pmd_unshare};
position p;
@@
fn(...)
{
<+...
if (unshare@p(...)) {
... when any
huge_pmd_unshare_flush(...);
...
}
...+>
}

@late exists@
identifier fn != huge_pmd_unshare;
identifier unshare = {huge_pmd_unshare, __huge_pmd_unshare};
position p != inside.p;
@@
fn(...)
{
... when any
unshare@p(...)
...  when != huge_pmd_unshare_flush(...)
i_mmap_unlock_write(...)
... when any
}

@script:python@
p << late.p;
fn << late.fn;
@@
print("late %s %s:%s" % (fn, p[0].file, p[0].line))

@unflushed exists@
identifier fn != huge_pmd_unshare;
identifier unshare = {huge_pmd_unshare, __huge_pmd_unshare};
position p != inside.p;
@@
fn(...)
{
... when any
unshare@p(...)
...  when != huge_pmd_unshare_flush(...)
}

@script:python@
p << unflushed.p;
fn << unflushed.fn;
@@
print("unflushed %s %s:%s" % (fn, p[0].file, p[0].line))
"""
# Where locks are taken that are about hugetlb, in any kernel.
FILES = (HUGETLB, RMAP, INODE, "mm/memory.c", "mm/migrate.c", "mm/memory-failure.c",
         "mm/pagewalk.c", USERFAULTFD, "fs/userfaultfd.c")


def out_of_order(tree: Path, work: Path) -> list[str]:
    """What takes locks in the wrong order, flushes late, or may sleep with a spinlock."""
    rule = work / "order.cocci"
    rule.write_text(ORDER, encoding="utf-8")
    # spatch has one thread.
    with ThreadPoolExecutor(max_workers=2) as pool:
        said = pool.map(lambda name: spatch.find(rule, tree, [name], SECONDS),
                        [name for name in FILES if (tree / name).exists()])
        return [line for lines in said for line in lines]


def broken(tree: Path, claims: Sequence[Claim], work: Path) -> dict[str, list[str]]:
    """By the name of the claim: why it does not hold in the tree; nothing for one that does."""
    found: dict[str, list[str]] = {}
    files: dict[str, list[Claim]] = {}
    for claim in claims:
        files.setdefault(file_of(tree, claim), []).append(claim)

    def find(number: int, file: str) -> list[str]:
        rule = work / f"locks{number}.cocci"
        rule.write_text(rules(files[file]), encoding="utf-8")
        return spatch.find(rule, tree, [file], SECONDS)

    with ThreadPoolExecutor(max_workers=2) as pool:
        printed = list(pool.map(find, range(len(files)), files))
    for (file, about), lines in zip(files.items(), printed):
        said = [line.split() for line in lines]
        for number, claim in enumerate(about):
            here = [(word, line) for word, one, line in said if int(one) == number]
            calls = {line for word, line in here if word == "CALLS"}
            wrong = {line for word, line in here if word == "BROKEN"}
            if claim.some and not {line for word, line in here if word == "HELD"}:
                wrong = calls
            if not calls:
                found[claim.name()] = [f"{file} has no such call"]
            elif wrong:
                found[claim.name()] = [f"{file}:{line}" for line in sorted(wrong, key=int)]
    return found
