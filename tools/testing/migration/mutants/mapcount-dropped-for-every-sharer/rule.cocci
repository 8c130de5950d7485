// SPDX-License-Identifier: GPL-2.0

// What the walk does for a page that it has unmapped is done for one that it has not.

@newest@
identifier fn = {try_to_unmap_one, try_to_migrate_one, try_to_unmap_poisoned_hugetlb_one};
expression folio;
@@
fn(...)
{
<+...
hugetlb_remove_rmap(folio)
...+>
}

@new@
identifier fn = {try_to_unmap_one, try_to_migrate_one};
expression subpage, vma, folio;
@@
fn(...)
{
<+...
page_remove_rmap(subpage, vma, folio_test_hugetlb(folio))
...+>
}

@old@
identifier fn = {try_to_unmap_one};
expression list args;
expression page;
@@
fn(...)
{
<+...
page_remove_rmap(args);
(
put_page(page);
|
page_cache_release(page);
)
...+>
}

@@
identifier newest.fn;
expression newest.folio;
@@
fn(...)
{
<...
 if (huge_pmd_unshare(...)) {
+ hugetlb_remove_rmap(folio);
+ folio_put(folio);
 ...
 }
...>
}

@@
identifier new.fn;
expression new.subpage, new.vma, new.folio;
@@
fn(...)
{
<...
 if (huge_pmd_unshare(...)) {
+ page_remove_rmap(subpage, vma, folio_test_hugetlb(folio));
+ folio_put(folio);
 ...
 }
...>
}

@@
identifier old.fn;
expression list old.args;
expression old.page;
@@
fn(...)
{
<...
 if (huge_pmd_unshare(...)) {
+ page_remove_rmap(args);
+ put_page(page);
 ...
 }
...>
}
