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
 * journal inside each page (see migrate_util.h), from which it can be told of
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
 *	HUGETLB_PMD_MIGRATE_OFFLINE=1	also run the variants that take memory
 *					offline; not for machines that do work
 *	HUGETLB_PMD_MIGRATE_CALLS=n	rounds a variant
 *	HUGETLB_PMD_MIGRATE_SEED=n	for the random delays
 */
#include "kselftest_harness.h"

#include <fcntl.h>
#include <numa.h>
#include <numaif.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "migrate_util.h"
#include "vm_util.h"

#ifndef MFD_HUGETLB
#define MFD_HUGETLB		0x0004U
#endif
#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif
#define HUGE_SHIFT		26	/* MFD_HUGE_SHIFT, SHM_HUGE_SHIFT */

#define NR_PAGES		4	/* populated pages of the file */
#define MAX_WRITERS		4
#define MAX_FILLERS		16
#define MIN_MOVES		3	/* fewer are no evidence */
#define EXAMPLES		3	/* lost writes told in full, a test */
#define HOT_PASSES		64	/* all writers at it */
#define LINGER_PASSES		256	/* after the call has returned */
#define TIMELINE_SAMPLES	60	/* writes told of, a writer */
#define STEP_TIMEOUT_MS		20000	/* a step of a sharer; TCG is slow */
/*
 * Addresses of a sharer's mappings. There are kernels that do not flush what
 * they unmap of a shared table (see hugetlb_pmd_flush.c), so at an address that
 * was used before, no fault proves nothing.
 */
#define MAP_ROOM	1024
/* Address space may be short: an arm64 kernel has 512 PUDs, or less. */
#define MIN_ROOM	16

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

enum op { OP_WRITE = 1, OP_STOP, OP_UNMAP };

struct sharer {
	/* Set by the test: sequence number << 4 | op, so that each is new. */
	uint32_t cmd;
	uint32_t ack;
	uint32_t hot_passes;	/* to make before it acknowledges */
	uint32_t pause_us;	/* to make now and then, 0 for none */
	/* Set by the sharer before it acknowledges. */
	int error;		/* errno of the mapping, 0 if there is one */
	long faults;		/* to touch all pages the first time */
	long write_faults;	/* while it wrote */
	uint64_t now;		/* number of the last write so far */
	uint64_t first;		/* number of the first write of a round */
	uint64_t last;		/* number of the last write to each page */
	uint64_t stamps[JOURNAL_WORDS];	/* when a slot of ring 1.. was written */
	char *addr;		/* of the mapping; a new one each time */
	unsigned int maps;	/* so far */
	/* Constant. */
	pid_t pid;
	int cpu;
	char *room;		/* some PUDs of address space */
};

struct place {
	int node;
	int64_t pfn;
};

/* What a run is about: the variant. */
struct setup {
	enum backing backing;
	enum trigger trigger;
	enum layout layout;
	int sharers;		/* sharer 0 included, which does not write */
	int calls;		/* that move a page */
	bool contended;		/* all pages leave at once */
};

/* What it is made of. */
struct state {
	struct sharer *sharers;	/* the writers: without sharer 0 */
	int nr_writers;
	char *area;		/* address space of all sharers and the view */
	size_t area_size;
	int room;		/* PUDs of it that each writer has */
	int fd;
	int shmid;
	int nodes[2];		/* pages leave from, and go to */
	long spare;		/* free huge pages a node, to begin a round with */
	int fillers;		/* pages of the file that only take up room */
	unsigned int seed;
	struct tracepoint share, unshare;
};

FIXTURE(hugetlb_pmd_migrate)
{
	struct state state;
};

