// SPDX-License-Identifier: GPL-2.0

@@
identifier fn = {hugetlb_mfill_atomic_pte, hugetlb_mcopy_atomic_pte};
statement S;
@@
fn(...)
{
<...
- if (hugetlb_past_end(...)) S
...>
}
