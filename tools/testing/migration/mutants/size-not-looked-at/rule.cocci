// SPDX-License-Identifier: GPL-2.0

@@
statement S;
@@
hugetlb_fault(...)
{
<...
- if (hugetlb_past_end(...)) S
...>
}
