// SPDX-License-Identifier: GPL-2.0
// EXISTS  exec moves its stack after it has built it, and anonymous pages can be migrated
// NEEDS   the walk that unmaps an anonymous page to migrate it
// HAS     it passes over a stack that is still temporary

@initialize:python@
@@
walks, passes = {}, []

@there@
identifier fn = {shift_arg_pages, relocate_vma_down, migrate_pages};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@

print("EXISTS %s %s:%s" % (fn, p[0].file, p[0].line))

@walk@
identifier fn = {try_to_unmap_anon, try_to_unmap, try_to_migrate};
position p;
@@
fn@p(...) { ... }

@script:python@
p << walk.p;
fn << walk.fn;
@@
walks[str(fn)] = "%s:%s" % (p[0].file, p[0].line)
print("SEEN %s %s" % (fn, walks[str(fn)]))

@asks@
identifier fn = {vma_is_temporary_stack, is_vma_temporary_stack};
position p;
@@
fn@p(...)

@script:python@
p << asks.p;
@@
if str(p[0].current_element) in ("try_to_unmap_anon", "invalid_migration_vma"):
    passes.append("%s:%s" % (p[0].file, p[0].line))

@finalize:python@
@@
# The newest of the three that is there: it is the one that migration uses.
for name in ("try_to_migrate", "try_to_unmap_anon", "try_to_unmap"):
    if name in walks:
        print("NEEDS %s %s" % (name, walks[name]))
        for where in passes:
            print("HAS %s %s" % (name, where))
        break
