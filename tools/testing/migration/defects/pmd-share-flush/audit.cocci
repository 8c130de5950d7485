// SPDX-License-Identifier: GPL-2.0
// EXISTS  PMD tables can be shared
// NEEDS   a function that unmaps a range of a hugetlb mapping
// HAS     it flushes what goes with an unshared table: by itself, or by noting it in the mmu_gather
//         that its caller flushes

@there@
identifier fn = {huge_pmd_share};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
print("EXISTS %s %s:%s" % (fn, p[0].file, p[0].line))

@unmaps@
identifier fn = {__unmap_hugepage_range, unmap_hugepage_range};
position p;
@@
fn@p(...) { ... }

@unshares@
position p;
@@
huge_pmd_unshare@p(...)

@script:python@
p << unmaps.p;
fn << unmaps.fn;
@@
print("SEEN %s %s:%s" % (fn, p[0].file, p[0].line))

// The one of the two that does it; which is which has changed over the years.
@script:python@
p << unmaps.p;
fn << unmaps.fn;
q << unshares.p;
@@
if str(q[0].current_element) == str(fn):
    print("NEEDS %s %s:%s" % (fn, p[0].file, q[0].line))

// A range, and not just the one that was asked for.
@flushes@
identifier fn = {tlb_flush_pmd_range, flush_tlb_range, flush_hugetlb_tlb_range};
expression first, from;
position p;
@@
fn@p(first, from, ...)

@script:python@
p << flushes.p;
from_ << flushes.from;
@@
if str(from_) != "start" and str(p[0].current_element) in ("__unmap_hugepage_range", "unmap_hugepage_range"):
    print("HAS %s %s:%s" % (p[0].current_element, p[0].file, p[0].line))

@notes@
identifier fn = {__unmap_hugepage_range, unmap_hugepage_range};
identifier tlb;
position p;
@@
fn(struct mmu_gather *tlb, ...)
{
<...
huge_pmd_unshare@p(tlb, ...)
...>
}

@script:python@
p << notes.p;
fn << notes.fn;
@@
print("HAS %s %s:%s" % (fn, p[0].file, p[0].line))
