// SPDX-License-Identifier: GPL-2.0
// breaks: who unshares a table stays counted among those who share it
// files: mm/hugetlb.c include/asm-generic/tlb.h
// places: huge_pmd_unshare|tlb_unshare_pmd_ptdesc
// tests: hugetlb_pmd_migrate hugetlb_pmd_flush hugetlb_pmd_poison
//
// The last who has the table finds it shared and lets go of it as well: its pages are mapped, and
// by nobody.

@@
identifier fn = {huge_pmd_unshare};
@@
fn(...)
{
<...
- put_page(virt_to_page(...));
...>
}

@@
identifier fn = {huge_pmd_unshare};
expression table;
statement S;
@@
fn(...)
{
<...
 if (
- atomic_dec_and_test(&table->pt_share_count)
+ 0
 ) S
...>
}

@@
identifier fn = {tlb_unshare_pmd_ptdesc};
identifier pt;
@@
fn(...)
{
<...
(
- atomic_dec(&pt->pt_share_count);
|
- ptdesc_pmd_pts_dec(pt);
)
...>
}
