// SPDX-License-Identifier: GPL-2.0
/*
 * Does a VMA that is split give up a shared PMD page table for good?
 *
 * hugetlb shares a table only where a VMA maps its whole PUD (see
 * hugetlb_pmd_migrate.c), and the code that unshares one relies on that: it
 * flushes a whole PUD, and tells the MMU notifiers of a whole PUD, only if the
 * VMA maps one. So a table is unshared when its VMA is split. If that is done
 * before i_mmap_rwsem is taken, another process can come in between:
 *
 *	split			another process
 *	is it shared? no
 *				faults, finds the VMA whole, shares its table
 *	lock, split the VMA
 *
 * Now two pieces of a VMA are in a table that is shared. When a page of one is
 * unmapped, the process loses the table with everything in it, the pages of the
 * other piece included, and nobody is told of those.
 *
 * One round of the test is
 *
 *	map	a PUD, and touch its pages: the table is this process's own
 *	race	split the mapping, by a call that changes no page table; at the
 *		same time another process maps the file and touches a page
 *	touch	all pages again, should they have been unshared
 *	unmap	the last page
 *	look	at the first: if its entry has gone too, the table was shared
 *
 * One of the two waits, for another time in each round, so that the two calls
 * overlap in all ways. The test also sees who came first: if it was the other
 * process, the split took the table away. If only one of them is ever the
 * first, the two did not meet, and the test says so.
 *
 * Environment:
 *	HUGETLB_PMD_SPLIT_SECONDS=n	how long a variant runs
 */
#include "kselftest_harness.h"

#include <numa.h>
#include <numaif.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_page.h"
#include "migrate_util.h"
#include "vm_util.h"

#define NR_PAGES	4	/* populated: two for each piece */
#define SECONDS		10
#define MORE_SECONDS	12	/* where these bring too few meetings */
#define MAX_SECONDS	60	/* the harness has 120 for all */
#define WANT		20	/* tables that stayed shared are enough */
#define MIN_MEETINGS	100	/* fewer are no evidence */
#define STEP_TIMEOUT_MS	20000
#define MIN_REACH	2.0
#define MAX_REACH	500.0

enum splitter { MADVISE, MBIND };

static const char * const splitter_name[] = { "madvise", "mbind" };

struct control {
	/* Numbers of rounds: each says how far it is. */
	uint32_t begin;
	uint32_t ready;
	uint32_t go;
	uint32_t touched;
	uint32_t end;
	int64_t delay;		/* of the other, in cycles */
	uint64_t shortest;	/* that its fault took, in cycles */
	long faults;		/* that it took to touch all pages, before that */
	int error;
};

FIXTURE(hugetlb_pmd_split)
{
	struct control *control;
	char *addr;		/* a PUD, and one for the other process */
	int fd;
	int cpus[2];
	pid_t other;
};

FIXTURE_VARIANT(hugetlb_pmd_split)
{
	enum splitter splitter;
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_split, madvise) { .splitter = MADVISE };
FIXTURE_VARIANT_ADD(hugetlb_pmd_split, mbind) { .splitter = MBIND };

/* Until @pid makes @word @round: asleep, or by looking all the time. */
static bool sleep_for(uint32_t *word, uint32_t round, pid_t pid)
{
	struct wait_limit limit = {};
	uint32_t now;

	while (within_limit(&limit, &pid, 1, STEP_TIMEOUT_MS)) {
		now = __atomic_load_n(word, __ATOMIC_ACQUIRE);
		if (now == round)
			return true;
		wait_a_while(word, now, 100);
	}
	return false;
}

static bool spin_for(uint32_t *word, uint32_t round, pid_t pid)
{
	struct wait_limit limit = {};
	int i;

	for (;;) {
		for (i = 0; i < 10000; i++)
			if (__atomic_load_n(word, __ATOMIC_ACQUIRE) == round)
				return true;
		if (!within_limit(&limit, &pid, 1, STEP_TIMEOUT_MS))
			return false;
	}
}

static void wait_cycles(int64_t delay)
{
	uint64_t from = cycles();

	while (delay > 0 && cycles() - from < (uint64_t)delay)
		;
}

static void keep_shortest(uint64_t *shortest, uint64_t took)
{
	if (!*shortest || took < *shortest)
		*shortest = took;
}

static __noreturn void other_main(struct control *control, int fd, char *addr,
				  int cpu, pid_t parent)
{
	uint32_t round;
	uint64_t from;
	int tries;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	pin_to_cpu(cpu);
	if (!sleep_for(&control->begin, 1, parent))
		_exit(1);
	/* A fault that has nothing to do with these pages may be counted too. */
	for (tries = 0; control->faults != 1 && tries < 3; tries++) {
		if (map_pud(fd, addr))
			_exit(1);
		control->faults = touch_pages(addr, NR_PAGES);
		unmap_pud(addr);
	}
	for (round = 1;; round++) {
		control->error = map_pud(fd, addr);
		set_and_wake(&control->ready, round);
		if (control->error || !spin_for(&control->go, round, parent))
			_exit(1);
		wait_cycles(control->delay);
		from = cycles();
		touch_pages(addr, 1);
		keep_shortest(&control->shortest, cycles() - from);
		__atomic_store_n(&control->touched, round, __ATOMIC_RELEASE);
		if (!sleep_for(&control->end, round, parent))
			_exit(1);
		unmap_pud(addr);
	}
}

/* Split the mapping in the middle of its pages, and change no page table. */
static int split(char *addr, enum splitter splitter)
{
	char *second = addr + NR_PAGES / 2 * pmd_size();
	size_t size = addr + pud_size() - second;

	if (splitter == MBIND)
		return mbind(second, size, MPOL_LOCAL, NULL, 0, 0) ? errno : 0;
	return madvise(second, size, MADV_DONTDUMP) ? errno : 0;
}

