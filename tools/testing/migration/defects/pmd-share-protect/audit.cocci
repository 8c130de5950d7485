// SPDX-License-Identifier: GPL-2.0
// EXISTS  PMD tables can be shared, and the protection of hugetlb mappings be changed
// NEEDS   the function that changes the flags of a VMA for mprotect()
// HAS     it does so with the lock of the mapping for writing; or leaves it to the one that changes
//         the entries, and that one does

@initialize:python@
@@
CHANGES = ("mprotect_fixup", "hugetlb_change_protection")
locks, sets, calls = {}, {}, set()

@there@
identifier fn = {huge_pmd_share, hugetlb_change_protection, mprotect_fixup};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
print("%s %s %s:%s" % ("EXISTS" if str(fn) == "huge_pmd_share" else "SEEN", fn, p[0].file, p[0].line))
if str(fn) == "hugetlb_change_protection":
    print("EXISTS %s %s:%s" % (fn, p[0].file, p[0].line))
elif str(fn) == "mprotect_fixup":
    print("NEEDS %s %s:%s" % (fn, p[0].file, p[0].line))

@takes@
expression mapping;
position p;
@@
(
i_mmap_lock_write@p(...)
|
mutex_lock@p(&mapping->i_mmap_mutex)
|
spin_lock@p(&mapping->i_mmap_lock)
)

@script:python@
p << takes.p;
@@
locks.setdefault(str(p[0].current_element), int(p[0].line))

// The first place where a function sets them.
@changes@
identifier set = {vm_flags_reset, vm_flags_reset_once, vma_flags_reset_once, vm_flags_init};
expression vma, flags;
position p;
@@
(
set@p(vma, flags)
|
vma->vm_flags =@p flags
)

@script:python@
p << changes.p;
@@
name, line = str(p[0].current_element), int(p[0].line)
if name in CHANGES:
    where = "%s:%s" % (p[0].file, p[0].line)
    sets[name] = min(sets.get(name, (line, where)), (line, where))

@left@
position p;
@@
hugetlb_change_protection@p(...)

@script:python@
p << left.p;
@@
calls.add(str(p[0].current_element))

@finalize:python@
@@
for name, (line, where) in sets.items():
    if name in locks and locks[name] < line and \
            (name == "mprotect_fixup" or "mprotect_fixup" in calls):
        print("HAS mprotect_fixup %s" % where)
