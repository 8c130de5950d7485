// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <numaif.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kselftest.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_memory.h"
#include "migrate_page.h"
#include "migrate_round.h"
#include "migrate_util.h"
#include "vm_util.h"

#ifndef MFD_HUGETLB
#define MFD_HUGETLB		0x0004U
#endif
#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif
#define HUGE_SHIFT		26	/* MFD_HUGE_SHIFT, SHM_HUGE_SHIFT */

const char * const backing_name[] = { "hugetlbfs", "memfd", "sysv" };
const char * const trigger_name[] = {
	"migrate_pages", "move_pages", "mbind", "soft_offline", "block_offline",
};

static char said[160];

static const char *say(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(said, sizeof(said), format, arguments);
	va_end(arguments);
	return said;
}

bool trigger_offlines(enum trigger trigger)
{
	return trigger == SOFT_OFFLINE || trigger == BLOCK_OFFLINE;
}

/* One node is enough where nobody says where to: another frame will do. */
static int nr_nodes(const struct rounds *st)
{
	return st->nodes[0] == st->nodes[1] ? 1 : 2;
}

static const char *round_nodes_lack(int nodes[2], int cpu)
{
	const char *why;

	if (!nodes_lack(nodes, 2, cpu))
		return NULL;
	why = nodes_lack(nodes, 1, cpu);
	if (!why)
		nodes[1] = nodes[0];
	return why;
}

const char *trigger_lacks(const struct rounds *st, enum trigger trigger)
{
	int nodes[2];

	if (trigger_offlines(trigger) && !st->setup.may_offline)
		return "takes memory offline: HUGETLB_PMD_MIGRATE_OFFLINE=1 allows it";
	if (trigger == SOFT_OFFLINE)
		return unpoison_lacks();
	if (trigger == BLOCK_OFFLINE && block_of_pfn(0) < 0)
		return "no memory blocks: needs CONFIG_MEMORY_HOTREMOVE";
	if (!trigger_offlines(trigger) && nr_nodes(st) < 2)
		return nodes_lack(nodes, 2, st->cpus[0]);
	return NULL;
}

static bool page_moved(const struct round_setup *setup, const struct place *from,
		       const struct place *to)
{
	if (from->pfn < 0 || to->pfn < 0 || from->pfn == to->pfn)
		return false;
	if (trigger_offlines(setup->trigger))
		return true;
	return from->node >= 0 && to->node >= 0 && from->node != to->node;
}

/* The file. */

static const struct rounds *state_of(const struct memory *mem)
{
	return (const struct rounds *)mem;
}

/* Map the whole file at @addr, which is inside the reserved area. */
static int map_file(const struct memory *mem, char *addr)
{
	const struct rounds *st = state_of(mem);
	int flags = MAP_FIXED | MAP_NORESERVE;

	if (st->setup.backing == SYSV)
		return shmat(st->shmid, addr, SHM_REMAP) == (void *)-1 ?
		       errno : 0;
	flags |= st->setup.layout == PRIVATE ? MAP_PRIVATE : MAP_SHARED;
	return mmap(addr, pud_size(), PROT_READ | PROT_WRITE, flags,
		    st->fd, 0) == MAP_FAILED ? errno : 0;
}

/* Unmap, and keep the addresses from being used by anything else. */
static void unmap_file(const struct memory *mem, char *addr)
{
	if (state_of(mem)->setup.backing == SYSV)
		shmdt(addr);
	unmap_pud(addr);
}

/*
 * A segment that goes with its last user, whoever that is and however it ends:
 * Linux lets others attach it by its number until then. Attached to the view,
 * where no child gets it. Returns 0 or an error number.
 */
static int attach_segment(struct rounds *st)
{
	unsigned int shift = ffsl(pmd_size()) - 1;
	char *view = writers_view_addr(&st->writers);
	int error;

	st->shmid = shmget(IPC_PRIVATE, pud_size(), IPC_CREAT | 0600 |
			   SHM_HUGETLB | SHM_NORESERVE | shift << HUGE_SHIFT);
	if (st->shmid < 0)
		return errno;
	error = map_file(&st->memory, view);
	shmctl(st->shmid, IPC_RMID, NULL);
	if (!error && madvise(view, pud_size(), MADV_DONTFORK))
		error = errno;
	return error;
}

