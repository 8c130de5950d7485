// SPDX-License-Identifier: GPL-2.0
// EXISTS  the function that copies, and the one that shares; and, named asks_by_count, the first asks
//         how many share a table
// NEEDS   where it asks
// HAS     it asks for the size of the page first, or the page allocator leaves a 0 in the count

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

@asks@
identifier fn = {copy_hugetlb_page_range};
identifier shared = {ptdesc_pmd_is_shared};
position p;
@@
fn(...)
{
<+...
shared@p(...)
...+>
}

@script:python@
p << asks.p;
fn << asks.fn;
@@
print("EXISTS asks_by_count %s:%s" % (p[0].file, p[0].line))
print("NEEDS %s %s:%s" % (fn, p[0].file, p[0].line))

@sized@
identifier fn = {copy_hugetlb_page_range};
identifier shared = {ptdesc_pmd_is_shared};
expression sz;
position p;
@@
fn(...)
{
<+...
sz == PMD_SIZE && shared@p(...)
...+>
}

@script:python@
p << sized.p;
fn << sized.fn;
@@
print("HAS %s %s:%s" % (fn, p[0].file, p[0].line))

@clears@
identifier fn = {set_pcppage_migratetype};
position p;
@@
fn@p(...) { ... }

@script:python@
p << clears.p;
@@
print("HAS copy_hugetlb_page_range %s:%s" % (p[0].file, p[0].line))
