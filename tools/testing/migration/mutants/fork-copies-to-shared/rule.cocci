// SPDX-License-Identifier: GPL-2.0

@@
expression dst;
@@
copy_hugetlb_page_range(...)
{
<+...
(
- hugetlb_pmd_shared(dst)
+ false
|
- !huge_pte_none(huge_ptep_get(dst))
+ false
)
...+>
}