#ifndef IN_TREE
/*
 * Up to 5.17 shmat() reserves huge pages for all of a segment, whatever
 * shmget() was told. They are not used, but must be there. Returns 0 or -errno.
 */
static int open_segment(struct rounds *st)
{
	long each = pud_size() / pmd_size() / nr_nodes(st);
	int i, error = attach_segment(st);

	if (error == ENOMEM) {
		st->spare += each;
		/* Of a block only pages that nobody has reserved can go. */
		if (st->setup.may_offline && block_bytes() > 0)
			st->spare += block_bytes() / pmd_size();
		for (i = 0; i < nr_nodes(st); i++)
			pool_fill(st->nodes[i], st->spare);
		error = attach_segment(st);
	}
	return -error;
}
#endif

/* Returns NULL, or a line that says why there is none. */
static const char *backing_lacks(struct rounds *st)
{
	unsigned int shift = ffsl(pmd_size()) - 1;
	enum backing backing = st->setup.backing;
	int ret = 0;

	if (backing == HUGETLBFS) {
		if (st->fd < 0)
			st->fd = hugetlbfs_open(pud_size());
		ret = st->fd < 0 ? st->fd : 0;
	} else if (backing == MEMFD) {
		st->fd = syscall(SYS_memfd_create, "hugetlb_pmd_migrate",
				 MFD_HUGETLB | shift << HUGE_SHIFT);
		if (st->fd < 0 || ftruncate(st->fd, pud_size()))
			ret = -errno;
#ifndef IN_TREE
		if (ret == -EINVAL)
			return "no MFD_HUGETLB on this kernel (since 4.14)";
#endif
	} else {
#ifndef IN_TREE
		ret = open_segment(st);
		if (ret == -ENOMEM)
			return say("shmat() reserves it all: needs %ld free huge pages a node",
				   st->spare);
#else
		ret = -attach_segment(st);
#endif
		if (ret == -EINVAL || ret == -ENOSPC)
			return say("needs a System V segment of %zu MiB: %s",
				   pud_size() >> 20,
				   "kernel.shmmax, shmall or shmmni");
	}
	if (!ret)
		return NULL;
	return say("no %s of huge pages: %s", backing_name[backing],
		   strerror(-ret));
}

/* Pages. */

/* Whose page tables are asked where a page is, and migrated. */
static pid_t owner_pid(const struct rounds *st)
{
	if (st->setup.layout == ALONE || st->setup.layout == PRIVATE)
		return st->writers.each[0].pid;
	return 0;
}

/* Of sharer 0. */
static char *own_addr(const struct rounds *st)
{
	return writers_own_addr(&st->writers) +
	       (st->setup.layout == UNALIGNED ? pmd_size() : 0);
}

#ifndef IN_TREE
static int move_page(void *addr, int node)
{
	int status;

	return move_pages(0, 1, &addr, &node, &status, MPOL_MF_MOVE_ALL);
}

/*
 * A block that holds memory of the kernel's own cannot go offline. Up to 4.7
 * some huge pages come from such blocks, whatever room there is in others. Move
 * @page out of one: put a page that nobody uses in its place for good, or it
 * would come back, being the first of the free ones.
 */
static void leave_fixed_block(struct rounds *st, char *view, int page, int from,
			      int to)
{
	char *addr = view + page * pmd_size(), *filler;
	int64_t pfn;

	while (st->fillers < ROUND_FILLERS) {
		pfn = page_pfn(0, addr);
		if (pfn < 0 || block_removable(block_of_pfn(pfn)))
			return;
		move_page(addr, to);
		filler = view + (ROUND_PAGES + st->fillers++) * pmd_size();
		touch_pages(filler, 1);
		move_page(filler, from);
		move_page(addr, from);
	}
}
#endif

