// SPDX-License-Identifier: GPL-2.0
// EXISTS  PMD tables can be shared
// NEEDS   the function that has one more process share a table
// HAS     it counts that apart from the references on the table's page

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

// Not in what stands for it where nothing is shared.
@shares@
identifier fn = {huge_pmd_share};
position p;
@@
fn(...)
{
<+...
pud_populate@p(...)
...+>
}

@script:python@
p << shares.p;
fn << shares.fn;
@@
print("SEEN %s %s:%s" % (fn, p[0].file, p[0].line))
print("NEEDS %s %s:%s" % (fn, p[0].file, p[0].line))

@counts@
identifier fn = {huge_pmd_share};
expression table;
position p;
@@
fn(...)
{
<+...
(
atomic_inc(&table->pt_share_count@p)
|
ptdesc_pmd_pts_inc@p(...)
)
...+>
}

@script:python@
p << counts.p;
fn << counts.fn;
@@
print("HAS %s %s:%s" % (fn, p[0].file, p[0].line))
