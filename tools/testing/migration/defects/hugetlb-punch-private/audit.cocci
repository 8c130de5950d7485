// SPDX-License-Identifier: GPL-2.0
// EXISTS  a page of a hole is unmapped with the lock of each mapping, and private mappings have one
// NEEDS   the function that unmaps it, and waits for a lock that it cannot have at once
// HAS     it asks whether the mapping is shared before it tries to get the lock

@there@
identifier fn = {hugetlb_unmap_file_folio, hugetlb_unmap_file_page, __vma_private_lock};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
print("EXISTS %s %s:%s" % (fn, p[0].file, p[0].line))

@waits@
identifier fn = {hugetlb_unmap_file_folio, hugetlb_unmap_file_page};
position p;
@@
fn(...)
{
<+...
hugetlb_vma_trylock_write@p(...)
...+>
}

@script:python@
p << waits.p;
fn << waits.fn;
@@
print("SEEN %s %s:%s" % (fn, p[0].file, p[0].line))
print("NEEDS %s %s:%s" % (fn, p[0].file, p[0].line))

@asks@
identifier fn = {hugetlb_unmap_file_folio, hugetlb_unmap_file_page};
identifier shared, asking = {__vma_shareable_lock};
expression vma;
position p;
@@
fn(...)
{
<+...
(
shared@p = vma->vm_flags & VM_MAYSHARE;
...
if (shared && !hugetlb_vma_trylock_write(...)) { ... }
|
asking@p(...) && !hugetlb_vma_trylock_write(...)
)
...+>
}

@script:python@
p << asks.p;
fn << asks.fn;
@@
print("HAS %s %s:%s" % (fn, p[0].file, p[0].line))
