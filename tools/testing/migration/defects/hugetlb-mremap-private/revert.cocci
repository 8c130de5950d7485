// SPDX-License-Identifier: GPL-2.0
// Takes the protection of hugetlb-mremap-private out.  The reservation map was taken from a mapping
// without i_mmap_rwsem.

@@
identifier vma;
@@
fixup_hugetlb_reservations(struct vm_area_struct *vma)
{
<+...
- i_mmap_lock_write(vma->vm_file->f_mapping);
  clear_vma_resv_huge_pages(vma);
- i_mmap_unlock_write(vma->vm_file->f_mapping);
...+>
}