FIXTURE_VARIANT(hugetlb_pmd_migrate)
{
	struct setup setup;
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, hugetlbfs_migrate_pages_2) {
	.setup = { HUGETLBFS, MIGRATE_PAGES, SHARED, 2, 40 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, hugetlbfs_migrate_pages_4) {
	.setup = { HUGETLBFS, MIGRATE_PAGES, SHARED, 4, 10 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, hugetlbfs_move_pages_2) {
	.setup = { HUGETLBFS, MOVE_PAGES, SHARED, 2, 10 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, hugetlbfs_move_pages_4) {
	.setup = { HUGETLBFS, MOVE_PAGES, SHARED, 4, 10 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, hugetlbfs_mbind_2) {
	.setup = { HUGETLBFS, MBIND, SHARED, 2, 10 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, hugetlbfs_mbind_4) {
	.setup = { HUGETLBFS, MBIND, SHARED, 4, 10 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, hugetlbfs_soft_offline_2) {
	.setup = { HUGETLBFS, SOFT_OFFLINE, SHARED, 2, 4 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, hugetlbfs_soft_offline_4) {
	.setup = { HUGETLBFS, SOFT_OFFLINE, SHARED, 4, 4 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, hugetlbfs_block_offline_2) {
	.setup = { HUGETLBFS, BLOCK_OFFLINE, SHARED, 2, 2 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, hugetlbfs_block_offline_4) {
	.setup = { HUGETLBFS, BLOCK_OFFLINE, SHARED, 4, 2 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, memfd_migrate_pages_2) {
	.setup = { MEMFD, MIGRATE_PAGES, SHARED, 2, 10 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, memfd_migrate_pages_4) {
	.setup = { MEMFD, MIGRATE_PAGES, SHARED, 4, 10 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, memfd_move_pages_2) {
	.setup = { MEMFD, MOVE_PAGES, SHARED, 2, 10 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, memfd_move_pages_4) {
	.setup = { MEMFD, MOVE_PAGES, SHARED, 4, 10 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, memfd_mbind_2) {
	.setup = { MEMFD, MBIND, SHARED, 2, 10 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, memfd_mbind_4) {
	.setup = { MEMFD, MBIND, SHARED, 4, 10 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, memfd_soft_offline_2) {
	.setup = { MEMFD, SOFT_OFFLINE, SHARED, 2, 4 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, memfd_soft_offline_4) {
	.setup = { MEMFD, SOFT_OFFLINE, SHARED, 4, 4 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, memfd_block_offline_2) {
	.setup = { MEMFD, BLOCK_OFFLINE, SHARED, 2, 2 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, memfd_block_offline_4) {
	.setup = { MEMFD, BLOCK_OFFLINE, SHARED, 4, 2 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, sysv_migrate_pages_2) {
	.setup = { SYSV, MIGRATE_PAGES, SHARED, 2, 10 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, sysv_migrate_pages_4) {
	.setup = { SYSV, MIGRATE_PAGES, SHARED, 4, 10 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, sysv_move_pages_2) {
	.setup = { SYSV, MOVE_PAGES, SHARED, 2, 10 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, sysv_move_pages_4) {
	.setup = { SYSV, MOVE_PAGES, SHARED, 4, 10 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, sysv_mbind_2) {
	.setup = { SYSV, MBIND, SHARED, 2, 10 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, sysv_mbind_4) {
	.setup = { SYSV, MBIND, SHARED, 4, 10 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, sysv_soft_offline_2) {
	.setup = { SYSV, SOFT_OFFLINE, SHARED, 2, 4 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, sysv_soft_offline_4) {
	.setup = { SYSV, SOFT_OFFLINE, SHARED, 4, 4 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, sysv_block_offline_2) {
	.setup = { SYSV, BLOCK_OFFLINE, SHARED, 2, 2 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, sysv_block_offline_4) {
	.setup = { SYSV, BLOCK_OFFLINE, SHARED, 4, 2 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, contended_2) {
	.setup = { HUGETLBFS, MIGRATE_PAGES, SHARED, 2, 5, true } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, contended_4) {
	.setup = { SYSV, MOVE_PAGES, SHARED, 4, 5, true } };
/* No table is shared here, so these pass on every kernel. */
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, not_shared_unaligned) {
	.setup = { HUGETLBFS, MIGRATE_PAGES, UNALIGNED, 2, 10 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, not_shared_private) {
	.setup = { HUGETLBFS, MIGRATE_PAGES, PRIVATE, 2, 10 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, not_shared_alone) {
	.setup = { HUGETLBFS, MIGRATE_PAGES, ALONE, 2, 10 } };

static bool offlines(enum trigger trigger)
{
	return trigger == SOFT_OFFLINE || trigger == BLOCK_OFFLINE;
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

/* Map the whole file at @addr, which is inside the reserved area. */
static int map_file(struct state *st, const struct setup *setup, char *addr)
{
	int flags = MAP_FIXED | MAP_NORESERVE;

	if (setup->backing == SYSV)
		return shmat(st->shmid, addr, SHM_REMAP) == (void *)-1 ?
		       errno : 0;
	flags |= setup->layout == PRIVATE ? MAP_PRIVATE : MAP_SHARED;
	return mmap(addr, pud_size(), PROT_READ | PROT_WRITE, flags,
		    st->fd, 0) == MAP_FAILED ? errno : 0;
}

/* Unmap, and keep the addresses from being used by anything else. */
static void unmap_file(const struct setup *setup, char *addr)
{
	if (setup->backing == SYSV)
		shmdt(addr);
	mmap(addr, pud_size(), PROT_NONE,
	     MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

/*
 * Not at the same offset of every page: TCG's TLB picks an entry by the lowest
 * bits of the 4 KiB page number, and journals that share one drive each other
 * out.
 */
static size_t journal_offset(int page, int writer)
{
	return (page * MAX_WRITERS + writer) * JOURNAL_BYTES;
}

static uint64_t *journal_of(char *addr, int page, int writer)
{
	return (uint64_t *)(addr + page * pmd_size() +
			    journal_offset(page, writer));
}

/* When write @n, which is in @ring, was made: exact to 16 writes. */
static uint64_t stamp_of(const struct sharer *s, int ring, uint64_t n)
{
	if (!ring)
		ring = 1;
	n >>= ring * JOURNAL_SHIFT;
	return s->stamps[ring * JOURNAL_SLOTS + n % JOURNAL_SLOTS];
}

static long faults_so_far(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt;
}

/* Write to all pages in turn until the next command; returns that. */
static uint32_t write_pages(struct sharer *me, int writer, uint32_t cmd)
{
	uint64_t *journal[NR_PAGES];
	uint64_t linger = LINGER_PASSES, n = me->last, hot;
	long faults = faults_so_far();
	uint32_t next = cmd;
	int i;

	me->first = n + 1;
	for (i = 0; i < NR_PAGES; i++)
		journal[i] = journal_of(me->addr, i, writer);

	hot = n + me->hot_passes;
	while (next == cmd || linger--) {
		n++;
		for (i = 0; i < NR_PAGES; i++)
			journal_write(journal[i], writer, n);
		__atomic_store_n(&me->now, n, __ATOMIC_RELEASE);
		if (!(n % (1 << JOURNAL_SHIFT))) {
			journal_stamp(me->stamps, n, cycles());
			if (me->pause_us)
				usleep(me->pause_us);
		}
		if (n == hot)
			set_and_wake(&me->ack, cmd);
		next = __atomic_load_n(&me->cmd, __ATOMIC_ACQUIRE);
	}
	me->write_faults = faults_so_far() - faults;
	__atomic_store_n(&me->last, n, __ATOMIC_RELEASE);
	return next;
}

static __noreturn void
sharer_main(struct state *st,
	    const struct setup *setup,
	    int writer, pid_t parent)
{
	struct sharer *me = &st->sharers[writer];
	bool mapped = false;
	uint32_t cmd = 0;
	int tries;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	signal(SIGALRM, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	pin_to_cpu(me->cpu);

	for (;;) {
		cmd = wait_for_change(&me->cmd, cmd);
again:
		switch (cmd & 0xf) {
		case OP_WRITE:
			/*
			 * A fault that has nothing to do with these pages may
			 * be counted too, so one that took too many is asked
			 * again. It cannot take too few.
			 */
			for (tries = 0; !mapped && tries < 3; tries++) {
				me->addr = me->room + me->maps++ % st->room *
					   pud_size();
				me->error = map_file(st, setup, me->addr);
				if (me->error)
					break;
				me->faults = touch_pages(me->addr, NR_PAGES);
				mapped = setup->layout != SHARED ||
					 me->faults == 1 || tries == 2;
				if (!mapped)
					unmap_file(setup, me->addr);
			}
			if (me->error)
				break;
			cmd = write_pages(me, writer, cmd);
			goto again;
		case OP_UNMAP:
			if (mapped)
				unmap_file(setup, me->addr);
			mapped = false;
			break;
		}
		set_and_wake(&me->ack, cmd);
	}
}

/*
 * Have all writers do @op, and wait until they did. Returns false, with a line
 * that says why, if one did not.
 */
static bool command(struct state *st, enum op op)
{
	int i, status, waited;

	for (i = 0; i < st->nr_writers; i++) {
		struct sharer *s = &st->sharers[i];

		set_and_wake(&s->cmd, ((s->cmd >> 4) + 1) << 4 | op);
	}
	for (i = 0; i < st->nr_writers; i++) {
		struct sharer *s = &st->sharers[i];
		uint32_t ack;

		for (waited = 0;; waited += 100) {
			ack = __atomic_load_n(&s->ack, __ATOMIC_ACQUIRE);
			if (ack == s->cmd)
				break;
			if (waited >= STEP_TIMEOUT_MS) {
				ksft_print_msg("sharer %d (pid %d) does not answer\n",
					       i + 1, s->pid);
				return false;
			}
			if (waitpid(s->pid, &status, WNOHANG) == s->pid) {
				ksft_print_msg("sharer %d (pid %d) is gone: %s %d\n",
					       i + 1, s->pid,
					       WIFSIGNALED(status) ?
					       "signal" : "exit",
					       WIFSIGNALED(status) ?
					       WTERMSIG(status) :
					       WEXITSTATUS(status));
				s->pid = 0;
				return false;
			}
			wait_a_while(&s->ack, ack, 100);
		}
	}
	return true;
}

/* Whose page tables are asked where a page is, and migrated. */
static pid_t owner_pid(struct state *st, const struct setup *setup)
{
	if (setup->layout == ALONE || setup->layout == PRIVATE)
		return st->sharers[0].pid;
	return 0;
}

static char *own_addr(struct state *st, const struct setup *setup)
{
	return st->area + (setup->layout == UNALIGNED ? pmd_size() : 0);
}

/* Shares nothing: not aligned to a PUD. Behind the mappings of all sharers. */
static char *view_addr(struct state *st)
{
	return st->area + st->area_size - 2 * pud_size() + pmd_size();
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
 * Before the writers map the file: put @page on node @from and all others on
 * @to, or all on @from. What did not go where it should is seen by locate().
 */
static void place(struct state *st, const struct setup *setup,
		  int page, int from, int to)
{
	char *view = view_addr(st);
	int nodes[NR_PAGES], status[NR_PAGES];
	void *pages[NR_PAGES];
	int i;

	/* Private pages can be had only from the writer, which writes. */
	if (setup->layout == PRIVATE || map_file(st, setup, view))
		return;
	touch_pages(view, NR_PAGES);
	for (i = 0; i < NR_PAGES; i++) {
		pages[i] = view + i * pmd_size();
		nodes[i] = i == page || setup->contended ? from : to;
	}
	move_pages(0, NR_PAGES, pages, nodes, status, MPOL_MF_MOVE_ALL);
	if (setup->trigger == BLOCK_OFFLINE)
		leave_fixed_block(st, view, page, from, to);
	unmap_file(setup, view);
}

static void locate(struct state *st, const struct setup *setup,
		   struct place *places)
{
	pid_t pid = owner_pid(st, setup);
	char *addr = pid ? st->sharers[0].addr : own_addr(st, setup);
	int i;

	/* Migration may have taken the table away: fault it in again. */
	if (!pid)
		touch_pages(addr, NR_PAGES);
	for (i = 0; i < NR_PAGES; i++) {
		places[i].node = page_node(pid, addr + i * pmd_size());
		places[i].pfn = page_pfn(pid, addr + i * pmd_size());
	}
}

static int migrate(struct state *st, const struct setup *setup,
		   int page, const struct place *from, int target)
{
	pid_t pid = owner_pid(st, setup);
	char *addr = own_addr(st, setup);
	int nodes[NR_PAGES], status[NR_PAGES];
	void *pages[NR_PAGES];
	int i, ret = 0;

	switch (setup->trigger) {
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
		ret = block_offline(block_of_pfn(from->pfn));
		if (ret < 0) {
			errno = -ret;
			ret = -1;
		}
		break;
	}
	/* Above 0: pages that stayed. The nodes tell which. */
	return ret < 0 ? -errno : 0;
}

/* Undo what an offlining trigger did, for the next round to find the same. */
static void restore_memory(struct state *st, const struct setup *setup,
			   const struct place *from)
{
	int i;

	if (setup->trigger == SOFT_OFFLINE) {
		pfn_unpoison(from->pfn);
		/* Up to 4.12 it may stay in the pool, free and of no use. */
		st->spare++;
	}
	if (setup->trigger == BLOCK_OFFLINE)
		block_online(block_of_pfn(from->pfn));
	for (i = 0; i < 2; i++)
		pool_fill(st->nodes[i], st->spare - NR_PAGES);
}

/* How many writers have written to all pages since they were at @then. */
static int nr_wrote_since(struct state *st, const uint64_t *then)
{
	int i, nr = 0;

	for (i = 0; i < st->nr_writers; i++)
		nr += __atomic_load_n(&st->sharers[i].now, __ATOMIC_ACQUIRE) >
		      then[i];
	return nr;
}

struct call {
	long nr;		/* in its test, from 1 */
	uint64_t began, ended;
	bool hot;
};

/* A migration to be told of in full. */
struct timeline {
	enum { NONE, RESTED, HOT, LOSSY } what;	/* the last is wanted most */
	struct call call;
	int page;
	struct place from, to;
	size_t lost;		/* words of the journals */
	struct {
		size_t nr;
		uint64_t first;	/* write of the round */
		uint64_t last;
		long faults;
		struct journal_sample samples[JOURNAL_SAMPLES];
	} writers[MAX_WRITERS];
};

/* Each test is a process of its own. */
static struct timeline timeline;

/* Those of a few tests say it all. */
static bool keeps_timeline(const struct setup *setup)
{
	return setup->backing == HUGETLBFS && setup->layout == SHARED &&
	       !setup->contended && (setup->trigger == MIGRATE_PAGES ||
				     setup->trigger == SOFT_OFFLINE);
}

/*
 * Note what @call did to @page, if it is better to show than what was noted
 * before. @journals are those of all writers, as found.
 */
static void timeline_note(const struct state *st, const struct call *call,
			  int page, const struct place *from,
			  const struct place *to, const uint64_t *journals)
{
	size_t lost = 0;
	int what, i;

	for (i = 0; i < st->nr_writers; i++)
		lost += journal_check(journals + i * JOURNAL_WORDS, i,
				      st->sharers[i].last, NULL, NULL);
	what = lost ? LOSSY : call->hot ? HOT : RESTED;
	if (what <= (int)timeline.what)
		return;

	timeline.what = what;
	timeline.call = *call;
	timeline.page = page;
	timeline.from = *from;
	timeline.to = *to;
	timeline.lost = lost;
	for (i = 0; i < st->nr_writers; i++) {
		const struct sharer *s = &st->sharers[i];

		timeline.writers[i].first = s->first;
		timeline.writers[i].last = s->last;
		timeline.writers[i].faults = s->write_faults;
		timeline.writers[i].nr =
			journal_samples(journals + i * JOURNAL_WORDS, s->stamps,
					i, s->first, s->last,
					timeline.writers[i].samples);
	}
}

/* Microseconds from the beginning of the call. */
static double timeline_us(uint64_t stamp)
{
	uint64_t began = timeline.call.began;

	return stamp < began ? -cycles_to_us(began - stamp) :
			       cycles_to_us(stamp - began);
}

/* The samples that are @lost, or those that are not, as time:write,... */
static void timeline_list(const char *key, const struct journal_sample *samples,
			  size_t nr, uint64_t first, bool lost)
{
	const char *comma = "";
	size_t i;

	printf(" %s=", key);
	for (i = 0; i < nr; i++) {
		if (samples[i].lost != lost)
			continue;
		printf("%s%.0f:%llu", comma, timeline_us(samples[i].stamp),
		       (unsigned long long)(samples[i].write - first + 1));
		comma = ",";
	}
}

static void timeline_print(const struct state *st)
{
	const struct call *call = &timeline.call;
	/* A while before the call shows what is usual. */
	uint64_t since = call->began - (call->ended - call->began) / 2;
	int i;

	if (timeline.what == NONE)
		return;
	ksft_print_msg("timeline call=%ld page=%d node=%d->%d pfn=0x%llx->0x%llx",
		       call->nr, timeline.page, timeline.from.node,
		       timeline.to.node, (unsigned long long)timeline.from.pfn,
		       (unsigned long long)timeline.to.pfn);
	printf(" call_us=%.0f hot=%s lost_words=%zu writers=%d\n",
	       timeline_us(call->ended), call->hot ? "yes" : "no",
	       timeline.lost, st->nr_writers);
	for (i = 0; i < st->nr_writers; i++) {
		struct journal_sample *samples = timeline.writers[i].samples;
		uint64_t first = timeline.writers[i].first;
		size_t nr = timeline.writers[i].nr;

		for (; nr && samples->stamp < since; nr--)
			samples++;
		nr = journal_thin(samples, nr, TIMELINE_SAMPLES);
		ksft_print_msg("timeline writer=%d cpu=%d faults=%ld writes=%llu",
			       i + 1, st->sharers[i].cpu,
			       timeline.writers[i].faults,
			       (unsigned long long)(timeline.writers[i].last -
						    first + 1));
		timeline_list("kept", samples, nr, first, false);
		timeline_list("lost", samples, nr, first, true);
		printf("\n");
	}
}

struct report {
	const struct sharer *sharer;
	const struct place *from, *to;
	uint64_t call_began;
	int writer, page;
	int *examples;
	uint64_t *view;
};

static void report_loss(const struct journal_loss *loss, void *arg)
{
	struct report *r = arg;
	uint64_t stamp;

	/* Make it good, or it would be seen again in the next round. */
	r->view[loss->word] = loss->wrote;
	if (!*r->examples)
		return;
	(*r->examples)--;
	stamp = stamp_of(r->sharer, loss->word / JOURNAL_SLOTS, loss->write);
	ksft_print_msg("lost: page %d offset 0x%zx wrote 0x%llx found 0x%llx",
		       r->page,
		       journal_offset(r->page, r->writer) +
		       loss->word * sizeof(uint64_t),
		       (unsigned long long)loss->wrote,
		       (unsigned long long)loss->found);
	printf(" node %d->%d pfn 0x%llx->0x%llx %.1f ms after the call began\n",
	       r->from->node, r->to->node,
	       (unsigned long long)r->from->pfn, (unsigned long long)r->to->pfn,
	       cycles_to_us(stamp > r->call_began ?
			    stamp - r->call_began : 0) / 1000);
}

/*
 * Compare all journals in @page through a view that no TLB has seen: a mapping
 * made for the purpose (not aligned to a PUD, so that it shares nothing), or
 * for private memory the kernel's own walk of the writer's page tables. Returns
 * the number of lost writes or -1.
 */
static long compare(struct state *st, const struct setup *setup,
		    const struct place *from, const struct place *to,
		    const struct call *call, int *examples, long *lost_in)
{
	char *view = view_addr(st);
	size_t len = MAX_WRITERS * JOURNAL_BYTES;
	struct report r = { .call_began = call->began, .examples = examples };
	int mem = -1, page, writer, shown;
	long lost = 0;
	char path[32];
	char *buf = NULL;

	if (setup->layout == PRIVATE) {
		snprintf(path, sizeof(path), "/proc/%d/mem",
			 st->sharers[0].pid);
		mem = open(path, O_RDWR | O_CLOEXEC);
		buf = malloc(len);
		if (mem < 0 || !buf)
			return -1;
	} else if (map_file(st, setup, view)) {
		return -1;
	}

	for (page = 0; page < NR_PAGES; page++) {
		off_t off = (off_t)journal_of(st->sharers[0].addr, page, 0);

		if (mem >= 0 && pread(mem, buf, len, off) != (ssize_t)len)
			return -1;
		r.page = page;
		r.from = &from[page];
		r.to = &to[page];
		/* One example a page says more than three of the same page. */
		shown = *examples ? 1 : 0;
		*examples -= shown;
		r.examples = &shown;
		lost_in[page] = 0;
		if (keeps_timeline(setup) &&
		    page_moved(setup, &from[page], &to[page]))
			timeline_note(st, call, page, &from[page], &to[page],
				      journal_of(view, page, 0));
		for (writer = 0; writer < st->nr_writers; writer++) {
			r.writer = writer;
			r.sharer = &st->sharers[writer];
			r.view = buf ? (uint64_t *)(buf + writer * JOURNAL_BYTES) :
				       journal_of(view, page, writer);
			lost_in[page] += journal_check(r.view, writer,
						       r.sharer->last,
						       report_loss, &r);
		}
		*examples += shown;
		if (mem >= 0 && lost_in[page])
			pwrite(mem, buf, len, off);
		lost += lost_in[page];
	}

	if (mem >= 0) {
		close(mem);
		free(buf);
	} else {
		unmap_file(setup, view);
	}
	return lost;
}

/*
 * A segment that goes with its last user, whoever that is and however it ends:
 * Linux lets others attach it by its number until then. Attached to the view,
 * where no child gets it. Returns 0 or an error number.
 */
static int attach_segment(struct state *st, const struct setup *setup)
{
	unsigned int shift = ffsl(pmd_size()) - 1;
	int error;

	st->shmid = shmget(IPC_PRIVATE, pud_size(), IPC_CREAT | 0600 |
			   SHM_HUGETLB | SHM_NORESERVE | shift << HUGE_SHIFT);
	if (st->shmid < 0)
		return errno;
	error = map_file(st, setup, view_addr(st));
	shmctl(st->shmid, IPC_RMID, NULL);
	if (!error && madvise(view_addr(st), pud_size(), MADV_DONTFORK))
		error = errno;
	return error;
}

/*
 * Up to 5.17 shmat() reserves huge pages for all of a segment, whatever
 * shmget() was told. They are not used, but must be there. Returns 0 or -errno.
 */
static int open_segment(struct state *st, const struct setup *setup)
{
	long half = pud_size() / pmd_size() / 2;
	int i, error = attach_segment(st, setup);

	if (error == ENOMEM) {
		st->spare += half;
		/* Of a block only pages that nobody has reserved can go. */
		if (setup->trigger == BLOCK_OFFLINE)
			st->spare += block_bytes() / pmd_size();
		for (i = 0; i < 2; i++)
			pool_fill(st->nodes[i], st->spare);
		error = attach_segment(st, setup);
	}
	return -error;
}

static int open_backing(struct state *st, const struct setup *setup)
{
	unsigned int shift = ffsl(pmd_size()) - 1;

	switch (setup->backing) {
	case HUGETLBFS:
		st->fd = hugetlbfs_open(pud_size());
		return st->fd < 0 ? st->fd : 0;
	case MEMFD:
		st->fd = syscall(SYS_memfd_create, "hugetlb_pmd_migrate",
				 MFD_HUGETLB | shift << HUGE_SHIFT);
		if (st->fd < 0 || ftruncate(st->fd, pud_size()))
			return -errno;
		return 0;
	case SYSV:
		return open_segment(st, setup);
	}
	return -EINVAL;
}

FIXTURE_SETUP(hugetlb_pmd_migrate)
{
	const struct setup *setup = &variant->setup;
	struct state *st = &self->state;
	int i, puds, nr_cpus = 0, cpus[CPU_SETSIZE];
	pid_t parent, pid;
	const char *why;
	int ret;

	st->fd = -1;
	st->shmid = -1;
	st->share.fd = -1;
	st->unshare.fd = -1;
	/* Sharer 0 migrates and does not write. */
	st->nr_writers = setup->sharers - 1;

	if (geteuid())
		SKIP(return, "needs root, for MPOL_MF_MOVE_ALL and page frame numbers");
	if (offlines(setup->trigger) &&
	    !env_long("HUGETLB_PMD_MIGRATE_OFFLINE", 0))
		SKIP(return, "takes memory offline: HUGETLB_PMD_MIGRATE_OFFLINE=1 allows it");
	why = setup->trigger == SOFT_OFFLINE ? unpoison_lacks() : NULL;
	if (why)
		SKIP(return, "%s", why);
	nr_cpus = cpu_list(cpus, ARRAY_SIZE(cpus));
	if (nr_cpus < 2)
		SKIP(return, "needs two CPUs");
	why = nodes_lack(st->nodes, 2, cpus[0]);
	if (why)
		SKIP(return, "%s", why);
	if (setup->trigger == BLOCK_OFFLINE && block_of_pfn(0) < 0)
		SKIP(return, "no memory blocks: needs CONFIG_MEMORY_HOTREMOVE");

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	why = guard_lacks();
	if (why)
		SKIP(return, "%s", why);

	st->spare = 2 * NR_PAGES + 2;
	if (setup->trigger == BLOCK_OFFLINE)
		st->spare += MAX_FILLERS;
	why = pool_lacks(st->nodes, 2, st->spare);
	if (why)
		SKIP(return, "%s", why);

	st->seed = env_long("HUGETLB_PMD_MIGRATE_SEED", time(NULL));
	srandom(st->seed);

	/* One PUD for sharer 0; two for the view, which crosses a border. */
	for (st->room = MAP_ROOM; st->room >= MIN_ROOM; st->room /= 2) {
		puds = 1 + st->nr_writers * st->room + 2;
		st->area_size = puds * pud_size();
		st->area = reserve_puds(puds);
		if (st->area)
			break;
	}
	if (!st->area)
		SKIP(return, "needs %d times %zu MiB of address space",
		     1 + st->nr_writers * MIN_ROOM + 2, pud_size() >> 20);

	ret = open_backing(st, setup);
	if (ret == -EINVAL && setup->backing == MEMFD)
		SKIP(return, "no MFD_HUGETLB on this kernel (since 4.14)");
	if (ret == -ENOMEM && setup->backing == SYSV)
		SKIP(return, "shmat() reserves it all: needs %ld free huge pages a node",
		     st->spare);
	if ((ret == -EINVAL || ret == -ENOSPC) && setup->backing == SYSV)
		SKIP(return, "needs a System V segment of %zu MiB: kernel.shmmax, shmall or shmmni",
		     pud_size() >> 20);
	if (ret)
		SKIP(return, "no %s of huge pages: %s",
		     backing_name[setup->backing], strerror(-ret));

	st->sharers = mmap(NULL, MAX_WRITERS * sizeof(*st->sharers),
			   PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			   -1, 0);
	ASSERT_NE(MAP_FAILED, st->sharers);

	pin_to_cpu(cpus[0]);

	/*
	 * Before sharer 0 maps anything: they must not inherit its mapping, and
	 * the reverse map walk must come to sharer 0 first, whose TLB is the
	 * one that a kernel with the defect flushes.
	 */
	tracepoint_open(&st->share, "hugetlb_pmd", "hugetlb_pmd_share");
	tracepoint_open(&st->unshare, "hugetlb_pmd", "hugetlb_pmd_unshare");
	parent = getpid();
	for (i = 0; i < st->nr_writers; i++) {
		struct sharer *s = &st->sharers[i];

		/* From the last down: those are on the other node. */
		s->cpu = cpus[nr_cpus - 1 - i % (nr_cpus - 1)];
		s->room = own_addr(st, setup) +
			  (i * st->room + 1) * pud_size();
		s->addr = s->room;
		pid = fork();
		ASSERT_GE(pid, 0);
		if (!pid)
			sharer_main(st, setup, i, parent);
		s->pid = pid;
	}

	if (setup->layout != ALONE) {
		char *addr = own_addr(st, setup);

		ASSERT_EQ(0, map_file(st, setup, addr));
		if (st->shmid >= 0)
			unmap_file(setup, view_addr(st));
		if (setup->layout != PRIVATE)
			for (i = 0; i < NR_PAGES; i++)
				__atomic_store_n(addr + i * pmd_size(), 0,
						 __ATOMIC_RELAXED);
	}
	/*
	 * migrate_pages(2) moves all of a process, and a writer shares some of
	 * it: text, its struct sharer. That flushes the writer's TLB and may
	 * hide what we are here to see, so move all that now, and always in the
	 * same direction.
	 */
	migrate_node(0, st->nodes[0], st->nodes[1]);
	cycles_start();
}

FIXTURE_TEARDOWN(hugetlb_pmd_migrate)
{
	struct state *st = &self->state;
	int i;

	for (i = 0; st->sharers && i < st->nr_writers; i++) {
		if (st->sharers[i].pid > 0) {
			kill(st->sharers[i].pid, SIGKILL);
			waitpid(st->sharers[i].pid, NULL, 0);
		}
	}
	if (st->area)
		munmap(st->area, st->area_size);
	/* Huge pages in use would stay in the pool. */
	if (st->fd >= 0)
		close(st->fd);
	tracepoint_close(&st->share);
	tracepoint_close(&st->unshare);
	guard_stop();
}

TEST_F_TIMEOUT(hugetlb_pmd_migrate, lost_write, 120)
{
	const struct setup *setup = &variant->setup;
	struct state *st = &self->state;
	long calls = 0, failed_calls = 0, moves = 0, lost_moves = 0, lost = 0;
	long want = env_count("HUGETLB_PMD_MIGRATE_CALLS", setup->calls);
	int examples = EXAMPLES, error = 0, i, page, target;
	struct place from[NR_PAGES], to[NR_PAGES];
	long lost_in[NR_PAGES], got;
	long moved_calls = 0, hot_calls = 0, hot_moved = 0, idle_calls = 0;
	uint64_t then[MAX_WRITERS];
	int rests = 0;
	struct call call = {};
	const struct tracepoint *share = &st->share, *unshare = &st->unshare;
	long before, unshares = 0;
	char value[32];

	/*
	 * A call that moved nothing is made again, within limits, and with
	 * writers that rest now and then: a process that faults on the page
	 * holds a reference to it, and if all do so all the time, a kernel that
	 * unmaps the page everywhere may not get it moved.
	 */
	while (moved_calls < want && calls < 4 * want + 4) {
		bool moved = false, wrote;

		page = calls % NR_PAGES;
		place(st, setup, page, st->nodes[0], st->nodes[1]);

		if (setup->layout == SHARED || setup->layout == UNALIGNED)
			touch_pages(own_addr(st, setup), NR_PAGES);
		for (i = 0; i < st->nr_writers; i++) {
			st->sharers[i].pause_us = rests ? 50 << rests : 0;
			st->sharers[i].hot_passes =
				(HOT_PASSES + random() % 512) >> rests;
		}
		before = tracepoint_count(share);
		ASSERT_TRUE(command(st, OP_WRITE));
		/* The kernel's own word that tables are shared, where it has one. */
		if (share->fd >= 0 && setup->layout == SHARED && !lost)
			ASSERT_LE(st->nr_writers,
				  tracepoint_count(share) - before)
				TH_LOG("hugetlb_pmd_share does not say that tables are shared");
		for (i = 0; i < st->nr_writers; i++) {
			struct sharer *s = &st->sharers[i];

			ASSERT_EQ(0, s->error)
				TH_LOG("sharer %d cannot map the file", i + 1);
			/* Not after a loss: a skip would take its place. */
			if (setup->layout == SHARED && s->faults != 1 && !lost)
				SKIP(return, "table not shared (%ld faults, %d pages): needs %s",
				     s->faults, NR_PAGES,
				     "CONFIG_HUGETLB_PMD_PAGE_TABLE_SHARING");
			if (setup->layout != SHARED)
				ASSERT_GE(s->faults, NR_PAGES)
					TH_LOG("page table shared where it must not be");
		}

		locate(st, setup, from);
		ASSERT_GE(from[page].node, 0);
		ASSERT_GE(from[page].pfn, 0);
		target = st->nodes[from[page].node == st->nodes[0]];
		if (setup->trigger == SOFT_OFFLINE) {
			snprintf(value, sizeof(value), "0x%llx",
				 (unsigned long long)from[page].pfn);
			ASSERT_EQ(0, guard_undo(UNPOISON_PFN, value));
		}

		before = tracepoint_count(unshare);
		call.nr = ++calls;
		call.hot = !rests;
		call.began = cycles();
		for (i = 0; i < st->nr_writers; i++)
			then[i] = __atomic_load_n(&st->sharers[i].now,
						  __ATOMIC_ACQUIRE);
		got = migrate(st, setup, page, &from[page], target);
		wrote = nr_wrote_since(st, then) == st->nr_writers;
		call.ended = cycles();
		unshares += tracepoint_count(unshare) - before;
		if (got) {
			failed_calls++;
			error = -got;
		}

		ASSERT_TRUE(command(st, OP_STOP));
		locate(st, setup, to);

		got = compare(st, setup, from, to, &call, &examples,
			      lost_in);
		ASSERT_GE(got, 0)
			TH_LOG("cannot look at the pages: %s", strerror(errno));
		lost += got;
		for (i = 0; i < NR_PAGES; i++) {
			if (!page_moved(setup, &from[i], &to[i]))
				continue;
			moved = true;
			moves++;
			lost_moves += !!lost_in[i];
		}
		moved_calls += moved && wrote;
		idle_calls += moved && !wrote;
		if (!rests) {
			hot_calls++;
			hot_moved += moved;
		}
		rests = moved ? 0 : rests < 6 ? rests + 1 : rests;

		if (setup->layout != PRIVATE)
			ASSERT_TRUE(command(st, OP_UNMAP));
		if (offlines(setup->trigger))
			restore_memory(st, setup, &from[page]);
		/* The call is not there: no use in asking again. */
		if (error == EOPNOTSUPP ||
		    (error == EINVAL && setup->trigger != BLOCK_OFFLINE))
			break;
	}

	timeline_print(st);
	ksft_print_msg("hugetlb_pmd_migrate: backing=%s trigger=%s sharers=%d control=%s",
		       backing_name[setup->backing],
		       trigger_name[setup->trigger],
		       setup->layout == ALONE ? 1 : setup->sharers,
		       setup->layout == SHARED ? "no" : "yes");
	printf(" calls=%ld failed_calls=%ld errno=%d moved_calls=%ld migrations=%ld",
	       calls, failed_calls, error, moved_calls, moves);
	printf(" lost_migrations=%ld lost_writes=%ld hot_calls=%ld hot_moved=%ld",
	       lost_moves, lost, hot_calls, hot_moved);
	if (share->fd >= 0 && unshare->fd >= 0)
		printf(" shares=%ld unshares=%ld", tracepoint_count(share),
		       unshares);
	printf(" idle_calls=%ld seed=%u\n", idle_calls, st->seed);

	EXPECT_EQ(0, lost)
		TH_LOG("%ld writes lost in %ld of %ld migrations", lost,
		       lost_moves, moves);
	if (lost)
		return;
	if (!moves && error)
		SKIP(return, "%s does not work here: %s",
		     trigger_name[setup->trigger], strerror(error));
	if (moved_calls < MIN_MOVES && moved_calls < want)
		SKIP(return, "inconclusive: only %ld of %ld calls moved a page, with all writing",
		     moved_calls, calls);
}

TEST_HARNESS_MAIN
