// SPDX-License-Identifier: GPL-2.0
// EXISTS  PMD tables can be shared, and userfaultfd can poison pages
// NEEDS   the function that writes the marker of poison; the one that joins a table
// HAS     the first, or what it calls, unshares a table, or a registered VMA of any mode shares none; the
//         second, or what it calls, looks for markers of poison

@initialize:python@
@@
ANY = ("__VM_UFFD_FLAGS", "__VMA_UFFD_FLAGS", "VM_UFFD_MISSING", "VMA_UFFD_MISSING",
       "userfaultfd_armed")
looks, unshares, joins, writes, modes = set(), set(), {}, {}, []

@there@
identifier fn = {huge_pmd_share, mfill_atomic_poison, hugetlb_mfill_atomic_pte};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
name, where = str(fn), "%s:%s" % (p[0].file, p[0].line)
if name == "hugetlb_mfill_atomic_pte":
    print("SEEN %s %s" % (name, where))
    print("NEEDS %s %s" % (name, where))
else:
    print("EXISTS %s %s" % (name, where))

@modes@
expression e;
position p;
@@
uffd_disable_huge_pmd_share(...)
{
<+...
return@p e;
...+>
}

@script:python@
p << modes.p;
e << modes.e;
@@
if any(flags in str(e) for flags in ANY):
    modes.append("%s:%s" % (p[0].file, p[0].line))

@unshares@
identifier fn = {hugetlb_unshare_pmds, hugetlb_unshare_all_pmds, huge_pmd_unshare, __huge_pmd_unshare};
position p;
@@
fn@p(...)

@script:python@
p << unshares.p;
@@
unshares.add(str(p[0].current_element))

@writes@
identifier fn;
position p;
@@
hugetlb_mfill_atomic_pte(...)
{
<...
fn@p(...)
...>
}

@script:python@
p << writes.p;
fn << writes.fn;
@@
writes.setdefault(str(fn), "%s:%s" % (p[0].file, p[0].line))

// Of the markers of hugetlb there is one that is not poison, and that is gone when the VMA is not
// registered any more.
@looks@
identifier fn = {is_poisoned_swp_entry, softleaf_is_poison_marker, is_pte_marker, pte_is_marker,
                 is_pte_marker_entry, softleaf_is_marker};
position p;
@@
fn@p(...)

@script:python@
p << looks.p;
@@
looks.add(str(p[0].current_element))

@calls@
identifier fn;
position p;
@@
huge_pmd_share(...)
{
<...
fn@p(...)
...>
}

@script:python@
p << calls.p;
fn << calls.fn;
@@
where = "%s:%s" % (p[0].file, p[0].line)
joins.setdefault(str(fn), where)
if str(fn) in ("hugetlb_walk", "huge_pte_offset"):
    # Of two functions of this name, one does nothing.
    print("SEEN huge_pmd_share %s" % where)
    print("NEEDS huge_pmd_share %s" % where)

@finalize:python@
@@
for name, where in joins.items():
    if name in looks or "huge_pmd_share" in looks:
        print("HAS huge_pmd_share %s" % where)
for where in modes + [where for name, where in writes.items()
                      if name in unshares or "hugetlb_mfill_atomic_pte" in unshares]:
    print("HAS hugetlb_mfill_atomic_pte %s" % where)
