// SPDX-License-Identifier: GPL-2.0

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
