// SPDX-License-Identifier: GPL-2.0
// EXISTS  PMD tables can be shared, and the lock of a mapping be tried to be taken for that
// NEEDS   a function that tries, to migrate a page or to unmap a poisoned one
// HAS     nothing: who does not unshare needs no such lock

@there@
identifier fn = {huge_pmd_share, hugetlb_page_mapping_lock_write, hugetlb_folio_mapping_lock_write};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
print("EXISTS %s %s:%s" % (fn, p[0].file, p[0].line))

@walks@
identifier fn = {unmap_and_move_huge_page, unmap_and_move_hugetlb_folio, hwpoison_user_mappings,
                 unmap_poisoned_folio};
position p;
@@
fn@p(...) { ... }

@script:python@
p << walks.p;
fn << walks.fn;
@@
print("SEEN %s %s:%s" % (fn, p[0].file, p[0].line))

@tries@
identifier fn = {hugetlb_page_mapping_lock_write, hugetlb_folio_mapping_lock_write};
position p;
@@
fn@p(...)

@script:python@
p << tries.p;
@@
print("NEEDS %s %s:%s" % (p[0].current_element, p[0].file, p[0].line))
