// SPDX-License-Identifier: GPL-2.0
// Takes the protection of pmd-share-split out: a VMA is split, and what its halves share with others
// stays shared.  In 5.10 to 6.1 it is __vma_adjust() that unshares, without the lock: there is no whole
// protection to take out.

@@
identifier fn = {__split_vma};
@@
fn(...)
{
<...
- hugetlb_split(...)
+ (void)0
...>
}
