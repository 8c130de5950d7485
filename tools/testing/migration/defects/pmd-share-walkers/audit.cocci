// SPDX-License-Identifier: GPL-2.0
// EXISTS  PMD tables can be shared, and a walk of rmap unshares them
// NEEDS   a walk of rmap that unshares one
// HAS     who starts the walk takes the lock of the mapping for writing

@initialize:python@
@@
WALKS = ("try_to_unmap_one", "try_to_migrate_one", "try_to_unmap_poisoned_hugetlb_one")
MOVES = ("unmap_and_move_huge_page", "unmap_and_move_hugetlb_folio")
writes, walks = {}, {}

@there@
identifier fn = {huge_pmd_share, try_to_unmap_one, try_to_migrate_one,
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
identifier fn = {huge_pmd_unshare, hugetlb_page_mapping_lock_write,
                 hugetlb_folio_mapping_lock_write, i_mmap_lock_write};
position p;
@@
fn@p(...)

@script:python@
p << calls.p;
fn << calls.fn;
@@
name, fn = str(p[0].current_element), str(fn)
where = "%s:%s" % (p[0].file, p[0].line)
if name in WALKS and fn == "huge_pmd_unshare":
    walks.setdefault(name, where)
elif name in WALKS + MOVES and fn.endswith("lock_write"):
    writes.setdefault(name, where)

@finalize:python@
@@
for name, where in walks.items():
    print("EXISTS unsharing_walk %s" % where)
    print("NEEDS %s %s" % (name, where))
    # The lock is taken by who calls the walk.
    for by, lock in writes.items():
        if by == name or by in MOVES:
            print("HAS %s %s" % (name, lock))
