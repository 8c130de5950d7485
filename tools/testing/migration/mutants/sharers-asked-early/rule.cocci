// SPDX-License-Identifier: GPL-2.0

@asks@
expression pte;
identifier folio, vma, address, arg, sharers;
statement S;
@@
try_to_migrate_one(struct folio *folio, struct vm_area_struct *vma,
		   unsigned long address, void *arg)
{
<+...
 if (
-	!sharers && hugetlb_vma_pmd_shared(vma, pte)
+	false
 ) S
...+>
}

@depends on asks@
identifier asks.folio, asks.vma, asks.address, asks.arg, asks.sharers;
identifier range, hsz;
@@
try_to_migrate_one(struct folio *folio, struct vm_area_struct *vma,
		   unsigned long address, void *arg)
{
<...
 if (folio_test_hugetlb(folio)) {
	hsz = huge_page_size(...);
+	if (hugetlb_walk(vma, address, hsz))
+		sharers = hugetlb_vma_pmd_shared(vma, hugetlb_walk(vma, address, hsz));
 }
 mmu_notifier_invalidate_range_start(&range);
+if (sharers)
+	hugetlb_sharers_notify(vma, address, true);
...>
}
