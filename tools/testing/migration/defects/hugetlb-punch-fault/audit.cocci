// SPDX-License-Identifier: GPL-2.0
// EXISTS  the function that takes pages from a file; and, named mutex_given_up, it gives up the mutex of
//         faults, after it locked a page, and before it takes the lock of the mapping to unmap that
// NEEDS   the place where it takes that
// HAS     it has given the page up by then

@initialize:python@
@@
WHERE = "remove_inode_hugepages"
pages, gives, mutexes, takes = [], [], [], []

@there@
identifier fn = {remove_inode_hugepages};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
for kind in ("EXISTS", "SEEN"):
    print("%s %s %s:%s" % (kind, fn, p[0].file, p[0].line))

@calls@
identifier fn = {lock_page, unlock_page, mutex_unlock, i_mmap_lock_write};
position p;
@@
fn@p(...)

@script:python@
p << calls.p;
fn << calls.fn;
@@
if str(p[0].current_element) == WHERE:
    kind = {"lock_page": pages, "unlock_page": gives, "mutex_unlock": mutexes}.get(str(fn), takes)
    kind.append((int(p[0].line), "%s:%s" % (p[0].file, p[0].line)))

@finalize:python@
@@
for line, where in takes:
    held = [one for one, _where in pages if one < line]
    if held and any(held[0] < one < line for one, _where in mutexes):
        print("EXISTS mutex_given_up %s" % where)
        print("NEEDS %s %s" % (WHERE, where))
        if any(held[0] < one < line for one, _where in gives):
            print("HAS %s %s" % (WHERE, where))
