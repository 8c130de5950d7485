// SPDX-License-Identifier: GPL-2.0
// Takes the protection of pmd-share-migrate out: the rmap walks of an unmap and of a migration no
// longer unshare the PMD table that maps the page.  The locks, the wider range and the flushes
// stay as they are.
//
// The arguments differ: (&tlb, vma, address, pvmw.pte) in the stable trees of 2026,
// (mm, vma, &address, pvmw.pte) up to 6.x, (mm, &address, pvmw.pte) in 4.x.  The last release of
// 4.9 asks for PageHuge() in the same condition.

// Where the branch ends with a jump (6.12: "goto walk_done"), remember to which label.  "exists"
// asks for one path, not for all of them: the same answer here, in a third of the time.
@jumps exists@
identifier fn = {try_to_unmap_one, try_to_migrate_one, try_to_unmap_poisoned_hugetlb_one};
identifier L;
@@
fn(...)
{
<+...
(
 if (huge_pmd_unshare(...)) { ... goto L; }
|
 if (PageHuge(...) && huge_pmd_unshare(...)) { ... goto L; }
)
...+>
}

@unshare@
identifier fn = {try_to_unmap_one, try_to_migrate_one, try_to_unmap_poisoned_hugetlb_one};
statement S;
@@
fn(...)
{
<...
(
- if (huge_pmd_unshare(...)) S
|
- if (PageHuge(...) && huge_pmd_unshare(...)) S
)
...>
}

// A label that nobody jumps to any more is a compiler warning, and goes; one that is still used
// stays.
@still depends on unshare exists@
identifier jumps.fn, jumps.L;
@@
fn(...)
{
<+...
goto L;
...+>
}

@depends on unshare && !still@
identifier jumps.fn, jumps.L;
@@
fn(...)
{
<...
- L:
...>
}
