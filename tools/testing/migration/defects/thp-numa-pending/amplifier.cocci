// SPDX-License-Identifier: GPL-2.0
// Makes a race wider that is there without it.  A walk of NUMA balancing sleeps for a second after it has
// changed entries, and before it flushes.

@@
statement S;
identifier pages;
@@
change_protection_range(..., int prot_numa)
{
<...
+if (pages && prot_numa)
+	schedule_timeout_uninterruptible(HZ);
if (pages) S
...>
}
