// SPDX-License-Identifier: GPL-2.0

// Where the walk clears the entry of a small page, at once or for a flush that comes later.
@migrates@
expression vma, address, pte;
@@
try_to_migrate_one(...)
{
<...
(
- set_tlb_ubc_flush_pending(...);
|
- ptep_clear_flush(vma, address, pte)
+ ptep_get_and_clear(vma->vm_mm, address, pte)
)
...>
}

// Up to 5.13 one walk was for both.
@depends on !migrates@
expression vma, address, pte;
@@
try_to_unmap_one(...)
{
<...
(
- set_tlb_ubc_flush_pending(...);
|
- ptep_clear_flush(vma, address, pte)
+ ptep_get_and_clear(vma->vm_mm, address, pte)
)
...>
}

@huge@
expression vma, address, pmd;
@@
set_pmd_migration_entry(...)
{
<...
- pmdp_invalidate(vma, address, pmd)
+ pmdp_huge_get_and_clear(vma->vm_mm, address, pmd)
...>
}
