// SPDX-License-Identifier: GPL-2.0
/*
 * Can a hole be punched into a hugetlb file while others fault on it?
 *
 * fallocate(2) first unmaps the pages of a hole, and then takes them from the
 * file, one by one. A page that was mapped again meanwhile is unmapped once more.
 * Three locks are needed for that, which a page fault takes in this order, from
 * 5.7 to 6.0: i_mmap_rwsem of the file, the mutex of the page's faults, and the
 * lock of the page. Who punches the hole finds out with the last of them that it
 * needs the others. If it does not give it up, the two wait for each other for
 * ever:
 *
 *	hole punch			page fault
 *	locks the page
 *	finds it mapped
 *					takes i_mmap_rwsem and the mutex
 *					waits for the lock of the page
 *	waits for i_mmap_rwsem, or
 *	for the mutex
 *
 * Here one process punches holes into a file, and others write to it. No one may
 * be stuck.
 *
 * Environment:
 *	HUGETLB_PMD_CHURN=1		run it at all: on a kernel that has the
 *					defect, processes stay that nothing can
 *					end; not for machines that do work
 */
#include "kselftest_harness.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <numa.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_page.h"
#include "migrate_race.h"
#include "migrate_util.h"

#define NR_PAGES	2
#define NR_WRITERS	4
#define SPARE		4	/* free pages, for what is filled */
#define SECONDS		10
#define MAX_SECONDS	40	/* until enough holes are met, on a busy machine */
#define ENOUGH		50	/* fewer holes or writes are no evidence */
#define ENOUGH_MET	5	/* the same for holes that a fault met */
#define STUCK_MS	10000

struct control {
	unsigned long holes;
	unsigned long met;	/* holes that ended with the page there again */
	unsigned long writes;
	unsigned long fills[NR_PAGES];	/* writes to a page that was new */
};

FIXTURE(hugetlb_punch_fault)
{
	struct control *control;
	struct crew crew;
	int fd;
	bool stuck;
};

FIXTURE_VARIANT(hugetlb_punch_fault)
{
	bool madvise;	/* MADV_REMOVE, which punches a hole as well */
};

FIXTURE_VARIANT_ADD(hugetlb_punch_fault, fallocate) {
	.madvise = false };
FIXTURE_VARIANT_ADD(hugetlb_punch_fault, madv_remove) {
	.madvise = true };

static struct control *shared;

static char *map_file(int fd)
{
	char *addr = mmap(NULL, NR_PAGES * pmd_size(), PROT_READ | PROT_WRITE,
			  MAP_SHARED, fd, 0);

	if (addr == MAP_FAILED)
		give_up(errno);
	return addr;
}

static bool punch(int fd, char *addr, int page, bool with_madvise)
{
	size_t offset = page * pmd_size();

	if (with_madvise)
		return !madvise(addr + offset, pmd_size(), MADV_REMOVE);
	return !fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  offset, pmd_size());
}

static __noreturn void punch_main(int fd, bool with_madvise)
{
	char *addr = map_file(fd);
	unsigned long fills;
	int page = 0;

	while (!stopped()) {
		/* There, and mapped: the hole is one. */
		__atomic_store_n(addr + page * pmd_size(), 1, __ATOMIC_RELAXED);
		fills = counted(&shared->fills[page]);
		if (!punch(fd, addr, page, with_madvise))
			give_up(errno);
		count_up(&shared->holes, 1);
		if (counted(&shared->fills[page]) != fills)
			count_up(&shared->met, 1);
		page = (page + 1) % NR_PAGES;
	}
	_exit(0);
}

static __noreturn void write_main(int fd, int nr)
{
	char *addr = map_file(fd);
	int page = nr % NR_PAGES;
	unsigned int *word;

	while (!stopped()) {
		/* Faults if the page was taken from the file since. */
		word = (void *)(addr + page * pmd_size() + 64 * (nr + 1));
		if (!__atomic_exchange_n(word, 1, __ATOMIC_RELAXED))
			count_up(&shared->fills[page], 1);
		count_up(&shared->writes, 1);
		page = (page + 1) % NR_PAGES;
	}
	_exit(0);
}

FIXTURE_SETUP(hugetlb_punch_fault)
{
	int i, nodes[2];
	const char *why;
	pid_t pid;

	self->fd = -1;
	if (geteuid())
		SKIP(return, "needs root, for the huge page pool");
	why = churn_lacks("may hang a kernel that has the defect");
	if (why)
		SKIP(return, "%s", why);
	if (guard_left())
		SKIP(return, "processes of the test before are stuck");
	why = nodes_lack(nodes, 1, sched_getcpu()) ?:
	      guard_lacks() ?:
	      pool_lacks(nodes, 1, NR_PAGES + SPARE) ?:
	      file_lacks(&self->fd, NR_PAGES * pmd_size());
	if (why)
		SKIP(return, "%s", why);

	shared = race_begin(sizeof(*shared));
	ASSERT_NE(NULL, shared);
	self->control = shared;
	for (i = 0; i <= NR_WRITERS; i++) {
		pid = crew_fork(&self->crew);
		ASSERT_GE(pid, 0);
		if (pid)
			continue;
		if (i < NR_WRITERS)
			write_main(self->fd, i);
		punch_main(self->fd, variant->madvise);
	}
}

FIXTURE_TEARDOWN(hugetlb_punch_fault)
{
	const char *why = race_end(&self->crew, self->stuck, self->fd,
				   STUCK_MS);

	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
}

TEST_F_TIMEOUT(hugetlb_punch_fault, comes_back, 120)
{
	struct control *control = self->control;
	struct race race = {
		.crew = &self->crew, .steps = &control->holes,
		.met = &control->met, .enough = ENOUGH_MET, .seconds = SECONDS,
		.max_seconds = MAX_SECONDS, .stuck_ms = STUCK_MS,
	};
	const char *why;

	race_run(&race);
	self->stuck = race.stuck;
	ksft_print_msg("hugetlb_punch_fault: control=no calls=%lu failed_calls=0",
		       control->holes);
	printf(" migrations=%lu lost_migrations=%d writes=%lu met=%lu\n",
	       control->holes, self->stuck, control->writes, control->met);
	ASSERT_FALSE(self->stuck)
		TH_LOG("stuck: no hole since %ld ms, after %lu holes and %lu writes",
		       ms_since(race.since), control->holes, control->writes);
	why = race_failed(&self->crew, race.ended);
	ASSERT_EQ(NULL, why)
		TH_LOG("%s", why);
	if (control->holes < ENOUGH || control->writes < ENOUGH ||
	    control->met < ENOUGH_MET)
		SKIP(return, "inconclusive: %lu holes, %lu met by faults, %lu writes",
		     control->holes, control->met, control->writes);
}

TEST_HARNESS_MAIN
