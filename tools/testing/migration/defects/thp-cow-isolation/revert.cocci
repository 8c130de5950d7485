// SPDX-License-Identifier: GPL-2.0
// Takes the protection of thp-cow-isolation out: of a THP, the mappings of the head page are counted
// alone, as page_mapcount() did when the check was written.

@@
expression page, count;
@@
isolate_migratepages_block(...)
{
<...
- count > total_mapcount(page)
+ count > page_mapcount(page)
...>
}

@@
expression folio, count;
@@
isolate_migratepages_block(...)
{
<...
- count > folio_mapcount(folio)
+ count > (folio_test_large(folio) ? folio_entire_mapcount(folio) : 0) +
+	  atomic_read(&folio->page._mapcount) + 1
...>
}
