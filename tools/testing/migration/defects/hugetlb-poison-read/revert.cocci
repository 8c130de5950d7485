// SPDX-License-Identifier: GPL-2.0
// Takes a part of the protection of hugetlb-poison-read out: read(2) copies from a poisoned page as
// from any other.

@@
expression page, want, size;
statement S;
@@
hugetlbfs_read_iter(...)
{
<...
(
- if (!folio_test_hwpoison(page))
- 	want = size;
- else S
+ want = size;
|
- if (PageHWPoison(page)) S
)
...>
}
