// SPDX-License-Identifier: GPL-2.0
// breaks: those who share a table are not flushed when a hole is punched
// files: mm/hugetlb.c
// places: unmap_shared_entry
// tests: hugetlb_pmd_churn
// absent: where a hole takes the table from each process, each is flushed for that
//
// They go on writing to a page that has left the file, and is used for something else.

@@
@@
unmap_shared_entry(...)
{
<...
- hugetlb_sharers_flush(...);
...>
}
