// SPDX-License-Identifier: GPL-2.0
// breaks: who unshares a table is counted out twice
// files: mm/hugetlb.c include/asm-generic/tlb.h
// places: huge_pmd_unshare|tlb_unshare_pmd_ptdesc
// tests: hugetlb_pmd_migrate hugetlb_pmd_flush hugetlb_pmd_poison
//
// In 4.x a table is freed while a process uses it; later, where sharers are counted beside the
// references, a table that nobody shares looks shared.

@@
identifier fn = {huge_pmd_unshare};
expression ptep;
@@
fn(...)
{
<...
 put_page(virt_to_page(ptep));
+ put_page(virt_to_page(ptep));
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
+ atomic_sub_return(2, &table->pt_share_count) <= 0
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
 atomic_dec(&pt->pt_share_count);
+ atomic_dec(&pt->pt_share_count);
|
 ptdesc_pmd_pts_dec(pt);
+ ptdesc_pmd_pts_dec(pt);
)
...>
}
