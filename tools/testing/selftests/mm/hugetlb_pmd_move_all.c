// SPDX-License-Identifier: GPL-2.0
/*
 * Does a hugetlb page that several processes map stay where it is, unless its
 * move is asked for with MPOL_MF_MOVE_ALL?
 *
 * mbind(2) and move_pages(2) with MPOL_MF_MOVE, and migrate_pages(2) without
 * CAP_SYS_NICE, move what no other process maps. To move the memory of others
 * takes MPOL_MF_MOVE_ALL, and with it CAP_SYS_NICE. The kernel looks at the map
 * count, which counts page tables and not processes:
 *
 *	SHARED			OWN_TABLES		ALONE
 *	A     B     C		A     B     C		A
 *	 \    |    /		|     |     |		|
 *	  PMD table		A's   B's   C's		A's
 *	      |			 \    |    /		|
 *	  huge page		  huge page		huge page
 *	   count 1		   count 3		 count 1
 *
 * So for a page that is mapped by a shared table it has to look at the table as
 * well. (On what is shared when, see hugetlb_pmd_migrate.c.) A kernel that does
 * not takes the first page for the third.
 *
 * One round of the test is
 *
 *	map	the file, and have all pages on one node
 *	share	the others map it, each at an address of its own, and touch the
 *		pages: one fault each if the table is shared, one a page if not
 *	ask	for all pages to be moved to the other node: all must stay, and
 *		move_pages(2) must say -EACCES for each
 *	demand	the same with CAP_SYS_NICE and MPOL_MF_MOVE_ALL, and nothing else
 *		has changed: all must be moved, or it may be for another reason
 *		that they stayed
 *	unmap	all but this process
 *	ask	for them to be moved back: all must be moved now
 *
 * and where there are no others, the first and the last of these steps alone.
 * Nobody writes to the pages, so a kernel that moves them loses nothing by it.
 */
#include "kselftest_harness.h"

#include <linux/capability.h>
#include <numa.h>
#include <numaif.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_page.h"
#include "migrate_util.h"
#include "vm_util.h"

#define NR_PAGES	4	/* more than one, or a fault proves nothing */
#define MAX_SHARERS	2	/* this process is one more */
#define ROUNDS		5
#define TRIES		3	/* to map the file and take one fault */
#define STEP_TIMEOUT_MS	20000
/*
 * Addresses of a sharer's mappings: there are kernels that do not flush what
 * they unmap of a shared table (see hugetlb_pmd_flush.c), so at an address that
 * was used before, no fault proves nothing. A mapping that is not aligned ends
 * in the PUD after its own.
 */
#define MAP_ROOM	(ROUNDS * TRIES + 1)

enum trigger { MBIND, MIGRATE_PAGES, MOVE_PAGES };

enum layout {
	SHARED,		/* the table can be shared, and must be */
	OWN_TABLES,	/* no whole PUD in the mapping: must not be */
	ALONE,		/* nobody to share with */
};

static const char * const trigger_name[] = {
	"mbind", "migrate_pages", "move_pages",
};

struct sharer {
	uint32_t step;		/* to make: odd to map it, even to unmap */
	uint32_t done;		/* the last that was made */
	int error;		/* errno of the mapping */
	long faults;		/* to touch all pages the first time */
	char *room;		/* MAP_ROOM PUDs of address space */
	pid_t pid;
};

FIXTURE(hugetlb_pmd_move_all)
{
	struct sharer *sharers;
	int nr_sharers;
	char *area;		/* a PUD and one more, then all rooms */
	size_t area_size;
	char *addr;		/* of this process's mapping */
	int fd;
	int nodes[2];
};

FIXTURE_VARIANT(hugetlb_pmd_move_all)
{
	enum trigger trigger;
	enum layout layout;
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_move_all, mbind_shared) {
	MBIND, SHARED };
FIXTURE_VARIANT_ADD(hugetlb_pmd_move_all, mbind_own_tables) {
	MBIND, OWN_TABLES };
