// SPDX-License-Identifier: GPL-2.0
// EXISTS  PMD tables can be shared
// NEEDS   the function that changes the bounds of a VMA that is split
// HAS     it unshares, with the lock of the mapping for writing: before that is taken, another
//         process still finds the VMA whole, and shares the table again

@initialize:python@
@@
SPLITS = ("__split_vma", "__vma_adjust", "vma_adjust")
locks, unshares, does = {}, {}, set()

@there@
identifier fn = {huge_pmd_share, hugetlb_split, __split_vma, __vma_adjust, vma_adjust};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
kind = "EXISTS" if str(fn) == "huge_pmd_share" else "SEEN"
print("%s %s %s:%s" % (kind, fn, p[0].file, p[0].line))

@takes@
expression mapping;
position p;
@@
(
vma_prepare@p(...)
|
i_mmap_lock_write@p(...)
|
mutex_lock@p(&mapping->i_mmap_mutex)
|
spin_lock@p(&mapping->i_mmap_lock)
)

@script:python@
p << takes.p;
@@
locks.setdefault(str(p[0].current_element), (int(p[0].line), "%s:%s" % (p[0].file, p[0].line)))

@calls@
identifier fn = {hugetlb_split, hugetlb_unshare_pmds, huge_pmd_unshare, __huge_pmd_unshare};
position p;
@@
fn@p(...)

@script:python@
p << calls.p;
fn << calls.fn;
@@
name = str(p[0].current_element)
if name in SPLITS:
    unshares.setdefault(name, []).append(
        (int(p[0].line), "%s:%s" % (p[0].file, p[0].line), str(fn)))
elif str(fn) != "hugetlb_split":
    does.add(name)

@finalize:python@
@@
# One of them takes the lock, whoever it is that changes the bounds.
for name in SPLITS:
    if name in locks:
        early = [where for line, where, _fn in unshares.get(name, []) if line < locks[name][0]]
        print("NEEDS %s %s" % (name, (early or [locks[name][1]])[0]))
        for line, where, fn in unshares.get(name, []):
            if not early and (fn in does or fn != "hugetlb_split"):
                print("HAS %s %s" % (name, where))
