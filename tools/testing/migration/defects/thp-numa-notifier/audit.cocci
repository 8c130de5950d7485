// SPDX-License-Identifier: GPL-2.0
// EXISTS  THPs have a migration of their own for NUMA balancing, and devices ->invalidate_range()
// NEEDS   that migration
// HAS     devices are told before the page is copied: by the migration, or by the fault that calls it

@there@
identifier fn = {migrate_misplaced_transhuge_page, do_huge_pmd_numa_page};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
print("SEEN %s %s:%s" % (fn, p[0].file, p[0].line))
if str(fn) == "migrate_misplaced_transhuge_page":
    print("EXISTS %s %s:%s" % (fn, p[0].file, p[0].line))
    print("NEEDS %s %s:%s" % (fn, p[0].file, p[0].line))

@tells@
position p;
@@
mmu_notifier_invalidate_range@p(...) { ... }

@script:python@
p << tells.p;
@@
print("EXISTS mmu_notifier_invalidate_range %s:%s" % (p[0].file, p[0].line))

// What comes after the copy is too late: up to 4.12 there is a call where a migration is given up.
@migration exists@
identifier copy = {migrate_page_copy, folio_migrate_copy};
position p;
@@
migrate_misplaced_transhuge_page(...)
{
... when any
mmu_notifier_invalidate_range@p(...);
... when any
copy(...);
... when any
}

@script:python@
p << migration.p;
@@
print("HAS migrate_misplaced_transhuge_page %s:%s" % (p[0].file, p[0].line))

@fault exists@
position p;
@@
do_huge_pmd_numa_page(...)
{
... when any
mmu_notifier_invalidate_range@p(...);
... when any
migrate_misplaced_transhuge_page(...)
... when any
}

@script:python@
p << fault.p;
@@
print("HAS migrate_misplaced_transhuge_page %s:%s" % (p[0].file, p[0].line))
