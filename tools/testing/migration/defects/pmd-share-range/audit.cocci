// SPDX-License-Identifier: GPL-2.0
// EXISTS  a range is widened to all that may go with a shared PMD table
// NEEDS   the function that widens it
// HAS     it rounds both ends outwards, or walks in steps of a PUD from an address that it rounded

@initialize:python@
@@
NAME = "adjust_range_if_pmd_sharing_possible"
down, up, walk = [], [], []

def note(places, p, what=""):
    # To round the bounds of the VMA does not widen the range.
    if str(p[0].current_element) == NAME and not str(what).endswith(("vm_start", "vm_end")):
        places.append("%s:%s" % (p[0].file, p[0].line))

@there@
identifier fn = {adjust_range_if_pmd_sharing_possible};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
@@
print("EXISTS %s %s:%s" % (NAME, p[0].file, p[0].line))

// Not the stub of architectures that share nothing.
@real depends on there@
identifier fn = {adjust_range_if_pmd_sharing_possible};
identifier vma;
position p;
@@
fn@p(struct vm_area_struct *vma, ...)
{
<+...
vma->vm_flags
...+>
}

@script:python@
p << real.p;
@@
print("SEEN %s %s:%s" % (NAME, p[0].file, p[0].line))
print("NEEDS %s %s:%s" % (NAME, p[0].file, p[0].line))

@rounds_down depends on there@
identifier fn = {ALIGN_DOWN, round_down, rounddown};
expression e;
position p;
@@
(
fn@p(e, PUD_SIZE)
|
e &@p PUD_MASK
)

@script:python@
p << rounds_down.p;
e << rounds_down.e;
@@
note(down, p, e)

@rounds_up depends on there@
identifier fn = {ALIGN, round_up, roundup};
expression e;
position p;
@@
fn@p(e, PUD_SIZE)

@script:python@
p << rounds_up.p;
e << rounds_up.e;
@@
note(up, p, e)

@walks depends on there@
identifier fn = {ALIGN_DOWN, round_down, rounddown};
expression addr, e;
statement S;
position p;
@@
(
for@p (addr = fn(e, PUD_SIZE); ...; ...) S
|
for@p (addr = e & PUD_MASK; ...; ...) S
)

@script:python@
p << walks.p;
@@
note(walk, p)

@finalize:python@
@@
for where in walk or (down if up else []):
    print("HAS %s %s" % (NAME, where))
