// SPDX-License-Identifier: GPL-2.0
// EXISTS  hugetlb mappings can be moved
// NEEDS   the function that moves the entries, and returns how many bytes that were
// HAS     it returns them in a type that holds any length of a mapping

@there@
identifier fn = {move_hugetlb_page_tables};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
for kind in ("EXISTS", "SEEN", "NEEDS"):
    print("%s %s %s:%s" % (kind, fn, p[0].file, p[0].line))

@returns@
identifier fn = {move_hugetlb_page_tables};
type T;
position p;
@@
T fn@p(...) { ... }

@script:python@
p << returns.p;
fn << returns.fn;
T << returns.T;
@@
if " ".join(str(T).split()) in ("unsigned long", "long", "size_t", "ssize_t", "u64", "s64"):
    print("HAS %s %s:%s" % (fn, p[0].file, p[0].line))
