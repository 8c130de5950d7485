// SPDX-License-Identifier: GPL-2.0
// Takes the protection of pmd-share-move-all out: whether a page may be moved is told by its map
// count alone.

@@
identifier fn = {queue_pages_hugetlb, queue_folios_hugetlb};
expression counted;
@@
fn(...)
{
<...
- counted && !hugetlb_pmd_shared(...)
+ counted
...>
}
