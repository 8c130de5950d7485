// SPDX-License-Identifier: GPL-2.0

@@
@@
unmap_shared_entry(...)
{
<...
- hugetlb_sharers_flush(...);
...>
}
