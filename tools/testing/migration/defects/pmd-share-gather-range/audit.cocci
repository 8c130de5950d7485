// SPDX-License-Identifier: GPL-2.0
// EXISTS  what makes the range of an mmu_gather longer; and who unshares a PMD table tells it a PUD
// NEEDS   arm64's tlb_flush(), which flushes that range: no other architecture has PUDs that large
// HAS     the size of what is added is an unsigned long

@initialize:python@
@@
flushes, wide, told, adds = [], [], [], []

def place(p):
    return "%s:%s" % (p[0].file, p[0].line)

@adjusts@
identifier fn = {__tlb_adjust_range};
position p;
@@
fn@p(...) { ... }

@script:python@
p << adjusts.p;
fn << adjusts.fn;
@@
print("EXISTS %s %s" % (fn, place(p)))

@takes_long@
identifier t, a, size;
position p;
@@
__tlb_adjust_range@p(struct mmu_gather *t, unsigned long a, unsigned long size) { ... }

@script:python@
p << takes_long.p;
@@
wide.append(place(p))

@tells@
position p;
@@
tlb_flush_pmd_range@p(..., PUD_SIZE)

@script:python@
p << tells.p;
@@
told.append(place(p))

// 4.19 and what is older have a function of their own that adds it.
@adds_so@
position p;
@@
tlb_flush_pmd_range(...) { <+... __tlb_adjust_range@p(...) ...+> }

@script:python@
p << adds_so.p;
@@
adds.append(place(p))

@flush@
identifier fn = {tlb_flush};
position p;
@@
fn@p(...) { ... }

@script:python@
p << flush.p;
@@
if "/arm64/" in p[0].file:
    flushes.append(place(p))
    print("SEEN tlb_flush %s" % place(p))
    print("NEEDS tlb_flush %s" % place(p))

@finalize:python@
@@
if adds and told:
    print("EXISTS gathers_pud %s" % told[0])
for where in flushes:
    if wide:
        print("HAS tlb_flush %s" % wide[0])
