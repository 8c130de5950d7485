// SPDX-License-Identifier: GPL-2.0

@exists@
expression mapping;
identifier offset, hole_start, hole_end;
statement S;
@@
hugetlbfs_punch_hole(...)
{
...
+ i_mmap_lock_write(mapping);
if (offset < hole_start) S
...
if (hole_end > hole_start) {
- i_mmap_lock_write(mapping);
...
- i_mmap_unlock_write(mapping);
}
+ i_mmap_unlock_write(mapping);
...
}
