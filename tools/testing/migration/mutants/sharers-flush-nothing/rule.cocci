// SPDX-License-Identifier: GPL-2.0

@@
@@
rmap_walk_sharers(...)
{
<...
- hugetlb_sharers_flush(...);
...>
}
