// SPDX-License-Identifier: GPL-2.0
// Takes the protection of pmd-share-gup out: who unshares a table does not wait for those who walk
// through it.

@@
identifier fn = {huge_pmd_unshare, tlb_flush_unshared_tables};
@@
fn(...)
{
<...
- tlb_remove_table_sync_one();
...>
}
