// SPDX-License-Identifier: GPL-2.0
// Takes the protection of hugetlb-subpool out: the new page has no subpool.  The old one has none any
// more either, as it was before the fix, when the copy cleared it.

@@
identifier fn = {hugetlbfs_migrate_page, hugetlbfs_migrate_folio};
identifier set = {set_page_private, hugetlb_set_page_subpool, hugetlb_set_folio_subpool};
identifier get = {page_private, hugetlb_page_subpool, hugetlb_folio_subpool};
expression to, from;
@@
fn(...)
{
<...
- set(to, get(from));
...>
}