/*
 * Before the writers map the file: put @page on the first node, and all others on
 * the second, or all on the first.
 *
 *	node 0			node 1		to node 1
 *	| 0 |			| 1 | 2 | 3 |	page 0 moves
 *	| 0 | 1 | 2 | 3 |			all move (contended)
 *
 * What did not go where it should is seen by locate().
 */
static void place(struct rounds *st, int page)
{
	char *view = writers_view_addr(&st->writers);
	int nodes[ROUND_PAGES], status[ROUND_PAGES];
	void *pages[ROUND_PAGES];
	int i;

	/* Private pages can be had only from the writer, which writes. */
	if (st->setup.layout == PRIVATE || map_file(&st->memory, view))
		return;
	touch_pages(view, ROUND_PAGES);
	for (i = 0; i < ROUND_PAGES; i++) {
		pages[i] = view + i * pmd_size();
		nodes[i] = st->nodes[i != page && !st->setup.contended];
	}
	move_pages(0, ROUND_PAGES, pages, nodes, status, MPOL_MF_MOVE_ALL);
#ifndef IN_TREE
	if (st->setup.trigger == BLOCK_OFFLINE)
		leave_fixed_block(st, view, page, st->nodes[0], st->nodes[1]);
#endif
	unmap_file(&st->memory, view);
}

static void locate(const struct rounds *st, struct place *places)
{
	pid_t pid = owner_pid(st);
	char *addr = pid ? st->writers.each[0].addr : own_addr(st);
	int i;

	/* Migration may have taken the table away: fault it in again. */
	if (!pid)
		touch_pages(addr, ROUND_PAGES);
	for (i = 0; i < ROUND_PAGES; i++) {
		places[i].node = page_node(pid, addr + i * pmd_size());
		places[i].pfn = page_pfn(pid, addr + i * pmd_size());
	}
}

/* The trigger. Returns 0 or -errno. */
static int migrate(const struct rounds *st, int page, const struct place *from,
		   int target)
{
	pid_t pid = owner_pid(st);
	char *addr = own_addr(st);
	int nodes[ROUND_PAGES], status[ROUND_PAGES];
	void *pages[ROUND_PAGES];
	int i, ret = 0;

	switch (st->setup.trigger) {
	case MIGRATE_PAGES:
		if (st->setup.of_another)
			pid = st->writers.each[0].pid;
		ret = migrate_node(pid, from->node, target);
		break;
	case MOVE_PAGES:
		for (i = 0; i < ROUND_PAGES; i++) {
			pages[i] = addr + i * pmd_size();
			nodes[i] = target;	/* no news to those there */
		}
		ret = move_pages(pid, ROUND_PAGES, pages, nodes, status,
				 MPOL_MF_MOVE_ALL);
		break;
	case MBIND:
		/* The whole mapping: a part would be split off and unshared. */
		ret = bind_range(addr, pud_size(), target, MPOL_MF_MOVE_ALL);
		break;
	case SOFT_OFFLINE:
		ret = madvise(addr + page * pmd_size(), psize(),
			      MADV_SOFT_OFFLINE);
		break;
	case BLOCK_OFFLINE:
#ifndef IN_TREE
		/*
		 * Moves nothing, but drains the lists of pages that are on
		 * their way to the LRU: 4.18 warns of an unmovable page if it
		 * finds one of those in the block.
		 */
		migrate_node(0, from->node, from->node);
#endif
		return block_offline(block_of_pfn(from->pfn));
	}
	/* Above 0: pages that stayed. The nodes tell which. */
	return ret < 0 ? -errno : 0;
}

/* Undo what an offlining trigger did, for the next round to find the same. */
static void restore_memory(struct rounds *st, const struct place *from)
{
	int i;

	if (st->setup.trigger == SOFT_OFFLINE)
		pfn_unpoison(from->pfn);
#ifndef IN_TREE
	/* Up to 4.12 it may stay in the pool, free and of no use. */
	st->spare += st->setup.trigger == SOFT_OFFLINE;
#endif
	if (st->setup.trigger == BLOCK_OFFLINE)
		block_online(block_of_pfn(from->pfn));
	for (i = 0; i < nr_nodes(st); i++)
		pool_fill(st->nodes[i], st->spare - ROUND_PAGES);
}

