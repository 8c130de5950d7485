// SPDX-License-Identifier: GPL-2.0
/*
 * Can the owner of a private hugetlb mapping write to a page that its child has as
 * well, while others fault on the page of the file?
 *
 * A write to such a page copies it. If no huge page is free for the copy, the owner
 * takes the page away from its children, and keeps it. To do so it gives up the
 * mutex of the page's faults, and takes it again later. If it has locked the page
 * that the file has in this place, and keeps that lock, it waits for ever:
 *
 *	owner				others, that map the file
 *	takes the mutex
 *	locks the page of the file
 *	no huge page is free
 *	gives the mutex up
 *					take the mutex
 *					wait for the lock of the page
 *	takes the page from its child
 *	waits for the mutex
 *
 * Here the owner writes, forks and writes again, with an empty pool, and others map
 * the file, fault and unmap it. No one may be stuck.
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
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_page.h"
#include "migrate_race.h"
#include "migrate_util.h"
#include "vm_util.h"

#define NR_PAGES	2	/* of the file; the owner writes to the first */
#define NR_OTHERS	3
#define SECONDS		10
#define ENOUGH		20	/* fewer pages kept, or faults, are no evidence */
#define STUCK_MS	10000
#define OVERCOMMIT	"/proc/sys/vm/nr_overcommit_hugepages"

struct control {
	unsigned long writes;	/* of the owner, to a page that a child has */
	unsigned long kept;	/* of them, those that had no page for a copy */
	unsigned long faults;
	unsigned long alone;	/* times that the owner could have no child */
};

FIXTURE(hugetlb_cow_fault)
{
	struct control *control;
	struct crew crew;
	int fd;
	int rest;		/* a file that has all other free pages */
	bool stuck;
};

FIXTURE_VARIANT(hugetlb_cow_fault)
{
	int page;		/* that the others fault on */
};

FIXTURE_VARIANT_ADD(hugetlb_cow_fault, same_page) { .page = 0 };
/* Another mutex, and another lock: this passes on every kernel. */
FIXTURE_VARIANT_ADD(hugetlb_cow_fault, other_page) { .page = 1 };

static struct control *shared;

static char *map_file(int fd, int flags, int nr)
{
	char *addr = mmap(NULL, nr * pmd_size(), PROT_READ | PROT_WRITE, flags,
			  fd, 0);

	if (addr == MAP_FAILED)
		give_up(errno);
	return addr;
}

static __noreturn void other_main(int fd, int page)
{
	char *addr;

	while (!stopped()) {
		addr = map_file(fd, MAP_SHARED, NR_PAGES);
		__atomic_load_n(addr + page * pmd_size(), __ATOMIC_RELAXED);
		count_up(&shared->faults, 1);
		munmap(addr, NR_PAGES * pmd_size());
	}
	_exit(0);
}

/*
 * A child that has what the owner has, and does nothing. It dies with the owner.
 * 0 if there can be none now: that is no failure of anything tested here.
 */
static pid_t fork_child(void)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0 && errno != EAGAIN && errno != ENOMEM)
		give_up(errno);
	if (pid < 0)
		return 0;
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		for (;;)
			pause();
	}
	return pid;
}

static __noreturn void own_main(int fd)
{
	int64_t before, after;
	char *addr;
	pid_t pid;

	while (!stopped()) {
		addr = map_file(fd, MAP_PRIVATE, 1);
		__atomic_store_n(addr, 1, __ATOMIC_RELAXED);
		before = page_pfn(0, addr);
		pid = fork_child();
		if (!pid) {
			count_up(&shared->alone, 1);
			munmap(addr, pmd_size());
			usleep(1000);
			continue;
		}
		__atomic_store_n(addr, 2, __ATOMIC_RELAXED);
		after = page_pfn(0, addr);
		count_up(&shared->writes, 1);
		if (before > 0 && before == after)
			count_up(&shared->kept, 1);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		munmap(addr, pmd_size());
	}
	_exit(0);
}

