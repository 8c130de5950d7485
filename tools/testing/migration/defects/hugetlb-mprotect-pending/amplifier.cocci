// SPDX-License-Identifier: GPL-2.0
// Makes a race wider that is there without it.  mprotect() of huge pages sleeps for 100 ms after it has
// changed entries, and before it flushes.

@@
expression E;
statement S;
@@
hugetlb_change_protection(...)
{
<...
for (; address < end; E) S
+schedule_timeout_uninterruptible(HZ / 10);
...>
}
