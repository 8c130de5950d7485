// SPDX-License-Identifier: GPL-2.0
// EXISTS  PMD tables can be shared, and a walk of rmap unshares them, or leaves them shared and
//         flushes all who share one
// NEEDS   a walk of rmap that unshares one; and where one leaves them shared, who puts the entry back
//         after that, since it has the protection of one of those who share the table
// HAS     who starts the walk takes the lock of the mapping for writing; who puts the entry back asks
//         if it suits all, or mprotect() changes flags and entries in one hold of that lock, so that
//         what suits one who shares the table suits all

@initialize:python@
@@
WALKS = ("try_to_unmap_one", "try_to_migrate_one", "try_to_unmap_poisoned_hugetlb_one")
MOVES = ("unmap_and_move_huge_page", "unmap_and_move_hugetlb_folio")
# Who starts the walks may flush for all of them.
STARTS = ("rmap_walk_sharers", "try_to_migrate", "try_to_unmap")
CHANGES = "hugetlb_change_protection"
locked, changed, leaves = [], [], []
writes, walks, flushes, drops, restores = {}, {}, {}, {}, {}

@there@
identifier fn = {huge_pmd_share, try_to_unmap_one, try_to_migrate_one,
                 try_to_unmap_poisoned_hugetlb_one, unmap_and_move_huge_page,
                 unmap_and_move_hugetlb_folio, remove_migration_pte};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
kind = "EXISTS" if str(fn) == "huge_pmd_share" else "SEEN"
print("%s %s %s:%s" % (kind, fn, p[0].file, p[0].line))
if str(fn) == "remove_migration_pte":
    restores[str(fn)] = "%s:%s" % (p[0].file, p[0].line)

@calls@
identifier fn = {huge_pmd_unshare, hugetlb_page_mapping_lock_write, hugetlb_sharers_flush,
                 hugetlb_drop_shared_entry,
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
elif name in WALKS + STARTS and fn == "hugetlb_sharers_flush":
    flushes.setdefault(name, where)
elif fn == "hugetlb_drop_shared_entry":
    drops.setdefault(name, where)
elif name in WALKS + MOVES and fn.endswith("lock_write"):
    writes.setdefault(name, where)
elif name == CHANGES and fn == "i_mmap_lock_write":
    locked.append(int(p[0].line))

@sets@
identifier set = {vm_flags_reset, vm_flags_reset_once, vma_flags_reset_once, vm_flags_init};
position p;
@@
hugetlb_change_protection(...) { <+... set@p(...) ...+> }

@script:python@
p << sets.p;
@@
changed.append((int(p[0].line), "%s:%s" % (p[0].file, p[0].line)))

@left@
position p;
@@
mprotect_fixup(...) { <+... hugetlb_change_protection@p(...) ...+> }

@script:python@
p << left.p;
@@
leaves.append(int(p[0].line))

@finalize:python@
@@
for name, where in flushes.items():
    print("EXISTS walk_of_shared %s" % where)
if flushes:
    for name, where in restores.items():
        print("NEEDS %s %s" % (name, where))
        if name in drops:
            print("HAS %s %s" % (name, drops[name]))
        # mprotect_fixup() of older kernels has the lock itself.  Nothing is said of that: a strict
        # entry of one is bad for the others there, see pmd-share-mprotect.
        elif locked and changed and leaves and min(locked) < min(changed)[0]:
            print("HAS %s %s" % (name, min(changed)[1]))
for name, where in walks.items():
    print("EXISTS walk_of_shared %s" % where)
    print("NEEDS %s %s" % (name, where))
    # The lock is taken by who calls the walk.
    for by, lock in writes.items():
        if by == name or by in MOVES:
            print("HAS %s %s" % (name, lock))
