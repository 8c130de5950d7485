// SPDX-License-Identifier: GPL-2.0
// Takes the protection of thp-numa-notifier out: the fault that migrates a THP flushes the CPUs, and
// leaves it to the walk to tell the devices.
//
// From 4.20 to 5.12 there is no invalidation after the copy either, since d7c3393413fe ("mm: thp: fix
// MADV_DONTNEED vs migrate_misplaced_transhuge_page race condition"): the old page is freed while a
// device may still write to it.  That of the test looks whose page it is before it does.

@@
@@
do_huge_pmd_numa_page(...)
{
<...
- mmu_notifier_invalidate_range(...);
...>
}
