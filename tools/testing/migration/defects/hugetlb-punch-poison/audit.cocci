// SPDX-License-Identifier: GPL-2.0
// EXISTS  the function that punches a hole; and, named hole_waits, it waits for a page to zero a part
//         of it; and, named error_waits, who handles a memory error waits for the lock of the file
// NEEDS   where a part of a page is zeroed
// HAS     the lock of the file is not held there

@initialize:python@
@@
zeroes, takes = [], []

@there@
identifier fn = {hugetlbfs_punch_hole};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
for kind in ("EXISTS", "SEEN"):
    print("%s %s %s:%s" % (kind, fn, p[0].file, p[0].line))

@waits@
identifier inside = {hugetlbfs_zero_partial_page};
identifier fn = {filemap_lock_folio, filemap_lock_hugetlb_folio, find_lock_page, folio_lock, lock_page};
position p;
@@
inside(...)
{
<+...
fn@p(...)
...+>
}

@script:python@
p << waits.p;
@@
print("EXISTS hole_waits %s:%s" % (p[0].file, p[0].line))

@collects@
identifier inside = {collect_procs_file};
identifier fn = {i_mmap_lock_read, i_mmap_lock_write};
position p;
@@
inside(...)
{
<+...
fn@p(...)
...+>
}

@script:python@
p << collects.p;
@@
print("EXISTS error_waits %s:%s" % (p[0].file, p[0].line))

@calls@
identifier fn = {hugetlbfs_zero_partial_page, i_mmap_lock_write, i_mmap_unlock_write};
position p;
@@
fn@p(...)

@script:python@
p << calls.p;
fn << calls.fn;
@@
if str(p[0].current_element) == "hugetlbfs_punch_hole":
    where = "%s:%s" % (p[0].file, p[0].line)
    if str(fn) == "hugetlbfs_zero_partial_page":
        zeroes.append((int(p[0].line), where))
    else:
        takes.append((int(p[0].line), str(fn) == "i_mmap_lock_write"))

@finalize:python@
@@
held = [where for line, where in zeroes
        if any(taken for _line, taken in [max([one for one in takes if one[0] < line], default=(0, False))])]
for where in held or [where for _line, where in zeroes]:
    print("NEEDS hugetlbfs_punch_hole %s" % where)
if zeroes and not held:
    print("HAS hugetlbfs_punch_hole %s" % zeroes[0][1])
