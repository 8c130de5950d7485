// SPDX-License-Identifier: GPL-2.0
// Takes the protection of hugetlb-mremap-astray out.  The new address went to the last entry of its own
// page table, where the old one goes to the last entry of the table that is skipped.

@@
symbol new_addr, offset_to_last_entry, last_addr_mask;
@@
move_hugetlb_page_tables(...)
{
<+...
- new_addr += offset_to_last_entry;
+ new_addr |= last_addr_mask;
...+>
}
