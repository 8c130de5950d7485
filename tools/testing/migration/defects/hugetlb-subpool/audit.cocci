// SPDX-License-Identifier: GPL-2.0
// EXISTS  hugetlb pages can be migrated
// NEEDS   their migration, and the function of hugetlbfs that migrates those of files
// HAS     the first hands the subpool of the old page on to the new one, for all pages; or the second
//         does, for pages of files, and the first migrates no other that has a subpool

@initialize:python@
@@
MOVES = ("unmap_and_move_huge_page", "unmap_and_move_hugetlb_folio")
there = {}

@there@
identifier fn = {unmap_and_move_huge_page, unmap_and_move_hugetlb_folio, hugetlbfs_migrate_page,
                 hugetlbfs_migrate_folio};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
name, where = str(fn), "%s:%s" % (p[0].file, p[0].line)
there[name] = where
for kind in ("EXISTS", "SEEN", "NEEDS") if name in MOVES else ("SEEN", "NEEDS"):
    print("%s %s %s" % (kind, name, where))

// What is set to nothing is no subpool.
@all_pages exists@
identifier fn = {unmap_and_move_huge_page, unmap_and_move_hugetlb_folio}, new, take;
identifier set = {set_page_private, hugetlb_set_page_subpool, hugetlb_set_folio_subpool};
expression spool, old;
position p;
@@
fn(...)
{
... when any
new = take(old, ...);
... when any
set@p(new, spool);
... when any
}

@script:python@
p << all_pages.p;
spool << all_pages.spool;
@@
if str(spool) not in ("0", "NULL"):
    for name in there:
        print("HAS %s %s:%s" % (name, p[0].file, p[0].line))

@of_files@
identifier fn = {hugetlbfs_migrate_page, hugetlbfs_migrate_folio}, mapping, new;
identifier set = {set_page_private, hugetlb_set_page_subpool, hugetlb_set_folio_subpool};
identifier get = {page_private, hugetlb_page_subpool, hugetlb_folio_subpool};
expression old;
type T, U;
position p;
@@
fn(T mapping, U new, ...)
{
<+...
set@p(new, get(old));
...+>
}

@script:python@
p << of_files.p;
fn << of_files.fn;
@@
print("HAS %s %s:%s" % (fn, p[0].file, p[0].line))

@no_others@
identifier fn = {unmap_and_move_huge_page, unmap_and_move_hugetlb_folio};
identifier get = {page_private, hugetlb_page_subpool, hugetlb_folio_subpool};
identifier mapping = {page_mapping, folio_mapping};
expression old, same;
position p;
@@
fn(...)
{
<+...
get@p(old) && !mapping(same)
...+>
}

@script:python@
p << no_others.p;
fn << no_others.fn;
@@
print("HAS %s %s:%s" % (fn, p[0].file, p[0].line))
