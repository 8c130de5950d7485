// SPDX-License-Identifier: GPL-2.0

@early@
identifier folio;
expression shareable, pteval;
@@
try_to_migrate_one(struct folio *folio, ...)
{
<...
 if (shareable)
+{
	pteval = huge_ptep_get_and_clear(...);
+	hugetlb_sharers_flush(folio);
+}
 else
	pteval = huge_ptep_clear_flush(...);
...>
}

// The lock of the table is held then.
@@
expression pte;
@@
hugetlb_sharers_flush(struct folio *folio)
{
<...
(
 if (
-	!pte_present(pte) && !huge_pte_none(pte)
+	!pte_present(pte)
 ) { ... }
|
- cond_resched();
)
...>
}
