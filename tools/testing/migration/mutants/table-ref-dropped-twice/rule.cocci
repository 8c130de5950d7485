// SPDX-License-Identifier: GPL-2.0

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
