// SPDX-License-Identifier: GPL-2.0
// EXISTS  truncation does without a lock that it does not get at once
// NEEDS   the function that truncates, and the one that unmaps what it can lock
// HAS     the first waits for page faults once it has set the size; the second does not pass over
//         a private mapping then

@there@
identifier fn = {hugetlb_vmtruncate, hugetlb_vmdelete_list, hugetlb_vma_trylock_write};
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
