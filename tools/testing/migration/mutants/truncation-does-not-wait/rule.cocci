// SPDX-License-Identifier: GPL-2.0

@@
@@
hugetlb_vmtruncate(...)
{
<...
- hugetlb_wait_for_faults(...);
...>
}