static bool is_mapped(char *addr)
{
	return page_pfn(0, addr) > 0;
}

/*
 * By how much to delay whom, the other where it is positive. Somewhere in the
 * call of each is what is to meet, so the delay is any from minus the time that
 * the one takes to the time that the other does. The shortest times are known,
 * and most calls take longer: the fault by @reach times, which grows until the
 * other comes first in one round of four. On a busy machine, it begins late.
 */
static int64_t any_delay(uint64_t others, uint64_t own, double reach)
{
	double any = rand() / (RAND_MAX + 1.0);

	return any * (reach * others + 2 * own) - reach * others;
}

static double next_reach(double reach, bool is_early)
{
	reach *= is_early ? 0.86 : 1.05;
	return reach < MIN_REACH ? MIN_REACH :
	       reach > MAX_REACH ? MAX_REACH : reach;
}

FIXTURE_SETUP(hugetlb_pmd_split)
{
	int nr_cpus, nodes[2];
	pid_t parent;
	const char *why;

	self->fd = -1;
	if (geteuid())
		SKIP(return, "needs root, to see what is mapped");
	nr_cpus = cpu_list(self->cpus, ARRAY_SIZE(self->cpus));
	if (nr_cpus < 2)
		SKIP(return, "needs two CPUs");
	why = nodes_lack(nodes, 1, self->cpus[0]) ?:
	      guard_lacks() ?:
	      pool_lacks(nodes, 1, NR_PAGES) ?:
	      file_lacks(&self->fd, pud_size()) ?:
	      area_lacks(&self->addr, 2);
	if (why)
		SKIP(return, "%s", why);
	self->control = share_memory(sizeof(*self->control));
	ASSERT_NE(NULL, self->control);

	parent = getpid();
	self->other = fork();
	ASSERT_GE(self->other, 0);
	if (!self->other)
		other_main(self->control, self->fd, self->addr + pud_size(),
			   self->cpus[1], parent);
	pin_to_cpu(self->cpus[0]);
}

FIXTURE_TEARDOWN(hugetlb_pmd_split)
{
	if (self->other > 0) {
		kill(self->other, SIGKILL);
		waitpid(self->other, NULL, 0);
	}
	if (self->addr)
		munmap(self->addr, 2 * pud_size());
	if (self->fd >= 0)
		close(self->fd);
	guard_stop();
}

static bool is_enough(uint64_t began, long early, long late)
{
	long seconds = env_count("HUGETLB_PMD_SPLIT_SECONDS", SECONDS);

	if (early < MIN_MEETINGS || late < MIN_MEETINGS)
		seconds += MORE_SECONDS;
	return ms_since(began) >
	       1000 * (seconds < MAX_SECONDS ? seconds : MAX_SECONDS);
}

TEST_F_TIMEOUT(hugetlb_pmd_split, unshared, 120)
{
	uint64_t began = cycles_clock();
	struct control *control = self->control;
	char *last = self->addr + (NR_PAGES - 1) * pmd_size();
	long early = 0, late = 0, lost = 0, first_ms = 0;
	uint64_t from, shortest = 0;
	double reach = MIN_REACH;
	int64_t delay = 0;
	uint32_t round;

	for (round = 1; lost < WANT && !is_enough(began, early, late);
	     round++) {
		bool is_early;

		ASSERT_EQ(0, map_pud(self->fd, self->addr));
		touch_pages(self->addr, NR_PAGES);
		if (round == 1)
			set_and_wake(&control->begin, round);
		ASSERT_TRUE(sleep_for(&control->ready, round, self->other));
		ASSERT_EQ(0, control->error);
		if (control->faults != 1)
			SKIP(return, "%s",
			     not_shared(control->faults, NR_PAGES));

		control->delay = delay;
		__atomic_store_n(&control->go, round, __ATOMIC_RELEASE);
		wait_cycles(-delay);
		from = cycles();
		ASSERT_EQ(0, split(self->addr, variant->splitter));
		keep_shortest(&shortest, cycles() - from);
		ASSERT_TRUE(spin_for(&control->touched, round, self->other));

		is_early = !is_mapped(self->addr);
		early += is_early;
		late += !is_early;
		touch_pages(self->addr, NR_PAGES);
		ASSERT_EQ(0, munmap(last, pmd_size()));
		if (!is_mapped(self->addr)) {
			if (!lost++)
				first_ms = (cycles_clock() - began) / 1000000;
		}

		reach = next_reach(reach, is_early);
		delay = any_delay(control->shortest, shortest, reach);
		unmap_pud(self->addr);
		set_and_wake(&control->end, round);
	}

	ksft_print_msg("hugetlb_pmd_split: trigger=%s sharers=2 control=no calls=%u failed_calls=0",
		       splitter_name[variant->splitter], round - 1);
	printf(" migrations=%u lost_migrations=%ld first_ms=%ld early=%ld late=%ld",
	       round - 1, lost, first_ms, early, late);
	printf(" cycles=%llu,%llu\n", (unsigned long long)shortest,
	       (unsigned long long)control->shortest);
	EXPECT_EQ(0, lost)
		TH_LOG("in %ld of %u rounds the split left a table shared", lost,
		       round - 1);
	if (!lost && (early < MIN_MEETINGS || late < MIN_MEETINGS))
		SKIP(return, "inconclusive: the other came first in %ld rounds, last in %ld",
		     early, late);
}

TEST_HARNESS_MAIN
