// SPDX-License-Identifier: GPL-2.0
// EXISTS  PMD tables can be shared
// NEEDS   a fault, which looks a table up and then writes to it; a walk of rmap that unshares one
// HAS     the first takes a lock before it looks, the second has the same one for writing; or else
//         nothing unshares a table of a process that may fault: no walk does, and unmapping a range
//         does so only if it is told to, which who punches a hole does not

@initialize:python@
@@
WALKS = ("try_to_unmap_one", "try_to_migrate_one", "try_to_unmap_poisoned_hugetlb_one")
MOVES = ("unmap_and_move_huge_page", "unmap_and_move_hugetlb_folio")
looks, reads, writes, walks = [], {}, {}, {}
told, leaves = [], []

@there@
identifier fn = {huge_pmd_share, hugetlb_fault, try_to_unmap_one, try_to_migrate_one,
                 try_to_unmap_poisoned_hugetlb_one, unmap_and_move_huge_page,
                 unmap_and_move_hugetlb_folio};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
kind = "EXISTS" if str(fn) == "huge_pmd_share" else "SEEN"
print("%s %s %s:%s" % (kind, fn, p[0].file, p[0].line))

@calls@
identifier fn = {huge_pte_alloc, huge_pmd_unshare, i_mmap_lock_read, hugetlb_vma_lock_read,
                 hugetlb_page_mapping_lock_write, hugetlb_folio_mapping_lock_write,
                 i_mmap_lock_write, hugetlb_vma_lock_write, hugetlb_vma_trylock_write};
position p;
@@
fn@p(...)

@script:python@
p << calls.p;
fn << calls.fn;
@@
name, fn = str(p[0].current_element), str(fn)
where = (int(p[0].line), "%s:%s" % (p[0].file, p[0].line))
lock = "VMA" if "vma_" in fn else "mapping"
if name == "hugetlb_fault":
    if fn == "huge_pte_alloc":
        looks.append(where)
    elif fn.endswith("_lock_read"):
        reads.setdefault(lock, where)
elif name in WALKS and fn == "huge_pmd_unshare":
    walks.setdefault(name, where)
elif name in WALKS + MOVES and fn.endswith("lock_write"):
    writes.setdefault((name, lock), where)

@told@
identifier unshare;
position p;
@@
__unmap_hugepage_range(..., bool unshare)
{
<+...
unshare && huge_pmd_unshare@p(...)
...+>
}

@script:python@
p << told.p;
@@
told.append("%s:%s" % (p[0].file, p[0].line))

@leaves@
symbol false;
position p;
@@
unmap_hugepage_range(...)
{
<+...
__unmap_hugepage_range@p(..., false)
...+>
}

@script:python@
p << leaves.p;
@@
leaves.append("%s:%s" % (p[0].file, p[0].line))

@finalize:python@
@@
for line, where in sorted(looks)[:1]:
    print("NEEDS hugetlb_fault %s" % where)
    if leaves and not walks:
        for place in told:
            print("HAS hugetlb_fault %s" % place)
    held = [lock for lock in reads if reads[lock][0] < line]
    for lock in held:
        print("HAS hugetlb_fault %s" % reads[lock][1])
    for name, (_line, where) in walks.items():
        print("NEEDS %s %s" % (name, where))
        # The lock of the mapping is taken by who calls the walk.
        for by, lock in writes:
            if lock in held and (by == name or by in MOVES):
                print("HAS %s %s" % (name, writes[by, lock][1]))
