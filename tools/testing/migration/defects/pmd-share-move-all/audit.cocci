// SPDX-License-Identifier: GPL-2.0
// EXISTS  mbind() and migrate_pages() move hugetlb pages, and PMD tables can be shared
// NEEDS   the function that queues them, and the one that tells whether a table is shared
// HAS     the first asks the second; the second looks at the count that sharing counts in

@initialize:python@
@@
QUEUES = ("queue_folios_hugetlb", "queue_pages_hugetlb", "queue_pages_hugetlb_pmd_range",
          "check_hugetlb_pmd_range")
counts, asked = set(), {}

def note(p, count):
    name = str(p[0].current_element)
    where = "%s:%s" % (p[0].file, p[0].line)
    if name == "huge_pmd_share":
        print("SEEN %s %s" % (name, where))
        counts.add(count)
    elif name == "hugetlb_pmd_shared":
        asked[count] = where

@there@
identifier fn = {queue_folios_hugetlb, queue_pages_hugetlb, queue_pages_hugetlb_pmd_range,
                 check_hugetlb_pmd_range, huge_pmd_share};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
print("EXISTS %s %s:%s" % (fn, p[0].file, p[0].line))
if str(fn) in QUEUES:
    print("SEEN %s %s:%s" % (fn, p[0].file, p[0].line))
    print("NEEDS %s %s:%s" % (fn, p[0].file, p[0].line))

@asks@
identifier fn = {hugetlb_pmd_shared, hugetlb_vma_pmd_shared, ptdesc_pmd_is_shared};
position p;
@@
fn@p(...)

@script:python@
p << asks.p;
fn << asks.fn;
@@
if str(p[0].current_element) in QUEUES:
    print("HAS %s %s:%s" % (p[0].current_element, p[0].file, p[0].line))
elif str(fn) == "ptdesc_pmd_is_shared":
    note(p, "of its own")

// Sharing was counted in the references of the table's page before it got a count of its own.
@refers@
identifier fn = {get_page, page_count, page_ref_count};
position p;
@@
fn@p(...)

@script:python@
p << refers.p;
@@
note(p, "references")

@apart@
expression e;
identifier fn = {ptdesc_pmd_pts_inc};
position p;
@@
(
e->pt_share_count@p
|
fn@p(...)
)

@script:python@
p << apart.p;
@@
note(p, "of its own")

@finalize:python@
@@
for count, where in asked.items():
    print("SEEN hugetlb_pmd_shared %s" % where)
    print("NEEDS hugetlb_pmd_shared %s" % where)
    if count == ("of its own" if "of its own" in counts else "references"):
        print("HAS hugetlb_pmd_shared %s" % where)
