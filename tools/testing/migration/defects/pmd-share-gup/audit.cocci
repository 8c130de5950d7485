// SPDX-License-Identifier: GPL-2.0
// EXISTS  PMD tables can be shared
// NEEDS   the function that takes a shared table away from an mm, and in new kernels who calls it
// HAS     the first waits, by an interrupt to all CPUs, for every walk that holds no lock; or it
//         notes the table in an mmu_gather, and who calls it has that flushed, which waits

@initialize:python@
@@
UNSHARES = ("huge_pmd_unshare", "__huge_pmd_unshare")
WAITS = ("tlb_remove_table_sync_one", "tlb_remove_table_sync_rcu", "kick_all_cpus_sync",
         "smp_call_function")
found = {}

@there@
identifier fn = {huge_pmd_share, tlb_flush_unshared_tables, __unmap_hugepage_range,
                 hugetlb_change_protection, move_hugetlb_page_tables, hugetlb_unshare_pmds,
                 try_to_unmap_one, try_to_migrate_one, try_to_unmap_poisoned_hugetlb_one};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
kind = "EXISTS" if str(fn) == "huge_pmd_share" else "SEEN"
print("%s %s %s:%s" % (kind, fn, p[0].file, p[0].line))

@calls@
identifier fn = {pud_clear, tlb_remove_table_sync_one, tlb_remove_table_sync_rcu,
                 kick_all_cpus_sync, smp_call_function, tlb_unshare_pmd_ptdesc,
                 tlb_flush_unshared_tables, i_mmap_assert_write_locked, huge_pmd_unshare,
                 __huge_pmd_unshare, huge_pmd_unshare_flush};
position p;
@@
fn@p(...)

@script:python@
p << calls.p;
fn << calls.fn;
@@
found.setdefault(str(p[0].current_element), {}).setdefault(
    str(fn), (int(p[0].line), "%s:%s" % (p[0].file, p[0].line)))

@finalize:python@
@@
def waits(name, after=0):
    return [found[name][fn][1] for fn in WAITS
            if fn in found.get(name, {}) and found[name][fn][0] > after]

# The flush and all of its callers; a stub calls nothing.
flush = waits("tlb_flush_unshared_tables") \
    if "tlb_flush_unshared_tables" in found.get("huge_pmd_unshare_flush", {}) else []
noted = False
for name in list(found):
    calls = found[name]
    if name in UNSHARES + ("huge_pmd_unshare_flush",):
        print("SEEN %s %s" % (name, min(calls.values())[1]))
    if name in UNSHARES and "pud_clear" in calls:
        line, where = calls["pud_clear"]
        print("NEEDS %s %s" % (name, where))
        for where in waits(name, line):
            print("HAS %s %s" % (name, where))
        if "tlb_unshare_pmd_ptdesc" in calls:
            noted = True
            for where in flush:
                print("HAS %s %s" % (name, where))
for name, calls in found.items():
    unshares = [calls[fn] for fn in UNSHARES if fn in calls]
    if noted and unshares and name not in UNSHARES:
        print("NEEDS %s %s" % (name, unshares[0][1]))
        if "huge_pmd_unshare_flush" in calls:
            print("HAS %s %s" % (name, calls["huge_pmd_unshare_flush"][1]))