/* What is lost. */

struct report {
	struct rounds *st;
	const struct place *from, *to;
	const struct call *call;
	int told;		/* the last page of which one was told */
	int *examples;
};

static void report_loss(const struct lost_write *lost, void *arg)
{
	struct report *r = arg;
	uint64_t began = r->call->began;
	const struct place *from = &r->from[lost->page];
	const struct place *to = &r->to[lost->page];
	char line[256];

	/* One example a page says more than three of the same page. */
	if (!*r->examples || r->told == lost->page)
		return;
	(*r->examples)--;
	r->told = lost->page;
	snprintf(line, sizeof(line),
		 "lost: page %d offset 0x%zx wrote 0x%llx found 0x%llx node %d->%d pfn 0x%llx->0x%llx %.1f ms after the call began",
		 lost->page, lost->offset % pmd_size(),
		 (unsigned long long)lost->wrote,
		 (unsigned long long)lost->found, from->node, to->node,
		 (unsigned long long)from->pfn, (unsigned long long)to->pfn,
		 cycles_to_us(lost->stamp > began ? lost->stamp - began : 0) /
		 1000);
	r->st->tell(line);
}

/*
 * Compare all journals with what must be there, through a view that no TLB has
 * seen: a mapping made for the purpose, or for private memory the kernel's own
 * walk of the writer's page tables. Returns the number of lost writes or -errno.
 */
static long compare(struct rounds *st, const struct place *from,
		    const struct place *to, const struct call *call,
		    int *examples, long *lost_in)
{
	char *view = writers_view_addr(&st->writers);
	struct report report = { st, from, to, call, -1, examples };
	char path[32];
	long lost;
	int i, mem;

	memset(lost_in, 0, ROUND_PAGES * sizeof(*lost_in));
	if (st->setup.layout == PRIVATE) {
		snprintf(path, sizeof(path), "/proc/%d/mem", owner_pid(st));
		mem = open(path, O_RDWR | O_CLOEXEC);
		if (mem < 0)
			return -errno;
		lost = writers_check(&st->writers, st->writers.each[0].addr,
				     mem, report_loss, &report, lost_in);
		close(mem);
		return lost;
	}
	i = map_file(&st->memory, view);
	if (i)
		return -i;
	for (i = 0; i < ROUND_PAGES; i++)
		if (st->moved && page_moved(&st->setup, &from[i], &to[i]))
			st->moved(st, call, i, &from[i], &to[i], view);
	lost = writers_check(&st->writers, view, -1, report_loss, &report,
			     lost_in);
	unmap_file(&st->memory, view);
	return lost;
}

/* From the beginning to the end. */

void rounds_init(struct rounds *st)
{
	memset(st, 0, sizeof(*st));
	st->fd = -1;
	st->shmid = -1;
	st->share.fd = -1;
	st->unshare.fd = -1;
}

