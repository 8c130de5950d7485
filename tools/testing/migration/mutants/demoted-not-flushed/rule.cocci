// SPDX-License-Identifier: GPL-2.0

@@
identifier fn = migrate_pages_batch;
@@
fn(...)
{
<...
- try_to_unmap_flush();
...>
}
