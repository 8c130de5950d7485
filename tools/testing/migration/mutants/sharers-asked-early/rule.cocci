// SPDX-License-Identifier: GPL-2.0

@asks@
identifier folio, start, mapping, vma, addr, range;
iterator each;
expression list which;
expression where;
@@
hugetlb_sharers_notify(struct folio *folio, bool start)
{
 ...
 i_mmap_assert_locked(mapping);
+if (start)
+	mapping->writeback_index = 0;
+each(vma, which) {
+	addr = where;
+	if (start && hugetlb_walk(vma, addr, PMD_SIZE) &&
+	    hugetlb_pmd_shared(hugetlb_walk(vma, addr, PMD_SIZE)))
+		mapping->writeback_index = 1;
+}
 each(vma, which) {
	addr = where;
	...
 }
 ...
}

// Then the one that the walk came to is the only one.
@depends on asks@
identifier folio, mapping;
expression vma, addr;
@@
hugetlb_sharers_flush(struct folio *folio)
{
 ...
 i_mmap_assert_locked(mapping);
<...
-flush_sharer(vma, addr);
+{
+	flush_sharer(vma, addr);
+	if (!mapping->writeback_index)
+		break;
+}
...>
}
