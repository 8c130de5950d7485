// SPDX-License-Identifier: GPL-2.0
// EXISTS  the function that copies, and the one that shares
// NEEDS   where the first has a table of the child
// HAS     it asks whether that is shared, or whether the entry is there

@there@
identifier fn = {copy_hugetlb_page_range, huge_pmd_share};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
for kind in ("EXISTS", "SEEN") if str(fn) == "copy_hugetlb_page_range" else ("EXISTS",):
    print("%s %s %s:%s" % (kind, fn, p[0].file, p[0].line))

@allocs@
identifier fn = {copy_hugetlb_page_range};
identifier dst;
position p;
@@
fn(...)
{
<+...
dst = huge_pte_alloc@p(...)
...+>
}

@script:python@
p << allocs.p;
fn << allocs.fn;
@@
print("NEEDS %s %s:%s" % (fn, p[0].file, p[0].line))

@counts exists@
identifier fn = {copy_hugetlb_page_range};
identifier dst;
position p;
@@
fn(...)
{
... when any
dst = huge_pte_alloc(...);
... when any
(
page_count@p(virt_to_page(dst)) > 1
|
hugetlb_pmd_shared@p(dst)
|
atomic_read@p(&virt_to_page(dst)->pt_share_count)
|
ptdesc_pmd_is_shared@p(virt_to_ptdesc(dst))
|
huge_pte_none@p(huge_ptep_get(dst))
)
... when any
}

@script:python@
p << counts.p;
fn << counts.fn;
@@
print("HAS %s %s:%s" % (fn, p[0].file, p[0].line))

@compares exists@
identifier fn = {copy_hugetlb_page_range};
identifier dst;
identifier entry;
position p;
@@
fn(...)
{
... when any
dst = huge_pte_alloc(...);
... when any
entry = huge_ptep_get(dst);
... when any
huge_pte_none@p(entry)
... when any
}

@script:python@
p << compares.p;
fn << compares.fn;
@@
print("HAS %s %s:%s" % (fn, p[0].file, p[0].line))
