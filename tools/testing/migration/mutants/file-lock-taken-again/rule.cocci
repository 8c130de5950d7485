// SPDX-License-Identifier: GPL-2.0

@@
identifier fn = {unmap_and_move_huge_page, unmap_and_move_hugetlb_folio};
identifier was_mapped;
expression mapping, ttu, from, to, how;
@@
fn(...)
{
<...
+ if (ttu & TTU_RMAP_LOCKED)
+	i_mmap_unlock_write(mapping);
 if (was_mapped)
	remove_migration_ptes(from, to,
-	how
+	0
	);
- if (ttu & TTU_RMAP_LOCKED)
-	i_mmap_unlock_write(mapping);
...>
}