FIXTURE_VARIANT_ADD(hugetlb_pmd_move_all, mbind_alone) {
	MBIND, ALONE };
FIXTURE_VARIANT_ADD(hugetlb_pmd_move_all, migrate_pages_shared) {
	MIGRATE_PAGES, SHARED };
FIXTURE_VARIANT_ADD(hugetlb_pmd_move_all, migrate_pages_own_tables) {
	MIGRATE_PAGES, OWN_TABLES };
FIXTURE_VARIANT_ADD(hugetlb_pmd_move_all, migrate_pages_alone) {
	MIGRATE_PAGES, ALONE };
FIXTURE_VARIANT_ADD(hugetlb_pmd_move_all, move_pages_shared) {
	MOVE_PAGES, SHARED };
FIXTURE_VARIANT_ADD(hugetlb_pmd_move_all, move_pages_own_tables) {
	MOVE_PAGES, OWN_TABLES };
FIXTURE_VARIANT_ADD(hugetlb_pmd_move_all, move_pages_alone) {
	MOVE_PAGES, ALONE };

/* Where in its PUD a mapping begins. */
static size_t offset_of(enum layout layout)
{
	return layout == OWN_TABLES ? pmd_size() : 0;
}

static __noreturn void sharer_main(struct sharer *me, int fd,
				   enum layout layout, pid_t parent)
{
	char *addr = NULL, *next = me->room + offset_of(layout);
	uint32_t step = 0;
	int tries;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	for (;;) {
		step = wait_for_change(&me->step, step);
		if (addr)
			unmap_pud(addr);
		addr = NULL;
		/*
		 * A fault that has nothing to do with these pages may be
		 * counted too, so one that took too many is asked again. It
		 * cannot take too few.
		 */
		for (tries = 0; step & 1 && tries < TRIES; tries++) {
			if (addr)
				unmap_pud(addr);
			addr = next;
			next += pud_size();
			me->error = map_pud(fd, addr);
			if (me->error)
				break;
			me->faults = touch_pages(addr, NR_PAGES);
			if (layout != SHARED || me->faults == 1)
				break;
		}
		set_and_wake(&me->done, step);
	}
}

/*
 * Have all others make their next step. Returns false, with a line that says
 * why, if one does not.
 */
static bool next_step(struct sharer *sharers, int nr_sharers)
{
	int i;

	for (i = 0; i < nr_sharers; i++)
		set_and_wake(&sharers[i].step, sharers[i].step + 1);
	for (i = 0; i < nr_sharers; i++) {
		struct sharer *s = &sharers[i];
		struct wait_limit limit = {};
		uint32_t done;

		for (;;) {
			done = __atomic_load_n(&s->done, __ATOMIC_ACQUIRE);
			if (done == s->step)
				break;
			if (!within_limit(&limit, &s->pid, 1,
					  STEP_TIMEOUT_MS)) {
				ksft_print_msg("sharer %d (pid %d) does not answer\n",
					       i + 1, s->pid);
				return false;
			}
			wait_a_while(&s->done, done, 100);
		}
	}
	return true;
}

/*
 * Ask for all pages to be moved, with MPOL_MF_MOVE or MPOL_MF_MOVE_ALL. The flag
 * of migrate_pages(2) is CAP_SYS_NICE. Returns -errno or 0, and in @status what
 * move_pages(2) says of each page.
 */
static int ask(enum trigger trigger, char *addr, int from, int to, int flag,
	       int *status)
{
	void *pages[NR_PAGES];
	int nodes[NR_PAGES];
	long ret = 0;
	int i;

	switch (trigger) {
	case MBIND:
		/* The whole mapping: a part would be split off and unshared. */
		ret = bind_range(addr, pud_size(), to, flag);
		break;
	case MIGRATE_PAGES:
		ret = migrate_node(0, from, to);
		break;
	case MOVE_PAGES:
		for (i = 0; i < NR_PAGES; i++) {
			pages[i] = addr + i * pmd_size();
			nodes[i] = to;
		}
		ret = move_pages(0, NR_PAGES, pages, nodes, status, flag);
		break;
	}
	/* Above 0: pages that stayed. */
	return ret < 0 ? -errno : 0;
}

