// SPDX-License-Identifier: GPL-2.0
// EXISTS  the failure of a huge page's memory is handled
// NEEDS   read(2) of hugetlbfs, and the function that hears of a failed page
// HAS     the first asks if the page is poisoned; the second leaves it in the page cache

@initialize:python@
@@
import re

HANDLES = ("try_memory_failure_hugetlb", "memory_failure_hugetlb", "set_page_hwpoison_huge_page")
READS = ("hugetlbfs_read_iter", "hugetlbfs_read")
HEARS = ("hugetlbfs_error_remove_page", "hugetlbfs_error_remove_folio")
leaves = {}

@there@
identifier fn = {try_memory_failure_hugetlb, memory_failure_hugetlb, set_page_hwpoison_huge_page,
                 hugetlbfs_read_iter, hugetlbfs_read, hugetlbfs_error_remove_page,
                 hugetlbfs_error_remove_folio};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
name, where = str(fn), "%s:%s" % (p[0].file, p[0].line)
for kind in ("EXISTS",) if name in HANDLES else ("SEEN", "NEEDS"):
    print("%s %s %s" % (kind, name, where))
if name in HEARS:
    leaves[name] = where

// Up to 4.12 this is how it is handled, wherever the page was marked before.
@dequeues@
identifier fn = {dequeue_hwpoisoned_huge_page};
position p;
@@
fn@p(...)

@script:python@
p << dequeues.p;
fn << dequeues.fn;
@@
print("EXISTS %s %s:%s" % (fn, p[0].file, p[0].line))

@calls@
identifier inside = {hugetlbfs_read_iter, hugetlbfs_read, hugetlbfs_error_remove_page,
                     hugetlbfs_error_remove_folio};
identifier fn;
position p;
@@
inside(...)
{
<...
fn@p(...)
...>
}

@script:python@
p << calls.p;
fn << calls.fn;
@@
name, fn = str(p[0].current_element), str(fn)
if name in READS and "hwpoison" in fn.lower():
    print("HAS %s %s:%s" % (name, p[0].file, p[0].line))
elif re.search("remove|delete|truncate|unreserve", fn):
    leaves.pop(name, None)

@finalize:python@
@@
for name, where in leaves.items():
    print("HAS %s %s" % (name, where))
