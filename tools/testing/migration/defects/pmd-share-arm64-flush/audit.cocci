// SPDX-License-Identifier: GPL-2.0
// EXISTS  who unshares a PMD table notes it in an mmu_gather
// NEEDS   arm64's tlb_flush()
// HAS     it asks if a table was unshared, and not only where all of the mm goes; or it does not even
//         ask if one was freed, and then spares nothing

@initialize:python@
@@
where, asks, goes = {}, {}, set()

def arm64(p):
    # Of those that share, x86 spares CPUs in lazy TLB mode by the same hint, which this is not about:
    # they run no program of that mm.  riscv flushes all, as a PUD has more entries than its limit.
    return "/arm64/" in p[0].file

def place(p):
    return "%s:%s" % (p[0].file, p[0].line)

@there@
identifier fn = {tlb_unshare_pmd_ptdesc, tlb_flush};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
if str(fn) == "tlb_unshare_pmd_ptdesc":
    print("EXISTS %s %s" % (fn, place(p)))
elif arm64(p):
    where[str(fn)] = place(p)
    print("SEEN %s %s" % (fn, place(p)))
    print("NEEDS %s %s" % (fn, place(p)))

@reads@
struct mmu_gather *tlb;
identifier what = {freed_tables, unshared_tables};
position p;
@@
tlb->what@p

@script:python@
p << reads.p;
what << reads.what;
@@
if arm64(p) and str(p[0].current_element) == "tlb_flush":
    asks.setdefault(str(what), set()).add((int(p[0].line), int(p[0].column), place(p)))

@of_all@
struct mmu_gather *tlb;
position p;
@@
if (tlb->fullmm) {
<+...
tlb->unshared_tables@p
...+>
}

@script:python@
p << of_all.p;
@@
goes.add((int(p[0].line), int(p[0].column), place(p)))

@finalize:python@
@@
for name in where:
    for _, _, found in sorted(asks.get("unshared_tables", set()) - goes)[:1]:
        print("HAS %s %s" % (name, found))
    if "freed_tables" not in asks:
        print("HAS %s %s" % (name, where[name]))
