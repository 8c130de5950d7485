// SPDX-License-Identifier: GPL-2.0

@@
expression list args;
@@
remove_migration_pte(...)
{
<...
- hugetlb_drop_shared_entry(args)
+ false
...>
}
