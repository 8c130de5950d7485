// SPDX-License-Identifier: GPL-2.0
// breaks: the range of the notifiers is widened for a private mapping, which shares no table
// files: mm/hugetlb.c
// places: adjust_range_if_pmd_sharing_possible
// tests: hugetlb_pmd_migrate hugetlb_pmd_flush
// survives: only a notifier could tell, and no selftest has one

@@
identifier vma;
@@
adjust_range_if_pmd_sharing_possible(struct vm_area_struct *vma, ...)
{
<...
- !(vma->vm_flags & VM_MAYSHARE)
+ 0
...>
}
