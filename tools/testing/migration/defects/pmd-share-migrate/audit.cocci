// SPDX-License-Identifier: GPL-2.0
// EXISTS  hugetlb pages can be migrated, and PMD tables shared
// NEEDS   a function of the rmap walk that takes a mapping of a hugetlb page away
// HAS     one that unshares the table, or has all who share it flushed, or that who calls the walk
//         flushes them after it

@initialize:python@
@@
WALKS = ("try_to_unmap_one", "try_to_migrate_one", "try_to_unmap_poisoned_hugetlb_one")
walks, hugetlb = {}, set()
compares, flushes, calls = set(), set(), {}
OF = {"try_to_migrate": ("try_to_migrate_one",),
      "try_to_unmap": ("try_to_unmap_one", "try_to_unmap_poisoned_hugetlb_one")}
looks, after, callers = set(), {}, {}

@there@
identifier fn = {unmap_and_move_huge_page, unmap_and_move_hugetlb_folio, huge_pmd_share};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
print("EXISTS %s %s:%s" % (fn, p[0].file, p[0].line))

@walk@
identifier fn = {try_to_unmap_one, try_to_migrate_one, try_to_unmap_poisoned_hugetlb_one};
position p;
@@
fn@p(...) { ... }

@script:python@
p << walk.p;
fn << walk.fn;
@@
walks[str(fn)] = "%s:%s" % (p[0].file, p[0].line)
print("SEEN %s %s" % (fn, walks[str(fn)]))

// It may be what protects them.
@around@
identifier fn = {rmap_walk_sharers};
position p;
@@
fn@p(...) { ... }

@script:python@
p << around.p;
fn << around.fn;
@@
print("SEEN %s %s:%s" % (fn, p[0].file, p[0].line))

// Since the two walks are two functions, that of an unmap may know of no hugetlb page any more.
@handles@
identifier fn = {hugetlb_count_sub, set_huge_pte_at, set_huge_swap_pte_at, huge_ptep_clear_flush};
position p;
@@
fn@p(...)

@script:python@
p << handles.p;
@@
hugetlb.add(str(p[0].current_element))

@unshares@
position p;
@@
huge_pmd_unshare@p(...)

@script:python@
p << unshares.p;
@@
if str(p[0].current_element) in WALKS:
    print("HAS %s %s:%s" % (p[0].current_element, p[0].file, p[0].line))

// Who looks whether another process has this very entry, and flushes where it has: by itself, or
// by a function of its own for that.
@same@
identifier fn = {huge_pte_offset, hugetlb_walk};
expression e;
position p;
@@
fn@p(...) == e

@script:python@
p << same.p;
@@
compares.add(str(p[0].current_element))

@flush@
identifier fn =~ "flush";
position p;
@@
fn@p(...)

@script:python@
p << flush.p;
fn << flush.fn;
@@
name, fn = str(p[0].current_element), str(fn)
if fn in ("flush_tlb_page", "flush_tlb_range", "flush_hugetlb_tlb_range",
          "tlb_flush_pmd_range"):
    flushes.add(name)
calls.setdefault(name, {})[fn] = "%s:%s" % (p[0].file, p[0].line)

// All who have an entry at that place, after a walk that finds the lock held.
@looked@
identifier fn = {huge_pte_offset, hugetlb_walk};
position p;
@@
fn@p(...)

@script:python@
p << looked.p;
@@
looks.add(str(p[0].current_element))

@behind@
identifier fn =~ "flush";
position p;
@@
rmap_walk_locked(...);
...
fn@p(...);

@script:python@
p << behind.p;
fn << behind.fn;
@@
after.setdefault(str(p[0].current_element), set()).add(str(fn))

@walker@
identifier inside = {try_to_unmap, try_to_migrate};
identifier fn =~ "^rmap_walk_";
position p;
@@
inside(...)
{
<...
fn@p(...)
...>
}

@script:python@
p << walker.p;
fn << walker.fn;
@@
callers[str(p[0].current_element), str(fn)] = "%s:%s" % (p[0].file, p[0].line)

@finalize:python@
@@
for (name, fn), where in callers.items():
    for one in after.get(fn, set()) & looks:
        if flushes & {one, *calls.get(one, {})}:
            for walk in OF[name]:
                if walk in hugetlb:
                    print("HAS %s %s" % (walk, where))
for name in WALKS:
    for fn, where in calls.get(name, {}).items():
        if fn in compares and flushes & {fn, *calls.get(fn, {})}:
            print("HAS %s %s" % (name, where))
for name, where in walks.items():
    if name in hugetlb or "try_to_migrate_one" not in walks:
        print("NEEDS %s %s" % (name, where))
