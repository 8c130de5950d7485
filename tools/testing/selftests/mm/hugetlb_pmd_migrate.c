// SPDX-License-Identifier: GPL-2.0
/*
 * Does migration of a hugetlb page stop every process from writing to the old
 * page, when those processes share the PMD page table that maps it?
 *
 * Processes that map the same, suitably aligned 1 GiB (x86-64) of a hugetlb
 * file share one page of PMD entries:
 *
 *	sharer 0 (migrates)   sharer 1 (writes)     sharer 2 (writes)
 *	     PUD entry             PUD entry             PUD entry
 *	         \                     |                     /
 *	          +------------> PMD page table <-----------+
 *	                         | entry 0 | -> huge page 0 (map count 1)
 *	                         | entry 1 | -> huge page 1 (map count 1)
 *	                             ...
 *
 * Each huge page is mapped once, by the table, so its map count is 1. The
 * reverse map walk of a kernel that trusts the map count clears the entry,
 * flushes the TLB of the first mm that it comes to and stops: all the others
 * go on writing to the old page through what their TLBs still hold, while its
 * contents are copied and after. Those writes are lost.
 *
 * The page tables alone do not show it: the entry, which everybody shares, is
 * right. So every other sharer writes all the time, on a CPU of its own, to a
 * journal inside each page (see migrate_writers.h), from which it can be told of
 * each slot what it must hold. One round of the test is
 *
 *	place      one page on the node that it is to leave, the others, which
 *	           shall stay, on the other
 *	map        sharers map the file anew, each at an address of its own, and
 *	           touch pages that are populated: one fault each if the table is
 *	           shared, one fault a page if not. This is the proof of sharing.
 *	write      until all writers are at it
 *	migrate    by the trigger under test; writers go on
 *	stop       the writers, somewhat later
 *	compare    journals in a new mapping with the number of the last write
 *	unmap      all but sharer 0: no stale TLB entry reaches the next round
 *
 * Some tests also print one of their migrations as a timeline: the first that
 * lost writes, or else the first of all. What the journals hold of it is enough
 * to say of some writes when they were made, and whether they are there.
 *
 * A page counts as migrated if it was on one node before the call and is on
 * the other after it (for offlining, which does not say where to: in another
 * page frame). A call counts if it moved a page, and if each writer wrote to all
 * pages at least once meanwhile: who did not could not lose a write. A run with
 * too few of these proves nothing and is skipped as inconclusive.
 *
 * Environment:
 *	HUGETLB_PMD_MIGRATE_OFFLINE=1	also run the tests that take memory
 *					offline; not for machines that do work
 *	HUGETLB_PMD_MIGRATE_CALLS=n	rounds a test
 *	HUGETLB_PMD_MIGRATE_SEED=n	for the random delays
 */
#include "kselftest_harness.h"

#include <fcntl.h>
#include <numaif.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <time.h>

#include "migrate_timeline.h"
#include "migrate_util.h"
#include "migrate_writers.h"
#include "vm_util.h"

#ifndef MFD_HUGETLB
#define MFD_HUGETLB		0x0004U
#endif
#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif
#define HUGE_SHIFT		26	/* MFD_HUGE_SHIFT, SHM_HUGE_SHIFT */

#define NR_PAGES		4	/* populated pages of the file */
#define MAX_FILLERS		16
#define MIN_MOVES		3	/* fewer are no evidence */
#define EXAMPLES		3	/* lost writes told in full, a test */

enum backing { HUGETLBFS, MEMFD, SYSV };

enum trigger {
	MIGRATE_PAGES, MOVE_PAGES, MBIND, SOFT_OFFLINE, BLOCK_OFFLINE,
};

enum layout {
	SHARED,		/* table can be shared, and must be */
	UNALIGNED,	/* no whole PUD in the mapping: must not be */
	PRIVATE,	/* MAP_PRIVATE: must not be */
	ALONE,		/* nobody to share with */
};

static const char * const backing_name[] = { "hugetlbfs", "memfd", "sysv" };
static const char * const trigger_name[] = {
	"migrate_pages", "move_pages", "mbind", "soft_offline", "block_offline",
};

