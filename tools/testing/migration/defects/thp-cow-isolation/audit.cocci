// SPDX-License-Identifier: GPL-2.0
// EXISTS  compaction isolates pages, and THPs among them: for a contiguous allocation
// NEEDS   references are compared with mappings, to tell whether a page is pinned
// HAS     the mappings of all sub-pages are counted

@isolates@
identifier fn = {isolate_migratepages_block};
position p;
@@
fn@p(...) { ... }

@script:python@
p << isolates.p;
fn << isolates.fn;
@@
print("EXISTS %s %s:%s" % (fn, p[0].file, p[0].line))
print("SEEN %s %s:%s" % (fn, p[0].file, p[0].line))

@takes@
expression cc;
position p;
@@
cc->alloc_contig@p

@script:python@
p << takes.p;
@@
if str(p[0].current_element) == "isolate_migratepages_block":
    print("EXISTS alloc_contig %s:%s" % (p[0].file, p[0].line))

@counts@
identifier fn = {page_count, page_ref_count, folio_ref_count};
position p;
@@
fn@p(...)

@script:python@
p << counts.p;
@@
if str(p[0].current_element) == "isolate_migratepages_block":
    print("NEEDS isolate_migratepages_block %s:%s" % (p[0].file, p[0].line))

@all_of_it@
identifier fn = {total_mapcount, folio_mapcount};
position p;
@@
fn@p(...)

@script:python@
p << all_of_it.p;
@@
if str(p[0].current_element) == "isolate_migratepages_block":
    print("HAS isolate_migratepages_block %s:%s" % (p[0].file, p[0].line))
