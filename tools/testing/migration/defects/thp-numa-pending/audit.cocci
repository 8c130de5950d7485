// SPDX-License-Identifier: GPL-2.0
// EXISTS  who migrates a page asks if a flush is pending
// NEEDS   the function that says that one is
// HAS     it counts

@there@
identifier fn = {mm_tlb_flush_pending, set_tlb_flush_pending, inc_tlb_flush_pending};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
kind = "EXISTS" if str(fn) == "mm_tlb_flush_pending" else "SEEN"
print("%s %s %s:%s" % (kind, fn, p[0].file, p[0].line))

// Not what stands for it where nothing is ever pending.
@says@
identifier fn = {set_tlb_flush_pending, inc_tlb_flush_pending};
expression mm;
position p;
@@
fn@p(...)
{
<+...
mm->tlb_flush_pending
...+>
}

@script:python@
p << says.p;
fn << says.fn;
@@
print("NEEDS %s %s:%s" % (fn, p[0].file, p[0].line))

@counts@
identifier fn = {set_tlb_flush_pending, inc_tlb_flush_pending};
expression mm;
position p;
@@
fn(...)
{
<+...
atomic_inc@p(&mm->tlb_flush_pending)
...+>
}

@script:python@
p << counts.p;
fn << counts.fn;
@@
print("HAS %s %s:%s" % (fn, p[0].file, p[0].line))