const char *rounds_begin(struct rounds *st, const struct round_setup *setup)
{
	const char *why;
	int i;

	st->setup = *setup;
	st->memory = (struct memory){
		.map = map_file,
		.unmap = unmap_file,
		.page = pmd_size(),
		.nr_pages = ROUND_PAGES,
		.shares_table = setup->layout == SHARED,
	};
	st->writers.mem = &st->memory;
	st->oom_kills = vm_event("oom_kill");

	if (geteuid())
		return "needs root, for MPOL_MF_MOVE_ALL and page frame numbers";
	st->nr_cpus = cpu_list(st->cpus, ARRAY_SIZE(st->cpus));
	if (st->nr_cpus < 2)
		return "needs two CPUs";
	why = round_nodes_lack(st->nodes, st->cpus[0]);
	if (why)
		return why;

	why = guard_lacks();
	if (why)
		return why;
	st->spare = ROUND_SPARE;
#ifndef IN_TREE
	if (setup->may_offline)
		st->spare += ROUND_FILLERS;
#endif
	why = pool_lacks(st->nodes, nr_nodes(st), st->spare);
	if (why)
		return why;

	/* Sharer 0 migrates and does not write. */
	if (!writers_reserve(&st->writers, setup->sharers - 1))
		return say("needs more address space: PUDs of %zu MiB",
			   pud_size() >> 20);
	why = backing_lacks(st);
	if (why)
		return why;

	pin_to_cpu(st->cpus[0]);
	tracepoint_open(&st->share, "hugetlb_pmd", "hugetlb_pmd_share");
	tracepoint_open(&st->unshare, "hugetlb_pmd", "hugetlb_pmd_unshare");
	/*
	 * Before sharer 0 maps anything: they must not inherit its mapping, and
	 * the reverse map walk must come to sharer 0 first, whose TLB is the
	 * one that a kernel with the defect flushes.
	 */
	i = writers_fork(&st->writers, st->cpus, st->nr_cpus);
	if (!i && setup->layout != ALONE)
		i = map_file(&st->memory, own_addr(st));
	if (i)
		return say("cannot begin: %s", strerror(i));
	if (setup->layout != PRIVATE && (st->fd >= 0 || setup->layout != ALONE))
		why = populate_lacks(st->fd, own_addr(st), ROUND_PAGES);
	if (why)
		return why;
	if (setup->layout != ALONE && st->shmid >= 0)
		unmap_file(&st->memory, writers_view_addr(&st->writers));
	if (setup->layout != ALONE && setup->layout != PRIVATE)
		for (i = 0; i < ROUND_PAGES; i++)
			__atomic_store_n(own_addr(st) + i * pmd_size(), 0,
					 __ATOMIC_RELAXED);
	/*
	 * migrate_pages(2) moves all of a process, and a writer shares some of
	 * it: text, its struct writer. That flushes the writer's TLB and may
	 * hide what we are here to see, so move all that now, and always in the
	 * same direction.
	 */
	migrate_node(0, st->nodes[0], st->nodes[1]);
	cycles_start();
	return NULL;
}

void rounds_end(struct rounds *st)
{
	cpu_set_t cpus;
	int i;

	CPU_ZERO(&cpus);
	for (i = 0; i < st->nr_cpus; i++)
		CPU_SET(st->cpus[i], &cpus);
	/* Those of the next rounds are to find them. */
	if (st->nr_cpus > 0)
		sched_setaffinity(0, sizeof(cpus), &cpus);
	writers_kill(&st->writers);
	/* Huge pages in use would stay in the pool. */
	if (st->fd >= 0)
		close(st->fd);
	st->fd = -1;
	tracepoint_close(&st->share);
	tracepoint_close(&st->unshare);
	guard_stop();
}

/*
 * Sharers map the file anew. Four pages are there already, in the table of
 * sharer 0:
 *
 *	shared		sharer 1's PUD entry -> [0|1|2|3]   1 fault: the table
 *	not shared	sharer 1's own table -> [ | | | ]   4 faults: each page
 *
 * Returns ROUND_DONE if it is as the layout says.
 */
static enum round_end prove_sharing(struct rounds *st,
				    const struct round_result *r,
				    const char **why)
{
	long before = tracepoint_count(&st->share), faults;
	enum layout layout = st->setup.layout;
	int i;

	*why = "a writer is gone, or does not answer";
	if (!writers_order(&st->writers, WRITE, r->rests))
		return ROUND_BROKEN;
	/* The kernel's own word for it, where it has one. */
	*why = "hugetlb_pmd_share does not say that tables are shared";
	if (st->share.fd >= 0 && layout == SHARED && !r->lost &&
	    tracepoint_count(&st->share) - before < st->writers.nr)
		return ROUND_BROKEN;
	for (i = 0; i < st->writers.nr; i++) {
		faults = st->writers.each[i].faults;
		*why = say("sharer %d cannot map the file: %s", i + 1,
			   strerror(st->writers.each[i].error));
		if (st->writers.each[i].error)
			return ROUND_BROKEN;
		*why = not_shared(faults, ROUND_PAGES);
		/* Not after a loss: a skip would take its place. */
		if (layout == SHARED && faults != 1 && !r->lost)
			return ROUND_NOT_SHARED;
		*why = "page table shared where it must not be";
		if (layout != SHARED && faults < ROUND_PAGES)
			return ROUND_SHARED;
	}
	return ROUND_DONE;
}

