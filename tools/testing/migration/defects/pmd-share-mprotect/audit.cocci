// SPDX-License-Identifier: GPL-2.0
// EXISTS  PMD tables can be shared, and a write fault copies a page
// NEEDS   the function that copies
// HAS     it makes the entry of a shared mapping writable instead

@initialize:python@
@@
COPIES = ("hugetlb_cow", "hugetlb_wp")
copies, shared, writable = {}, {}, set()

@there@
identifier fn = {huge_pmd_share, hugetlb_cow, hugetlb_wp};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
where = "%s:%s" % (p[0].file, p[0].line)
print("EXISTS %s %s" % (fn, where))
if str(fn) in COPIES:
    copies[str(fn)] = where
    print("SEEN %s %s" % (fn, where))

@mayshare@
expression e;
position p;
@@
e &@p VM_MAYSHARE

@script:python@
p << mayshare.p;
@@
shared.setdefault(str(p[0].current_element), "%s:%s" % (p[0].file, p[0].line))

@makes@
identifier fn = {set_huge_ptep_writable, set_huge_ptep_maybe_writable};
position p;
@@
fn@p(...)

@script:python@
p << makes.p;
@@
writable.add(str(p[0].current_element))

@finalize:python@
@@
for name, where in copies.items():
    print("NEEDS %s %s" % (name, where))
    if name in shared and name in writable:
        print("HAS %s %s" % (name, shared[name]))
