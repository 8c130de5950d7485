// SPDX-License-Identifier: GPL-2.0

@exists@
expression mapping;
identifier offset, hole_start;
statement S;
@@
hugetlbfs_punch_hole(...)
{
...
+ i_mmap_lock_write(mapping);
if (offset < hole_start) S
...
- i_mmap_lock_write(mapping);
...
}