/*
 * place	page on node 0
 * map, write	sharer 1..	|--- w w w w w w w w w w w w w w w --|
 * migrate	sharer 0		|== the call ==|
 * stop, compare						 |--|
 */
static enum round_end one_round(struct rounds *st, struct round_result *r,
				const char **why)
{
	int page = r->calls % ROUND_PAGES, target, i;
	const struct round_setup *setup = &st->setup;
	struct place from[ROUND_PAGES], to[ROUND_PAGES];
	struct call call = { .nr = ++r->calls, .hot = !r->rests };
	uint64_t then[MAX_WRITERS];
	long lost_in[ROUND_PAGES], got;
	bool moved = false, wrote;
	enum round_end end;
	char value[32];

	place(st, page);
	if (setup->layout == SHARED || setup->layout == UNALIGNED)
		touch_pages(own_addr(st), ROUND_PAGES);
	end = prove_sharing(st, r, why);
	if (end != ROUND_DONE)
		return end;

	locate(st, from);
	*why = say("page %d is nowhere", page);
	if (from[page].node < 0 || from[page].pfn < 0)
		return ROUND_BROKEN;
	target = st->nodes[from[page].node == st->nodes[0]];
	if (setup->trigger == SOFT_OFFLINE) {
		snprintf(value, sizeof(value), "0x%llx",
			 (unsigned long long)from[page].pfn);
		i = guard_undo(UNPOISON_PFN, value);
		*why = say("the guardian can note no more: %s", strerror(-i));
		if (i)
			return ROUND_BROKEN;
	}

	got = tracepoint_count(&st->unshare);
	call.began = cycles();
	writers_note(&st->writers, then);
	i = migrate(st, page, &from[page], target);
	wrote = writers_wrote(&st->writers, then) == st->writers.nr;
	call.ended = cycles();
	r->unshares += tracepoint_count(&st->unshare) - got;
	if (i) {
		r->failed_calls++;
		r->error = -i;
	}

	*why = "a writer is gone, or does not answer";
	if (!writers_order(&st->writers, STOP, 0))
		return ROUND_BROKEN;
	locate(st, to);
	got = compare(st, from, to, &call, &r->examples, lost_in);
	if (got < 0) {
		*why = say("cannot look at the pages: %s", strerror(-got));
		return ROUND_BROKEN;
	}
	r->lost += got;
	for (i = 0; i < ROUND_PAGES; i++) {
		if (!page_moved(setup, &from[i], &to[i]))
			continue;
		moved = true;
		r->moves++;
		r->lost_moves += !!lost_in[i];
	}
	r->moved_calls += moved && wrote;
	r->idle_calls += moved && !wrote;
	r->hot_calls += call.hot;
	r->hot_moved += call.hot && moved;
	/*
	 * A call that moved nothing is made again, with writers that rest now
	 * and then: a process that faults on the page holds a reference to it,
	 * and if all do so all the time, a kernel that unmaps the page everywhere
	 * may not get it moved.
	 */
	r->rests = moved ? 0 : r->rests < MAX_RESTS ? r->rests + 1 : MAX_RESTS;

	if (setup->layout != PRIVATE && !writers_order(&st->writers, UNMAP, 0))
		return ROUND_BROKEN;
	if (trigger_offlines(setup->trigger))
		restore_memory(st, &from[page]);
	return ROUND_DONE;
}

enum round_end round_run(struct rounds *st, struct round_result *r,
			 const char **why)
{
	enum round_end end = one_round(st, r, why);
	long killed = vm_event("oom_kill") - st->oom_kills;

	if (end != ROUND_BROKEN || killed <= 0)
		return end;
	*why = say("inconclusive: %ld processes killed for want of memory",
		   killed);
	return ROUND_STARVED;
}
