// SPDX-License-Identifier: GPL-2.0

// Up to 4.11 a walk returns a word for what to do next.
@answers@
identifier fn = {try_to_unmap_one};
symbol ret;
@@
fn(...)
{
<+...
ret = SWAP_FAIL;
...+>
}

@@
identifier answers.fn;
@@
fn(...)
{
<...
 if (huge_pmd_unshare(...)) {
+ ret = SWAP_FAIL;
 ...
 }
...>
}

@depends on !answers@
identifier fn = {try_to_unmap_one, try_to_migrate_one, try_to_unmap_poisoned_hugetlb_one};
@@
fn(...)
{
<...
 if (huge_pmd_unshare(...)) {
+ ret = false;
 ...
 }
...>
}
