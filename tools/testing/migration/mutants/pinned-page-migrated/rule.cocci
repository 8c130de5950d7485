// SPDX-License-Identifier: GPL-2.0

// What is there is what is expected.
@@
identifier fn = {migrate_page_move_mapping, folio_migrate_mapping, __migrate_folio, migrate_huge_page_move_mapping};
identifier expected_count;
expression page;
@@
fn(...)
{
<+...
(
- page_count(page) != expected_count
+ !(expected_count = page_count(page))
|
- folio_ref_count(page) != expected_count
+ !(expected_count = folio_ref_count(page))
|
// In 6.1 that is all.
- folio_ref_freeze(page, expected_count)
+ folio_ref_freeze(page, expected_count = folio_ref_count(page))
)
...+>
}
