// SPDX-License-Identifier: GPL-2.0
// EXISTS  hugetlb mappings can be moved
// NEEDS   the function that moves the entries
// HAS     its new address goes on by what its old one does, or is made of that one

@initialize:python@
@@
import re

MOVES = "move_hugetlb_page_tables"
moves, adds, sets = [], [], []

def made_of_old(text):
    return re.search(r"\bold_addr\b", str(text))

// By other names of its addresses it is not known, and not seen.
@there@
identifier fn = {move_hugetlb_page_tables}, old = {old_addr}, to = {new_addr};
type T, U;
position p;
@@
fn@p(..., T old, U to, ...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
where = "%s:%s" % (p[0].file, p[0].line)
moves.append(where)
for kind in ("SEEN", "NEEDS"):
    print("%s %s %s" % (kind, fn, where))

@known@
identifier fn = {move_hugetlb_page_tables};
position p;
@@
fn@p(...) { ... }

@script:python@
p << known.p;
fn << known.fn;
@@
print("EXISTS %s %s:%s" % (fn, p[0].file, p[0].line))

@adds depends on there@
identifier x = {old_addr, new_addr};
expression by;
position p;
@@
x +=@p by

@script:python@
p << adds.p;
x << adds.x;
by << adds.by;
@@
if str(p[0].current_element) == MOVES:
    adds.append((str(x), str(by)))

@sets depends on there@
identifier x = {new_addr};
expression to;
position p;
@@
(
x =@p to
|
x |=@p to
|
x &=@p to
|
x -=@p to
)

@script:python@
p << sets.p;
to << sets.to;
@@
if str(p[0].current_element) == MOVES:
    sets.append(str(to))

@finalize:python@
@@
steps = [by for x, by in adds if x == "old_addr"]
if all(by in steps or made_of_old(by) for x, by in adds if x == "new_addr") and \
        all(made_of_old(to) for to in sets):
    for where in moves:
        print("HAS %s %s" % (MOVES, where))
