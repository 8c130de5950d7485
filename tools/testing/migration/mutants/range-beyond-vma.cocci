// SPDX-License-Identifier: GPL-2.0
// breaks: a range is widened beyond the whole PUDs of its VMA, to where no table can be shared
// files: mm/hugetlb.c
// places: adjust_range_if_pmd_sharing_possible
// tests: hugetlb_pmd_notifier

@@
identifier start, end;
expression first, last;
@@
adjust_range_if_pmd_sharing_possible(..., unsigned long *start, unsigned long *end)
{
<...
(
 if (
- *start > first
+ 1
 ) { ... }
|
 if (
- *end < last
+ 1
 ) { ... }
)
...>
}
