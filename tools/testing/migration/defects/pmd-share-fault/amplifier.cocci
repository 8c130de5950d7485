// SPDX-License-Identifier: GPL-2.0
// Makes a race wider that is there without it.  A fault sleeps for a tick after it has looked its entry
// up, and before it takes a lock of the page table.

@@
expression hash;
symbol hugetlb_fault_mutex_table;
@@
hugetlb_fault(...)
{
<...
+schedule_timeout_uninterruptible(1);
mutex_lock(&hugetlb_fault_mutex_table[hash]);
...>
}