/* All that is free but one page, which is for the owner. */
static bool take_rest(int fd)
{
	off_t at = 0;

	while (!fallocate(fd, 0, at, pmd_size()))
		at += pmd_size();
	return errno == ENOSPC && at &&
	       !fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  at - pmd_size(), pmd_size());
}

FIXTURE_SETUP(hugetlb_cow_fault)
{
	int i, nodes[2];
	const char *why;
	char old[24];
	pid_t pid;

	self->fd = -1;
	self->rest = -1;
	if (geteuid())
		SKIP(return, "needs root, for the huge page pool");
	why = churn_lacks("may hang a kernel that has the defect");
	if (why)
		SKIP(return, "%s", why);
	if (guard_left())
		SKIP(return, "processes of the test before are stuck");
	why = nodes_lack(nodes, 1, sched_getcpu()) ?:
	      guard_lacks() ?:
	      pool_lacks(nodes, 1, NR_PAGES + 2);
	if (why)
		SKIP(return, "%s", why);
	/* A page that is made when it is asked for would be one for the copy. */
	if (file_read(OVERCOMMIT, old, sizeof(old)) ||
	    guard_undo(OVERCOMMIT, old) || file_write(OVERCOMMIT, "0"))
		SKIP(return, "needs " OVERCOMMIT);
	self->fd = hugetlbfs_open(NR_PAGES * pmd_size());
	self->rest = hugetlbfs_open(0);
	if (self->fd < 0 || self->rest < 0)
		SKIP(return, "cannot mount hugetlbfs: %s",
		     strerror(self->fd < 0 ? -self->fd : -self->rest));
	if (fallocate(self->fd, 0, 0, NR_PAGES * pmd_size()) ||
	    !take_rest(self->rest))
		SKIP(return, "cannot have all free huge pages: %s",
		     strerror(errno));

	shared = race_begin(sizeof(*shared));
	ASSERT_NE(NULL, shared);
	self->control = shared;
	for (i = 0; i <= NR_OTHERS; i++) {
		pid = crew_fork(&self->crew);
		ASSERT_GE(pid, 0);
		if (pid)
			continue;
		if (i < NR_OTHERS)
			other_main(self->fd, variant->page);
		own_main(self->fd);
	}
}

FIXTURE_TEARDOWN(hugetlb_cow_fault)
{
	const char *why;

	if (self->rest >= 0)
		close(self->rest);
	why = race_end(&self->crew, self->stuck, self->fd, STUCK_MS);
	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
}

TEST_F_TIMEOUT(hugetlb_cow_fault, comes_back, 120)
{
	struct control *control = self->control;
	struct race race = {
		.crew = &self->crew, .steps = &control->writes,
		.seconds = SECONDS, .stuck_ms = STUCK_MS,
	};
	const char *why;

	race_run(&race);
	self->stuck = race.stuck;
	ksft_print_msg("hugetlb_cow_fault: control=%s calls=%lu failed_calls=0",
		       variant->page ? "yes" : "no", control->writes);
	printf(" migrations=%lu lost_migrations=%d faults=%lu alone=%lu\n",
	       control->kept, self->stuck, control->faults, control->alone);
	ASSERT_FALSE(self->stuck)
		TH_LOG("stuck: no write since %ld ms, after %lu writes and %lu faults",
		       ms_since(race.since), control->writes, control->faults);
	if (race_oom_killed(crew_killed(&self->crew)))
		SKIP(return, OOM_KILLED);
	why = race_failed(&self->crew, race.ended);
	ASSERT_EQ(NULL, why)
		TH_LOG("%s", why);
	if (control->kept < ENOUGH || control->faults < ENOUGH)
		SKIP(return,
		     "inconclusive: %lu pages kept, %lu faults, %lu times no fork",
		     control->kept, control->faults, control->alone);
}

TEST_HARNESS_MAIN