/* What a run is about: the variant, and its test's trigger. */
struct setup {
	enum backing backing;
	enum layout layout;
	int sharers;		/* sharer 0 included, which does not write */
	bool contended;		/* all pages leave at once */
	enum trigger trigger;
};

/* What it is made of. */
struct state {
	struct memory memory;	/* first: see state_of() */
	struct writers writers;	/* without sharer 0, which is the test */
	struct setup setup;
	int fd;
	int shmid;
	int nodes[2];		/* pages leave from, and go to */
	long spare;		/* free huge pages a node, to begin a round with */
	int fillers;		/* pages of the file that only take up room */
	unsigned int seed;
	struct tracepoint share, unshare;
};

/* What came of it. */
struct result {
	long calls, failed_calls;
	int error;		/* of the last that failed */
	long moved_calls;	/* with all writing meanwhile */
	long idle_calls;	/* that moved a page, without that */
	long moves, lost_moves;	/* of pages */
	long lost;		/* writes */
	long hot_calls, hot_moved;	/* with writers that did not rest */
	long unshares;
	int examples;		/* of lost writes, to be told yet */
	int rests;
};

/* Tables that are shared, and so must be unshared. */
FIXTURE(hugetlb_pmd_migrate)
{
	struct state state;
};

FIXTURE_VARIANT(hugetlb_pmd_migrate)
{
	struct setup setup;
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, hugetlbfs_2) {
	.setup = { .backing = HUGETLBFS, .sharers = 2 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, hugetlbfs_4) {
	.setup = { .backing = HUGETLBFS, .sharers = 4 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, memfd_2) {
	.setup = { .backing = MEMFD, .sharers = 2 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, memfd_4) {
	.setup = { .backing = MEMFD, .sharers = 4 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, sysv_2) {
	.setup = { .backing = SYSV, .sharers = 2 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, sysv_4) {
	.setup = { .backing = SYSV, .sharers = 4 } };

/* The same with all pages leaving at once, and where no table is shared. */
FIXTURE(hugetlb_pmd_others)
{
	struct state state;
};

FIXTURE_VARIANT(hugetlb_pmd_others)
{
	struct setup setup;
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_others, contended_2) {
	.setup = { .sharers = 2, .contended = true,
		   .trigger = MIGRATE_PAGES } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_others, contended_4) {
	.setup = { .backing = SYSV, .sharers = 4, .contended = true,
		   .trigger = MOVE_PAGES } };
/* These pass on every kernel. */
FIXTURE_VARIANT_ADD(hugetlb_pmd_others, not_shared_unaligned) {
	.setup = { .layout = UNALIGNED, .sharers = 2 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_others, not_shared_private) {
	.setup = { .layout = PRIVATE, .sharers = 2 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_others, not_shared_alone) {
	.setup = { .layout = ALONE, .sharers = 2 } };

static bool offlines(enum trigger trigger)
{
	return trigger == SOFT_OFFLINE || trigger == BLOCK_OFFLINE;
}

static bool may_offline(void)
{
	return env_long("HUGETLB_PMD_MIGRATE_OFFLINE", 0);
}

static bool page_moved(const struct setup *setup, const struct place *from,
		       const struct place *to)
{
	if (from->pfn < 0 || to->pfn < 0 || from->pfn == to->pfn)
		return false;
	if (offlines(setup->trigger))
		return true;
	return from->node >= 0 && to->node >= 0 && from->node != to->node;
}

/* The file. */

static const struct state *state_of(const struct memory *mem)
{
	return (const struct state *)mem;
}

/* Map the whole file at @addr, which is inside the reserved area. */
static int map_file(const struct memory *mem, char *addr)
{
	const struct state *st = state_of(mem);
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
static int attach_segment(struct state *st)
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

/*
 * Up to 5.17 shmat() reserves huge pages for all of a segment, whatever
 * shmget() was told. They are not used, but must be there. Returns 0 or -errno.
 */
static int open_segment(struct state *st)
{
	long half = pud_size() / pmd_size() / 2;
	int i, error = attach_segment(st);

	if (error == ENOMEM) {
		st->spare += half;
		/* Of a block only pages that nobody has reserved can go. */
		if (may_offline() && block_bytes() > 0)
			st->spare += block_bytes() / pmd_size();
		for (i = 0; i < 2; i++)
			pool_fill(st->nodes[i], st->spare);
		error = attach_segment(st);
	}
	return -error;
}

/* Returns NULL, or a line that says why there is none. */
static const char *backing_lacks(struct state *st)
{
	unsigned int shift = ffsl(pmd_size()) - 1;
	enum backing backing = st->setup.backing;
	static char why[96];
	int ret = 0;

	if (backing == HUGETLBFS) {
		st->fd = hugetlbfs_open(pud_size());
		ret = st->fd < 0 ? st->fd : 0;
	} else if (backing == MEMFD) {
		st->fd = syscall(SYS_memfd_create, "hugetlb_pmd_migrate",
				 MFD_HUGETLB | shift << HUGE_SHIFT);
		if (st->fd < 0 || ftruncate(st->fd, pud_size()))
			ret = -errno;
		if (ret == -EINVAL)
			return "no MFD_HUGETLB on this kernel (since 4.14)";
	} else {
		ret = open_segment(st);
		if (ret == -ENOMEM)
			snprintf(why, sizeof(why),
				 "shmat() reserves it all: needs %ld free huge pages a node",
				 st->spare);
		else if (ret == -EINVAL || ret == -ENOSPC)
			snprintf(why, sizeof(why),
				 "needs a System V segment of %zu MiB: kernel.shmmax, shmall or shmmni",
				 pud_size() >> 20);
		if (*why)
			return why;
	}
	if (!ret)
		return NULL;
	snprintf(why, sizeof(why), "no %s of huge pages: %s",
		 backing_name[backing], strerror(-ret));
	return why;
}

/* Pages. */

/* Whose page tables are asked where a page is, and migrated. */
static pid_t owner_pid(const struct state *st)
{
	if (st->setup.layout == ALONE || st->setup.layout == PRIVATE)
		return st->writers.each[0].pid;
	return 0;
}

/* Of sharer 0. */
static char *own_addr(const struct state *st)
{
	return writers_own_addr(&st->writers) +
	       (st->setup.layout == UNALIGNED ? pmd_size() : 0);
}

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
static void leave_fixed_block(struct state *st, char *view, int page, int from,
			      int to)
{
	char *addr = view + page * pmd_size(), *filler;
	int64_t pfn;

	while (st->fillers < MAX_FILLERS) {
		pfn = page_pfn(0, addr);
		if (pfn < 0 || block_removable(block_of_pfn(pfn)))
			return;
		move_page(addr, to);
		filler = view + (NR_PAGES + st->fillers++) * pmd_size();
		touch_pages(filler, 1);
		move_page(filler, from);
		move_page(addr, from);
	}
}

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
static void place(struct state *st, int page)
{
	char *view = writers_view_addr(&st->writers);
	int nodes[NR_PAGES], status[NR_PAGES];
	void *pages[NR_PAGES];
	int i;

	/* Private pages can be had only from the writer, which writes. */
	if (st->setup.layout == PRIVATE || map_file(&st->memory, view))
		return;
	touch_pages(view, NR_PAGES);
	for (i = 0; i < NR_PAGES; i++) {
		pages[i] = view + i * pmd_size();
		nodes[i] = st->nodes[i != page && !st->setup.contended];
	}
	move_pages(0, NR_PAGES, pages, nodes, status, MPOL_MF_MOVE_ALL);
	if (st->setup.trigger == BLOCK_OFFLINE)
		leave_fixed_block(st, view, page, st->nodes[0], st->nodes[1]);
	unmap_file(&st->memory, view);
}

static void locate(const struct state *st, struct place *places)
{
	pid_t pid = owner_pid(st);
	char *addr = pid ? st->writers.each[0].addr : own_addr(st);
	int i;

	/* Migration may have taken the table away: fault it in again. */
	if (!pid)
		touch_pages(addr, NR_PAGES);
	for (i = 0; i < NR_PAGES; i++) {
		places[i].node = page_node(pid, addr + i * pmd_size());
		places[i].pfn = page_pfn(pid, addr + i * pmd_size());
	}
}

/* The trigger. Returns 0 or -errno. */
static int migrate(const struct state *st, int page, const struct place *from,
		   int target)
{
	pid_t pid = owner_pid(st);
	char *addr = own_addr(st);
	int nodes[NR_PAGES], status[NR_PAGES];
	void *pages[NR_PAGES];
	int i, ret = 0;

	switch (st->setup.trigger) {
	case MIGRATE_PAGES:
		ret = migrate_node(pid, from->node, target);
		break;
	case MOVE_PAGES:
		for (i = 0; i < NR_PAGES; i++) {
			pages[i] = addr + i * pmd_size();
			nodes[i] = target;	/* no news to those there */
		}
		ret = move_pages(pid, NR_PAGES, pages, nodes, status,
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
		/*
		 * Moves nothing, but drains the lists of pages that are on
		 * their way to the LRU: 4.18 warns of an unmovable page if it
		 * finds one of those in the block.
		 */
		migrate_node(0, from->node, from->node);
		return block_offline(block_of_pfn(from->pfn));
	}
	/* Above 0: pages that stayed. The nodes tell which. */
	return ret < 0 ? -errno : 0;
}

/* Undo what an offlining trigger did, for the next round to find the same. */
static void restore_memory(struct state *st, const struct place *from)
{
	int i;

	if (st->setup.trigger == SOFT_OFFLINE) {
		pfn_unpoison(from->pfn);
		/* Up to 4.12 it may stay in the pool, free and of no use. */
		st->spare++;
	}
	if (st->setup.trigger == BLOCK_OFFLINE)
		block_online(block_of_pfn(from->pfn));
	for (i = 0; i < 2; i++)
		pool_fill(st->nodes[i], st->spare - NR_PAGES);
}

/* What is lost. */

struct report {
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

	/* One example a page says more than three of the same page. */
	if (!*r->examples || r->told == lost->page)
		return;
	(*r->examples)--;
	r->told = lost->page;
	ksft_print_msg("lost: page %d offset 0x%zx wrote 0x%llx found 0x%llx",
		       lost->page, lost->offset % pmd_size(),
		       (unsigned long long)lost->wrote,
		       (unsigned long long)lost->found);
	printf(" node %d->%d pfn 0x%llx->0x%llx %.1f ms after the call began\n",
	       from->node, to->node, (unsigned long long)from->pfn,
	       (unsigned long long)to->pfn,
	       cycles_to_us(lost->stamp > began ? lost->stamp - began : 0) /
	       1000);
}

/* Those of a few tests say it all. */
static bool keeps_timeline(const struct setup *setup)
{
	return setup->backing == HUGETLBFS && setup->layout == SHARED &&
	       !setup->contended && (setup->trigger == MIGRATE_PAGES ||
				     setup->trigger == SOFT_OFFLINE);
}

/*
 * Compare all journals with what must be there, through a view that no TLB has
 * seen: a mapping made for the purpose, or for private memory the kernel's own
 * walk of the writer's page tables. Returns the number of lost writes or -errno.
 */
static long compare(const struct state *st, const struct place *from,
		    const struct place *to, const struct call *call,
		    int *examples, long *lost_in)
{
	char *view = writers_view_addr(&st->writers);
	struct report report = { from, to, call, -1, examples };
	char path[32];
	long lost;
	int i, mem;

	memset(lost_in, 0, NR_PAGES * sizeof(*lost_in));
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
	for (i = 0; i < NR_PAGES; i++)
		if (keeps_timeline(&st->setup) &&
		    page_moved(&st->setup, &from[i], &to[i]))
			timeline_note(&st->writers, call, i, &from[i], &to[i],
				      view);
	lost = writers_check(&st->writers, view, -1, report_loss, &report,
			     lost_in);
	unmap_file(&st->memory, view);
	return lost;
}

/* From the beginning to the end. */

/* Returns NULL, or a line that says what is missing. */
static const char *set_up(struct state *st, const struct setup *setup)
{
	int i, nr_cpus, cpus[CPU_SETSIZE];
	const char *why;
	static char text[96];

	st->setup = *setup;
	st->fd = -1;
	st->shmid = -1;
	st->share.fd = -1;
	st->unshare.fd = -1;
	st->memory = (struct memory){
		.map = map_file,
		.unmap = unmap_file,
		.page = pmd_size(),
		.nr_pages = NR_PAGES,
		.shares_table = setup->layout == SHARED,
	};
	st->writers.mem = &st->memory;

	if (geteuid())
		return "needs root, for MPOL_MF_MOVE_ALL and page frame numbers";
	nr_cpus = cpu_list(cpus, ARRAY_SIZE(cpus));
	if (nr_cpus < 2)
		return "needs two CPUs";
	why = nodes_lack(st->nodes, 2, cpus[0]);
	if (why)
		return why;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	why = guard_lacks();
	if (why)
		return why;
	st->spare = 2 * NR_PAGES + 2 + (may_offline() ? MAX_FILLERS : 0);
	why = pool_lacks(st->nodes, 2, st->spare);
	if (why)
		return why;

	st->seed = env_long("HUGETLB_PMD_MIGRATE_SEED", time(NULL));
	srandom(st->seed);

	/* Sharer 0 migrates and does not write. */
	if (!writers_reserve(&st->writers, setup->sharers - 1)) {
		snprintf(text, sizeof(text),
			 "needs more address space: PUDs of %zu MiB",
			 pud_size() >> 20);
		return text;
	}
	why = backing_lacks(st);
	if (why)
		return why;

	pin_to_cpu(cpus[0]);
	tracepoint_open(&st->share, "hugetlb_pmd", "hugetlb_pmd_share");
	tracepoint_open(&st->unshare, "hugetlb_pmd", "hugetlb_pmd_unshare");
	/*
	 * Before sharer 0 maps anything: they must not inherit its mapping, and
	 * the reverse map walk must come to sharer 0 first, whose TLB is the
	 * one that a kernel with the defect flushes.
	 */
	i = writers_fork(&st->writers, cpus, nr_cpus);
	if (!i && setup->layout != ALONE)
		i = map_file(&st->memory, own_addr(st));
	if (i) {
		snprintf(text, sizeof(text), "cannot begin: %s", strerror(i));
		return text;
	}
	if (setup->layout != ALONE && st->shmid >= 0)
		unmap_file(&st->memory, writers_view_addr(&st->writers));
	if (setup->layout != ALONE && setup->layout != PRIVATE)
		for (i = 0; i < NR_PAGES; i++)
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

static void tear_down(struct state *st)
{
	writers_kill(&st->writers);
	/* Huge pages in use would stay in the pool. */
	if (st->fd >= 0)
		close(st->fd);
	tracepoint_close(&st->share);
	tracepoint_close(&st->unshare);
	guard_stop();
}

/* Returns NULL, or a line that says why this trigger is not for this machine. */
static const char *trigger_lacks(enum trigger trigger)
{
	if (offlines(trigger) && !may_offline())
		return "takes memory offline: HUGETLB_PMD_MIGRATE_OFFLINE=1 allows it";
	if (trigger == SOFT_OFFLINE)
		return unpoison_lacks();
	if (trigger == BLOCK_OFFLINE && block_of_pfn(0) < 0)
		return "no memory blocks: needs CONFIG_MEMORY_HOTREMOVE";
	return NULL;
}

static long calls_wanted(const struct setup *setup)
{
	static const long calls[] = {
		[MIGRATE_PAGES] = 10, [MOVE_PAGES] = 10, [MBIND] = 10,
		[SOFT_OFFLINE] = 4, [BLOCK_OFFLINE] = 2,
	};

	if (setup->contended)
		return 5;
	/* One of them for longer: what is rare shows there. */
	if (setup->backing == HUGETLBFS && setup->layout == SHARED &&
	    setup->sharers == 2 && setup->trigger == MIGRATE_PAGES)
		return 40;
	return calls[setup->trigger];
}

/*
 * Sharers map the file anew. Four pages are there already, in the table of
 * sharer 0:
 *
 *	shared		sharer 1's PUD entry -> [0|1|2|3]   1 fault: the table
 *	not shared	sharer 1's own table -> [ | | | ]   4 faults: each page
 *
 * Returns false if it is not as the layout says; the test has skipped then.
 */
static bool prove_sharing(struct __test_metadata *_metadata, struct state *st,
			  const struct result *r)
{
	enum layout layout = st->setup.layout;
	long before = tracepoint_count(&st->share), faults;
	int i;

	ASSERT_TRUE(writers_order(&st->writers, WRITE, r->rests));
	/* The kernel's own word for it, where it has one. */
	if (st->share.fd >= 0 && layout == SHARED && !r->lost)
		ASSERT_LE(st->writers.nr, tracepoint_count(&st->share) - before)
			TH_LOG("hugetlb_pmd_share does not say that tables are shared");
	for (i = 0; i < st->writers.nr; i++) {
		faults = st->writers.each[i].faults;
		ASSERT_EQ(0, st->writers.each[i].error)
			TH_LOG("sharer %d cannot map the file", i + 1);
		/* Not after a loss: a skip would take its place. */
		if (layout == SHARED && faults != 1 && !r->lost)
			SKIP(return false,
			     "table not shared (%ld faults, %d pages): needs %s",
			     faults, NR_PAGES,
			     "CONFIG_HUGETLB_PMD_PAGE_TABLE_SHARING");
		if (layout != SHARED)
			ASSERT_GE(faults, NR_PAGES)
				TH_LOG("page table shared where it must not be");
	}
	return true;
}

/*
 * place	page on node 0
 * map, write	sharer 1..	|--- w w w w w w w w w w w w w w w --|
 * migrate	sharer 0		|== the call ==|
 * stop, compare						 |--|
 *
 * Returns false if the test has skipped.
 */
static bool run_round(struct __test_metadata *_metadata, struct state *st,
		      struct result *r)
{
	int page = r->calls % NR_PAGES, target, i;
	const struct setup *setup = &st->setup;
	struct place from[NR_PAGES], to[NR_PAGES];
	struct call call = { .nr = ++r->calls, .hot = !r->rests };
	uint64_t then[MAX_WRITERS];
	long lost_in[NR_PAGES], got;
	bool moved = false, wrote;
	char value[32];

	place(st, page);
	if (setup->layout == SHARED || setup->layout == UNALIGNED)
		touch_pages(own_addr(st), NR_PAGES);
	if (!prove_sharing(_metadata, st, r))
		return false;

	locate(st, from);
	ASSERT_GE(from[page].node, 0);
	ASSERT_GE(from[page].pfn, 0);
	target = st->nodes[from[page].node == st->nodes[0]];
	if (setup->trigger == SOFT_OFFLINE) {
		snprintf(value, sizeof(value), "0x%llx",
			 (unsigned long long)from[page].pfn);
		ASSERT_EQ(0, guard_undo(UNPOISON_PFN, value));
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

	ASSERT_TRUE(writers_order(&st->writers, STOP, 0));
	locate(st, to);
	got = compare(st, from, to, &call, &r->examples, lost_in);
	ASSERT_GE(got, 0)
		TH_LOG("cannot look at the pages: %s", strerror(-got));
	r->lost += got;
	for (i = 0; i < NR_PAGES; i++) {
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

	if (setup->layout != PRIVATE)
		ASSERT_TRUE(writers_order(&st->writers, UNMAP, 0));
	if (offlines(setup->trigger))
		restore_memory(st, &from[page]);
	return true;
}

static void verdict(struct __test_metadata *_metadata, const struct state *st,
		    const struct result *r, long want)
{
	const struct setup *setup = &st->setup;

	timeline_print(&st->writers);
	ksft_print_msg("hugetlb_pmd_migrate: backing=%s trigger=%s sharers=%d control=%s",
		       backing_name[setup->backing],
		       trigger_name[setup->trigger],
		       setup->layout == ALONE ? 1 : setup->sharers,
		       setup->layout == SHARED ? "no" : "yes");
	printf(" calls=%ld failed_calls=%ld errno=%d moved_calls=%ld migrations=%ld",
	       r->calls, r->failed_calls, r->error, r->moved_calls, r->moves);
	printf(" lost_migrations=%ld lost_writes=%ld hot_calls=%ld hot_moved=%ld",
	       r->lost_moves, r->lost, r->hot_calls, r->hot_moved);
	if (st->share.fd >= 0 && st->unshare.fd >= 0)
		printf(" shares=%ld unshares=%ld", tracepoint_count(&st->share),
		       r->unshares);
	printf(" idle_calls=%ld seed=%u\n", r->idle_calls, st->seed);

	EXPECT_EQ(0, r->lost)
		TH_LOG("%ld writes lost in %ld of %ld migrations", r->lost,
		       r->lost_moves, r->moves);
	if (r->lost)
		return;
	if (!r->moves && r->error)
		SKIP(return, "%s does not work here: %s",
		     trigger_name[setup->trigger], strerror(r->error));
	if (r->moved_calls < MIN_MOVES && r->moved_calls < want)
		SKIP(return, "inconclusive: only %ld of %ld calls moved a page, with all writing",
		     r->moved_calls, r->calls);
}

static void run(struct __test_metadata *_metadata, struct state *st,
		enum trigger trigger)
{
	struct result r = { .examples = EXAMPLES };
	const char *why = trigger_lacks(trigger);
	long want;

	if (why)
		SKIP(return, "%s", why);
	st->setup.trigger = trigger;
	want = env_count("HUGETLB_PMD_MIGRATE_CALLS", calls_wanted(&st->setup));
	while (r.moved_calls < want && r.calls < 4 * want + 4) {
		if (!run_round(_metadata, st, &r))
			return;
		/* The call is not there: no use in asking again. */
		if (r.error == EOPNOTSUPP ||
		    (r.error == EINVAL && trigger != BLOCK_OFFLINE))
			break;
	}
	verdict(_metadata, st, &r, want);
}

FIXTURE_SETUP(hugetlb_pmd_migrate)
{
	const char *why = set_up(&self->state, &variant->setup);

	if (why)
		SKIP(return, "%s", why);
}

FIXTURE_TEARDOWN(hugetlb_pmd_migrate)
{
	tear_down(&self->state);
}

TEST_F_TIMEOUT(hugetlb_pmd_migrate, migrate_pages, 120)
{
	run(_metadata, &self->state, MIGRATE_PAGES);
}

TEST_F_TIMEOUT(hugetlb_pmd_migrate, move_pages, 120)
{
	run(_metadata, &self->state, MOVE_PAGES);
}

TEST_F_TIMEOUT(hugetlb_pmd_migrate, mbind, 120)
{
	run(_metadata, &self->state, MBIND);
}

TEST_F_TIMEOUT(hugetlb_pmd_migrate, soft_offline, 120)
{
	run(_metadata, &self->state, SOFT_OFFLINE);
}

TEST_F_TIMEOUT(hugetlb_pmd_migrate, block_offline, 120)
{
	run(_metadata, &self->state, BLOCK_OFFLINE);
}

FIXTURE_SETUP(hugetlb_pmd_others)
{
	const char *why = set_up(&self->state, &variant->setup);

	if (why)
		SKIP(return, "%s", why);
}

FIXTURE_TEARDOWN(hugetlb_pmd_others)
{
	tear_down(&self->state);
}

TEST_F_TIMEOUT(hugetlb_pmd_others, lost_write, 120)
{
	run(_metadata, &self->state, variant->setup.trigger);
}

TEST_HARNESS_MAIN
