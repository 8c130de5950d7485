// SPDX-License-Identifier: GPL-2.0
// EXISTS  hugetlb mappings can be moved; and, named sharing_lock, who shares a PMD table takes the lock
//         of the mapping
// NEEDS   the function that moves the entries, with that lock held, and allocates tables
// HAS     it has a table of its own there first

@there@
identifier fn = {move_hugetlb_page_tables};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
print("EXISTS %s %s:%s" % (fn, p[0].file, p[0].line))

@shares@
identifier fn = {huge_pmd_share};
identifier lock = {i_mmap_lock_read, i_mmap_lock_write};
position p;
@@
fn(...)
{
<+...
lock@p(...)
...+>
}

@script:python@
p << shares.p;
@@
print("EXISTS sharing_lock %s:%s" % (p[0].file, p[0].line))

@moves@
identifier fn = {move_hugetlb_page_tables};
position p;
@@
fn(...)
{
<+...
huge_pte_alloc@p(...)
...+>
}

@script:python@
p << moves.p;
fn << moves.fn;
@@
print("SEEN %s %s:%s" % (fn, p[0].file, p[0].line))
print("NEEDS %s %s:%s" % (fn, p[0].file, p[0].line))

@own@
identifier fn = {move_hugetlb_page_tables};
identifier alloc = {hugetlb_own_pmds, hugetlb_own_pmd, pmd_alloc};
position p;
@@
fn(...)
{
<+...
alloc@p(...)
...+>
}

@script:python@
p << own.p;
fn << own.fn;
@@
print("HAS %s %s:%s" % (fn, p[0].file, p[0].line))
