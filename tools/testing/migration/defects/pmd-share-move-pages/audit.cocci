// SPDX-License-Identifier: GPL-2.0
// EXISTS  PMD tables can be shared, and hugetlb pages can be taken for a move
// NEEDS   the function of move_pages() that takes them
// HAS     it, or the one that calls it, asks if the table is shared: itself, or by a function that
//         does, in the files read, or that says so by its name

@initialize:python@
@@
MOVES = ("__add_folio_for_migration", "add_folio_for_migration", "add_page_for_migration",
         "do_move_page_to_node_array")
TAKES = ("isolate_huge_page", "isolate_hugetlb", "folio_isolate_hugetlb")
takes, asks, calls = {}, {}, {}

@there@
identifier fn = {huge_pmd_share, isolate_huge_page, isolate_hugetlb, folio_isolate_hugetlb,
                 __add_folio_for_migration, add_folio_for_migration, add_page_for_migration,
                 do_move_page_to_node_array};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
print("%s %s %s:%s" % ("SEEN" if str(fn) in MOVES else "EXISTS", fn, p[0].file, p[0].line))

@called@
identifier inside = {__add_folio_for_migration, add_folio_for_migration, add_page_for_migration,
                     do_move_page_to_node_array};
identifier fn;
position p;
@@
inside(...)
{
<...
fn@p(...)
...>
}

@script:python@
p << called.p;
fn << called.fn;
@@
name, fn, where = str(p[0].current_element), str(fn), "%s:%s" % (p[0].file, p[0].line)
calls.setdefault(fn, where)
if fn in TAKES:
    takes.setdefault(name, where)

@shared@
identifier fn =~ "pmd_shared";
position p;
@@
fn@p(...)

@script:python@
p << shared.p;
@@
asks.setdefault(str(p[0].current_element), "%s:%s" % (p[0].file, p[0].line))

@is_shared@
identifier fn = {ptdesc_pmd_is_shared};
position p;
@@
fn@p(...)

@script:python@
p << is_shared.p;
@@
asks.setdefault(str(p[0].current_element), "%s:%s" % (p[0].file, p[0].line))

// Sharing was counted in the references of the table's page before it got a count of its own.
@refers@
expression e;
position p;
@@
page_count@p(virt_to_page(e))

@script:python@
p << refers.p;
@@
asks.setdefault(str(p[0].current_element), "%s:%s" % (p[0].file, p[0].line))

@finalize:python@
@@
asked = [asks[name] for name in MOVES if name in asks] + \
        [where for fn, where in calls.items() if fn in asks]
for name, where in takes.items():
    print("NEEDS %s %s" % (name, where))
    for where in asked[:1]:
        print("HAS %s %s" % (name, where))