static int pages_on(char *addr, int node)
{
	int i, count = 0;

	/* Migration may have taken the table away: fault it in again. */
	touch_pages(addr, NR_PAGES);
	for (i = 0; i < NR_PAGES; i++)
		count += page_node(0, addr + i * pmd_size()) == node;
	return count;
}

/* What migrate_pages(2) does for an ordinary user is what this is about. */
static int have_sys_nice(bool have)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
	uint32_t *effective, mask = CAP_TO_MASK(CAP_SYS_NICE);

	if (syscall(SYS_capget, &header, data))
		return -errno;
	effective = &data[CAP_TO_INDEX(CAP_SYS_NICE)].effective;
	*effective = have ? *effective | mask : *effective & ~mask;
	return syscall(SYS_capset, &header, data) ? -errno : 0;
}

/*
 * Have all pages moved, whoever maps them. Migration may fail for a while.
 * Returns -errno, or how many are on @to then.
 */
static int demand(enum trigger trigger, char *addr, int from, int to)
{
	int tries, ret, status[NR_PAGES], moved = 0;

	ret = have_sys_nice(true);
	for (tries = 0; !ret && tries < TRIES && moved < NR_PAGES; tries++) {
		ret = ask(trigger, addr, from, to, MPOL_MF_MOVE_ALL, status);
		moved = pages_on(addr, to);
	}
	if (have_sys_nice(false))
		return -EPERM;
	return ret ? ret : moved;
}

FIXTURE_SETUP(hugetlb_pmd_move_all)
{
	pid_t parent;
	const char *why;
	int i, puds;

	self->fd = -1;
	if (geteuid())
		SKIP(return, "needs root, to mount hugetlbfs");
	why = nodes_lack(self->nodes, 2, sched_getcpu()) ?:
	      guard_lacks() ?:
	      pool_lacks(self->nodes, 2, 2 * NR_PAGES) ?:
	      file_lacks(&self->fd, pud_size());
	if (why)
		SKIP(return, "%s", why);
	puds = 2 + MAX_SHARERS * MAP_ROOM;
	self->area_size = puds * pud_size();
	why = area_lacks(&self->area, puds);
	if (why)
		SKIP(return, "%s", why);
	self->addr = self->area + offset_of(variant->layout);
	self->sharers = share_memory(MAX_SHARERS * sizeof(*self->sharers));
	ASSERT_NE(NULL, self->sharers);
	ASSERT_EQ(0, have_sys_nice(false));

	/* Before this process maps anything that they would inherit. */
	parent = getpid();
	self->nr_sharers = variant->layout == ALONE ? 0 : MAX_SHARERS;
	for (i = 0; i < self->nr_sharers; i++) {
		struct sharer *s = &self->sharers[i];
		pid_t pid;

		s->room = self->area + (2 + i * MAP_ROOM) * pud_size();
		pid = fork();
		ASSERT_GE(pid, 0);
		if (!pid)
			sharer_main(s, self->fd, variant->layout, parent);
		s->pid = pid;
	}
}

FIXTURE_TEARDOWN(hugetlb_pmd_move_all)
{
	int i;

	for (i = 0; i < self->nr_sharers; i++) {
		if (self->sharers[i].pid <= 0)
			continue;
		kill(self->sharers[i].pid, SIGKILL);
		waitpid(self->sharers[i].pid, NULL, 0);
	}
	if (self->area)
		munmap(self->area, self->area_size);
	/* Huge pages in use would stay in the pool. */
	if (self->fd >= 0)
		close(self->fd);
	guard_stop();
}

