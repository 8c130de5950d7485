// SPDX-License-Identifier: GPL-2.0
// EXISTS  truncation does without a lock that it does not get at once
// NEEDS   the function that truncates, the one that unmaps what it can lock, and those that get a page
// HAS     the first waits for page faults once it has set the size; the second does not pass over
//         a private mapping then; the others look at the size before anything else

@there@
identifier fn = {hugetlb_vmtruncate, hugetlb_vmdelete_list, hugetlb_vma_trylock_write, hugetlb_fault,
		 hugetlb_mfill_atomic_pte, hugetlb_mcopy_atomic_pte};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
name, where = str(fn), "%s:%s" % (p[0].file, p[0].line)
for kind in ("EXISTS",) if name == "hugetlb_vma_trylock_write" else ("SEEN", "NEEDS"):
    print("%s %s %s" % (kind, name, where))

@waits@
identifier fn = {hugetlb_vmtruncate};
identifier wait = {hugetlb_wait_for_faults, mutex_lock};
position p;
@@
fn(...)
{
<+...
i_size_write(...);
... when != i_mmap_lock_write(...)
wait@p(...);
...+>
}

@script:python@
p << waits.p;
fn << waits.fn;
@@
print("HAS %s %s:%s" % (fn, p[0].file, p[0].line))

@goes_on@
identifier fn = {hugetlb_vmdelete_list};
identifier locked;
expression hole, private;
position p;
@@
fn(...)
{
<+...
locked@p = hugetlb_vma_trylock_write(...);
if (!locked && (hole || private)) continue;
...+>
}

@script:python@
p << goes_on.p;
fn << goes_on.fn;
@@
print("HAS %s %s:%s" % (fn, p[0].file, p[0].line))

@looks@
identifier fn = {hugetlb_fault};
identifier size = {hugetlb_past_end, i_size_read};
statement S;
position p;
@@
fn(...)
{
<+...
mutex_lock(...);
... when != huge_pte_alloc(...)
if (<+... size@p(...) ...+>) S
...+>
}

@script:python@
p << looks.p;
fn << looks.fn;
@@
print("HAS %s %s:%s" % (fn, p[0].file, p[0].line))

@copies@
identifier fn = {hugetlb_mfill_atomic_pte, hugetlb_mcopy_atomic_pte};
identifier size = {hugetlb_past_end, i_size_read};
identifier get = {alloc_hugetlb_folio, alloc_huge_page};
statement S;
position p;
@@
fn(...)
{
... when != get(...)
if (<+... size@p(...) ...+>) S
...
}

@script:python@
p << copies.p;
fn << copies.fn;
@@
print("HAS %s %s:%s" % (fn, p[0].file, p[0].line))
