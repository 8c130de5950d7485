// SPDX-License-Identifier: GPL-2.0
// EXISTS  private hugetlb mappings have a lock, and mremap() takes the map with the lock from one
// NEEDS   a function that does so; two calls in one of them are one
// HAS     i_mmap_rwsem of the file is held for writing there

@there@
identifier fn = {clear_vma_resv_huge_pages, __vma_private_lock};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
print("EXISTS %s %s:%s" % (fn, p[0].file, p[0].line))

@takes@
identifier fn = {clear_vma_resv_huge_pages};
position p;
@@
fn@p(...)

@script:python@
p << takes.p;
fn << takes.fn;
@@
# The name in its definition is no call.
if str(p[0].current_element) != str(fn):
    print("SEEN %s %s:%s" % (fn, p[0].file, p[0].line))
    print("NEEDS %s %s:%s" % (p[0].current_element, p[0].file, p[0].line))

@held@
identifier fn = {clear_vma_resv_huge_pages};
position p;
@@
i_mmap_lock_write(...);
... when != i_mmap_unlock_write(...)
(
fn@p(...);
|
if (...) fn@p(...);
)
... when != i_mmap_lock_write(...)
i_mmap_unlock_write(...);

@script:python@
p << held.p;
fn << held.fn;
@@
print("HAS %s %s:%s" % (p[0].current_element, p[0].file, p[0].line))
