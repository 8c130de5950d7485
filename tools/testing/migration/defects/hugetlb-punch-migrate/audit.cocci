// SPDX-License-Identifier: GPL-2.0
// EXISTS  the function that takes the pages of a hole from a file
// NEEDS   where it asks whether a page is still mapped
// HAS     it has locked the page before

@initialize:python@
@@
ours = {}

@there@
identifier fn = {remove_inode_hugepages, remove_inode_single_folio};
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
identifier fn = {lock_page, folio_lock, page_mapped, folio_mapped};
position p;
@@
fn@p(...)

@script:python@
p << calls.p;
fn << calls.fn;
@@
where = str(p[0].current_element)
if where in ("remove_inode_hugepages", "remove_inode_single_folio"):
    ours.setdefault((where, str(fn).endswith("_mapped")), []).append(
        (int(p[0].line), "%s:%s" % (p[0].file, p[0].line)))

@finalize:python@
@@
for (where, asks), places in ours.items():
    if asks:
        line, place = min(places)
        print("NEEDS %s %s" % (where, place))
        if any(one < line for one, _place in ours.get((where, False), [])):
            print("HAS %s %s" % (where, place))
