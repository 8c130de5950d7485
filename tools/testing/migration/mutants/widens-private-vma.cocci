// SPDX-License-Identifier: GPL-2.0
// breaks: the range of the notifiers is widened for a private mapping, which shares no table
// files: mm/hugetlb.c
// places: adjust_range_if_pmd_sharing_possible
// tests: hugetlb_pmd_notifier

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
