// SPDX-License-Identifier: GPL-2.0

@@
identifier fn = {try_to_unmap_one, try_to_migrate_one, try_to_unmap_poisoned_hugetlb_one};
expression list args;
@@
fn(...)
{
<...
- huge_pmd_unshare(args)
+ 0 && huge_pmd_unshare(args)
...>
}
