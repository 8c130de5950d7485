// SPDX-License-Identifier: GPL-2.0

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
