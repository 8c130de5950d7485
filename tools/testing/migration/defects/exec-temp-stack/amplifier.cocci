// SPDX-License-Identifier: GPL-2.0
// Makes a race wider that is there without it.  exec sleeps for a tick after it has moved the VMA of
// its stack, and before it moves the page tables.  And it sleeps before it begins with the move, when
// the process has its new mm already: a migration that looks for pages first, those of a process or
// those of a block of memory, is to find some of such a stack.

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

@@
identifier lock = {mmap_write_lock_killable, down_write_killable};
statement S;
@@
setup_arg_pages(...)
{
<...
+schedule_timeout_uninterruptible(HZ / 20);
if (lock(...)) S
...>
}
