// SPDX-License-Identifier: GPL-2.0
// EXISTS  PMD tables can be shared, and their users hold the lock of the VMA
// NEEDS   the allocation of that lock
// HAS     it cannot fail; or else the split of a VMA looks whether the new half has got its lock

@there@
identifier fn = {huge_pmd_share, hugetlb_vma_lock_alloc};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
print("EXISTS %s %s:%s" % (fn, p[0].file, p[0].line))

@allocs@
identifier fn = {hugetlb_vma_lock_alloc};
identifier alloc = {kmalloc, kzalloc, kmalloc_obj, kzalloc_obj};
expression list how;
position p;
@@
fn(...)
{
<+...
alloc@p(how)
...+>
}

@script:python@
p << allocs.p;
fn << allocs.fn;
how << allocs.how;
@@
where = "%s:%s" % (p[0].file, p[0].line)
print("SEEN %s %s" % (fn, where))
print("NEEDS %s %s" % (fn, where))
if "__GFP_NOFAIL" in str(how):
    print("HAS %s %s" % (fn, where))

@asks@
identifier fn = {__split_vma, hugetlb_split};
position p;
@@
fn(...)
{
<+...
__vma_shareable_lock@p(...)
...+>
}

@script:python@
p << asks.p;
@@
print("HAS hugetlb_vma_lock_alloc %s:%s" % (p[0].file, p[0].line))
