// SPDX-License-Identifier: GPL-2.0
// EXISTS  the function that handles a fault; and, named mutex_given_up, the function that copies a page
//         gives the fault mutex up
// NEEDS   the handler, or where the page of the file is locked for it
// HAS     it is not: the lock would be held meanwhile

@initialize:python@
@@
handler, gives, locks = [], [], []

@there@
identifier fn = {hugetlb_fault, hugetlb_cow, hugetlb_wp};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
where = "%s:%s" % (p[0].file, p[0].line)
if str(fn) == "hugetlb_fault":
    handler.append(where)
    print("EXISTS hugetlb_fault %s" % where)
print("SEEN %s %s" % (fn, where))

@calls@
identifier fn = {mutex_unlock, find_lock_page, filemap_lock_folio, filemap_lock_hugetlb_folio};
position p;
@@
fn@p(...)

@script:python@
p << calls.p;
fn << calls.fn;
@@
inside = str(p[0].current_element)
where = "%s:%s" % (p[0].file, p[0].line)
if str(fn) == "mutex_unlock":
    if inside in ("hugetlb_cow", "hugetlb_wp"):
        gives.append(where)
elif inside in ("hugetlb_fault", "hugetlbfs_pagecache_page"):
    locks.append(where)

@finalize:python@
@@
for where in gives[:1]:
    print("EXISTS mutex_given_up %s" % where)
    for place in (locks or handler)[:1]:
        print("NEEDS hugetlb_fault %s" % place)
        if not locks:
            print("HAS hugetlb_fault %s" % place)
