// SPDX-License-Identifier: GPL-2.0
// Makes a race wider that is there without it: exec sleeps for a tick after it has moved the VMA of
// its stack, and before it moves the page tables.

@@
identifier fn = {shift_arg_pages, relocate_vma_down};
statement S;
@@
fn(...)
{
<...
+schedule_timeout_uninterruptible(1);
if (<+... move_page_tables(...) ...+>) S
...>
}
