// SPDX-License-Identifier: GPL-2.0

@@
expression list args;
@@
try_to_migrate_one(...)
{
<...
- huge_pmd_unshare(args)
+ 0 && huge_pmd_unshare(args)
...>
}