TEST_F_TIMEOUT(hugetlb_pmd_move_all, stays, 120)
{
	const char *name = trigger_name[variant->trigger];
	long asked = 0, moved = 0, denied = 0, calls = 0, moved_alone = 0;
	long moved_all = 0;
	int status[NR_PAGES];
	int round, i, ret, gone;
	bool wrong = false;

	for (round = 0; round < ROUNDS; round++) {
		int from = self->nodes[round % 2];
		int to = self->nodes[!(round % 2)];

		ASSERT_EQ(0, map_pud(self->fd, self->addr));
		touch_pages(self->addr, NR_PAGES);
		ret = ask(MOVE_PAGES, self->addr, to, from, MPOL_MF_MOVE,
			  status);
		/* Not after a failure: a skip would take its place. */
		if (ret && !wrong)
			SKIP(return, "move_pages() does not work here: %s",
			     strerror(-ret));
		ASSERT_EQ(0, ret);
		ASSERT_EQ(NR_PAGES, pages_on(self->addr, from))
			TH_LOG("move_pages() cannot put all pages on node %d",
			       from);

		ASSERT_TRUE(next_step(self->sharers, self->nr_sharers));
		for (i = 0; i < self->nr_sharers; i++) {
			struct sharer *s = &self->sharers[i];

			ASSERT_EQ(0, s->error)
				TH_LOG("sharer %d cannot map the file", i + 1);
			if (variant->layout == SHARED && s->faults != 1 &&
			    !wrong)
				SKIP(return, "%s",
				     not_shared(s->faults, NR_PAGES));
			if (variant->layout == OWN_TABLES)
				ASSERT_GE(s->faults, NR_PAGES)
					TH_LOG("page table shared where it must not be");
		}

		gone = 0;
		if (self->nr_sharers) {
			calls++;
			asked += NR_PAGES;
			ASSERT_EQ(0, ask(variant->trigger, self->addr, from, to,
					 MPOL_MF_MOVE, status));
			gone = pages_on(self->addr, to);
			moved += gone;
			for (i = 0; i < NR_PAGES; i++)
				denied += variant->trigger == MOVE_PAGES &&
					  status[i] == -EACCES;
			wrong = moved || (variant->trigger == MOVE_PAGES &&
					  denied != asked);
		}

		if (self->nr_sharers && !gone) {
			ret = demand(variant->trigger, self->addr, from, to);
			ASSERT_LE(0, ret)
				TH_LOG("%s() fails for root: %s", name,
				       strerror(-ret));
			/* Why they stayed before, nobody knows then. */
			if (ret != NR_PAGES && !wrong)
				SKIP(return,
				     "inconclusive: for root %s() moves %d of %d pages that others map",
				     name, ret, NR_PAGES);
			moved_all += ret;
			/* What is left of this round is about the way back. */
			to = from;
			from = self->nodes[!(round % 2)];
		}

		ASSERT_TRUE(next_step(self->sharers, self->nr_sharers));
		if (!gone) {
			calls++;
			touch_pages(self->addr, NR_PAGES);
			ASSERT_EQ(0, ask(variant->trigger, self->addr, from, to,
					 MPOL_MF_MOVE, status));
			ASSERT_EQ(NR_PAGES, pages_on(self->addr, to))
				TH_LOG("%s() does not move what no other process maps",
				       name);
			moved_alone += NR_PAGES;
		}
		unmap_pud(self->addr);
	}

	/* What is asked for and others map is what could be moved wrongly. */
	ksft_print_msg("hugetlb_pmd_move_all: trigger=%s sharers=%d control=%s",
		       name, self->nr_sharers + 1,
		       variant->layout == SHARED ? "no" : "yes");
	printf(" calls=%ld failed_calls=0 migrations=%ld lost_migrations=%ld",
	       calls, variant->layout == ALONE ? moved_alone : asked, moved);
	printf(" moved_alone=%ld moved_all=%ld\n", moved_alone, moved_all);
	EXPECT_EQ(0, moved)
		TH_LOG("%s() moved %ld of %ld pages that others map", name,
		       moved, asked);
	if (variant->trigger == MOVE_PAGES)
		EXPECT_EQ(asked, denied)
			TH_LOG("move_pages() said -EACCES of %ld of %ld pages that others map",
			       denied, asked);
}

TEST_HARNESS_MAIN
