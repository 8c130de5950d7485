// SPDX-License-Identifier: GPL-2.0
// EXISTS  hugetlb pages can be migrated, and PMD tables shared
// NEEDS   a function of the rmap walk that takes a mapping of a hugetlb page away
// HAS     one that widens its range to that of a PUD, or tells those who share the table each, or
//         that who calls the walk has told them

@initialize:python@
@@
WALKS = ("try_to_unmap_one", "try_to_migrate_one", "try_to_unmap_poisoned_hugetlb_one")
walks, hugetlb = {}, set()
starts, sharers = set(), {}
OF = {"try_to_migrate": ("try_to_migrate_one",),
      "try_to_unmap": ("try_to_unmap_one", "try_to_unmap_poisoned_hugetlb_one")}
before, callers = {}, {}

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

// By the function that is there for it, or by hand.
@widens@
identifier fn = {ALIGN, ALIGN_DOWN, round_up, round_down, roundup, rounddown};
expression e;
position p;
@@
(
adjust_range_if_pmd_sharing_possible@p(...)
|
fn@p(e, PUD_SIZE)
|
e &@p PUD_MASK
)

@script:python@
p << widens.p;
@@
if str(p[0].current_element) in WALKS:
    print("HAS %s %s:%s" % (p[0].current_element, p[0].file, p[0].line))

// A table that stays shared is told of page by page, but to all who have it.
@starts@
position p;
@@
mmu_notifier_invalidate_range_start@p(...)

@script:python@
p << starts.p;
@@
starts.add(str(p[0].current_element))

@others@
identifier inside = {try_to_unmap_one, try_to_migrate_one, try_to_unmap_poisoned_hugetlb_one};
identifier fn =~ "^hugetlb_";
position p;
@@
inside(...)
{
<...
fn@p(...)
...>
}

@script:python@
p << others.p;
fn << others.fn;
@@
sharers[str(p[0].current_element), str(fn)] = "%s:%s" % (p[0].file, p[0].line)

// All of them, before a walk that finds the lock held.
@ahead@
identifier fn =~ "^hugetlb_";
position p;
@@
fn(...);
...
rmap_walk_locked@p(...);

@script:python@
p << ahead.p;
fn << ahead.fn;
@@
before.setdefault(str(p[0].current_element), set()).add(str(fn))

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
    if before.get(fn, set()) & starts:
        for walk in OF[name]:
            if walk in hugetlb:
                print("HAS %s %s" % (walk, where))
for (name, fn), where in sharers.items():
    if fn in starts:
        print("HAS %s %s" % (name, where))
for name, where in walks.items():
    if name in hugetlb or "try_to_migrate_one" not in walks:
        print("NEEDS %s %s" % (name, where))
