// SPDX-License-Identifier: GPL-2.0
// EXISTS  the function that looks for the processes that map a page; and, named fault_holds, a page fault
//         has i_mmap_rwsem
// NEEDS   where that function waits for i_mmap_rwsem
// HAS     not for a huge page: who calls it lets go of the page to take i_mmap_rwsem, and locks it again

@initialize:python@
@@
LOCKS = ("unlock_page", "i_mmap_lock_write", "lock_page")
needs, guarded, calls = [], set(), {}

@there@
identifier fn = {collect_procs_file, hugetlb_fault};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
where = "%s:%s" % (p[0].file, p[0].line)
if str(fn) == "collect_procs_file":
    print("EXISTS collect_procs_file %s" % where)
print("SEEN %s %s" % (fn, where))

@holds@
identifier inside = {hugetlb_fault};
identifier fn = {i_mmap_lock_read};
position p;
@@
inside(...)
{
<+...
fn@p(...)
...+>
}

@script:python@
p << holds.p;
@@
print("EXISTS fault_holds %s:%s" % (p[0].file, p[0].line))

@waits@
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
p << waits.p;
@@
needs.append((p[0].line, "%s:%s" % (p[0].file, p[0].line)))

@small@
identifier inside = {collect_procs_file};
identifier fn = {i_mmap_lock_read, i_mmap_lock_write};
expression page;
position p;
@@
inside(...)
{
<+...
if (!PageHuge(page)) fn@p(...);
...+>
}

@script:python@
p << small.p;
@@
guarded.add(p[0].line)

@order@
identifier fn = {unlock_page, i_mmap_lock_write, lock_page};
position p;
@@
fn@p(...)

@script:python@
p << order.p;
fn << order.fn;
@@
if p[0].file.endswith("memory-failure.c"):
    calls.setdefault(str(p[0].current_element), []).append((int(p[0].line), str(fn)))

@finalize:python@
@@
orders = [[name for _line, name in sorted(of)] for of in calls.values()]
taken = any(tuple(names[at:at + 3]) == LOCKS for names in orders for at in range(len(names)))
for line, where in needs:
    print("NEEDS collect_procs_file %s" % where)
if needs and taken and all(line in guarded for line, _where in needs):
    print("HAS collect_procs_file %s" % needs[0][1])
