// SPDX-License-Identifier: GPL-2.0
/*
 * Can a hole be punched into a part of a huge page while memory of that page fails?
 *
 * A hole that begins or ends in the middle of a page of a hugetlb file zeroes a
 * part of that page, with the page locked. Who handles a memory error has the page
 * locked, too, and waits for i_mmap_rwsem of the file to find the processes that
 * are to be told. If the hole has i_mmap_rwsem when it waits for the page, both wait
 * for ever:
 *
 *	memory error			hole
 *	locks the page
 *					takes i_mmap_rwsem
 *					waits for the lock of the page
 *	waits for i_mmap_rwsem
 *
 * Here one process punches holes all the time, into the page that another one
 * poisons by madvise(2). The time between the two locks of a memory error is short.
 * So others hold i_mmap_rwsem most of the time: they change the protection of
 * mappings of the same file. Then a hole mostly waits in line for i_mmap_rwsem
 * already when a memory error comes to it. No one may be stuck.
 *
 *	page 0		1		2		3		4
 *			poisoned			poisoned
 *
 *	other_file	another file: comes back on any kernel
 *	other_page	the page before: comes back on any kernel
 *	middle		begins and ends in the page that is poisoned
 *	start		begins with that page, and ends in it
 *	across		begins in the page before, and ends in it
 *	whole		begins in it, and has the page after as a whole
 *
 * After each error all of the page is punched out of the file, and the poison is
 * taken back. Where that cannot be, for some pages, the test ends while there are
 * huge pages left, and fails. It tries once more at the end.
 *
 * The test itself has the file not mapped: if the lock of the file is never
 * released, a process that maps it cannot exit, either.
 *
 * Environment:
 *	HUGETLB_PMD_CHURN=1		run it at all: on a kernel that has the
 *					defect, processes stay that nothing can
 *					end; not for machines that do work
 *	HUGETLB_PMD_MIGRATE_OFFLINE=1	run it at all: poisons memory, which
 *					only the lab's guest has to spare
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
#include "migrate_memory.h"
#include "migrate_page.h"
#include "migrate_poison.h"
#include "migrate_race.h"
#include "migrate_util.h"
#include "vm_util.h"

#define NR_PAGES	5
#define NR_HOLDERS	2	/* of i_mmap_rwsem */
#define SPARE		6	/* free pages, for what is filled anew */
#define ENOUGH_MET	20	/* fewer errors that met a hole are no evidence */
#define MAX_SECONDS	40	/* until there are so many, on a busy machine */
#define STUCK_MS	10000

enum hole { MIDDLE, START, ACROSS, WHOLE };

struct control {
	struct poison poison;	/* begun and ended are holes */
	int page;		/* that is poisoned next, and punched */
	unsigned long held;	/* times that i_mmap_rwsem was taken */
};

FIXTURE(hugetlb_punch_poison)
{
	struct control *control;
	struct crew crew;
	int fd;
	int other;		/* a file that holes are punched into instead */
	bool stuck;
};

FIXTURE_VARIANT(hugetlb_punch_poison)
{
	enum hole hole;
	bool other_file;
	bool other_page;
};

/* First those that come back on any kernel: after the others it is too late. */
FIXTURE_VARIANT_ADD(hugetlb_punch_poison, other_file) {
	.hole = MIDDLE, .other_file = true };
FIXTURE_VARIANT_ADD(hugetlb_punch_poison, other_page) {
	.hole = MIDDLE, .other_page = true };
FIXTURE_VARIANT_ADD(hugetlb_punch_poison, middle) {
	.hole = MIDDLE };
FIXTURE_VARIANT_ADD(hugetlb_punch_poison, start) {
	.hole = START };
FIXTURE_VARIANT_ADD(hugetlb_punch_poison, across) {
	.hole = ACROSS };
FIXTURE_VARIANT_ADD(hugetlb_punch_poison, whole) {
	.hole = WHOLE };

static struct control *shared;

static char *map_page(int fd, int page)
{
	return mmap(NULL, pmd_size(), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_NORESERVE, fd, page * pmd_size());
}

static bool punch_range(int fd, off_t from, off_t len)
{
	return !fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, from,
			  len);
}

/* Zeroes a part of @page. */
static bool punch(int fd, int page, enum hole hole)
{
	off_t start = page * pmd_size(), some = psize();

	switch (hole) {
	case MIDDLE:
		return punch_range(fd, start + some, 2 * some);
	case START:
		return punch_range(fd, start, 2 * some);
	case ACROSS:
		return punch_range(fd, start - some, 2 * some);
	default:
		return punch_range(fd, start + pmd_size() / 2,
				   pmd_size() / 2 + pmd_size());
	}
}

/* Whether that is so: up to 5.18 what is no whole page stays as it is. */
static bool zeroes_a_part(int fd, int page, enum hole hole)
{
	size_t at = hole == MIDDLE ? psize() :
		    hole == WHOLE ? pmd_size() / 2 : 0;
	char *addr = map_page(fd, page);
	bool zero;

	if (addr == MAP_FAILED)
		return false;
	__atomic_store_n(addr + at, 1, __ATOMIC_RELAXED);
	zero = punch(fd, page, hole) &&
	       !__atomic_load_n(addr + at, __ATOMIC_RELAXED);
	munmap(addr, pmd_size());
	return zero;
}

static __noreturn void punch_main(int fd, const FIXTURE_VARIANT(hugetlb_punch_poison) *
				  variant)
{
	char *addr = NULL;
	int page;

	while (!stopped()) {
		page = __atomic_load_n(&shared->page, __ATOMIC_ACQUIRE);
		if (variant->other_page)
			page--;
		if (variant->other_file)
			page = 0;
		if (variant->hole == WHOLE) {
			/* There, and mapped: that it is unmapped takes the lock. */
			addr = map_page(fd, page + 1);
			if (addr == MAP_FAILED)
				give_up(errno);
			__atomic_store_n(addr, 1, __ATOMIC_RELAXED);
		}
		count_up(&shared->poison.begun, 1);
		if (!punch(fd, page, variant->hole))
			give_up(errno);
		count_up(&shared->poison.ended, 1);
		if (addr)
			munmap(addr, pmd_size());
	}
	_exit(0);
}

static __noreturn void error_main(int fd)
{
	int page = 1;

	while (!stopped()) {
		__atomic_store_n(&shared->page, page, __ATOMIC_RELEASE);
		/* The first hole from now on may be the end of one in another page. */
		if (!poison_page(&shared->poison, fd, page, 2) ||
		    !poison_take_back(&shared->poison, fd, page))
			break;
		page = page == 1 ? 3 : 1;
	}
	_exit(0);
}

FIXTURE_SETUP(hugetlb_punch_poison)
{
	int i, nodes[2];
	const char *why;
	char *area;
	pid_t pid;

	self->fd = -1;
	self->other = -1;
	if (geteuid())
		SKIP(return, "needs root, to poison memory");
	why = churn_lacks("may hang a kernel that has the defect");
	if (why)
		SKIP(return, "%s", why);
	if (!env_long("HUGETLB_PMD_MIGRATE_OFFLINE", 0))
		SKIP(return, "poisons memory: HUGETLB_PMD_MIGRATE_OFFLINE=1 allows it");
	if (guard_left())
		SKIP(return, "processes of the test before are stuck");
	why = unpoison_lacks() ?:
	      nodes_lack(nodes, 1, sched_getcpu()) ?:
	      guard_lacks() ?:
	      pool_lacks(nodes, 1, NR_PAGES + SPARE) ?:
	      file_lacks(&self->fd, pud_size()) ?:
	      file_lacks(&self->other, pmd_size());
	if (why)
		SKIP(return, "%s", why);
	ASSERT_EQ(0, fallocate(self->fd, 0, 0, NR_PAGES * pmd_size()));
	ASSERT_EQ(0, fallocate(self->other, 0, 0, pmd_size()));
	if (!zeroes_a_part(self->fd, 1, variant->hole))
		SKIP(return,
		     "a hole zeroes no part of a page on this kernel (since 5.19)");

	shared = race_begin(sizeof(*shared));
	ASSERT_NE(NULL, shared);
	self->control = shared;
	shared->page = 1;
	for (i = 0; i < NR_HOLDERS + 2; i++) {
		pid = crew_fork(&self->crew);
		ASSERT_GE(pid, 0);
		if (pid)
			continue;
		/* Who poisons stays as anybody is, and so do his children. */
		if (i == 1)
			error_main(self->fd);
		stay_alive();
		if (!i)
			punch_main(variant->other_file ? self->other : self->fd,
				   variant);
		/* Nobody poisons the first page. */
		area = reserve_puds(1);
		if (!area)
			give_up(ENOMEM);
		hold_main(self->fd, area, pud_size() - pmd_size(), 0,
			  &shared->held);
	}
}

FIXTURE_TEARDOWN(hugetlb_punch_poison)
{
	const char *why;

	/* Once somebody is stuck, no wait brings him back. */
	if (!crew_kill(&self->crew, self->stuck ? 0 : STUCK_MS))
		self->stuck = true;
	if (self->fd >= 0)
		close(self->fd);
	if (self->other >= 0)
		close(self->other);
	/* Who is stuck has a lock that this needs as well. */
	if (!self->stuck && self->control)
		poison_end(&self->control->poison);
	/* The guardian must not wait for those who are stuck. */
	why = guard_end(!self->stuck);
	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
}

TEST_F_TIMEOUT(hugetlb_punch_poison, comes_back, 120)
{
	struct control *control = self->control;
	struct poison *poison = &control->poison;
	struct race race = {
		.crew = &self->crew, .steps = &poison->errors,
		.met = &poison->met, .enough = ENOUGH_MET,
		.max_seconds = MAX_SECONDS, .stuck_ms = STUCK_MS,
	};
	const char *why;

	race_run(&race);
	self->stuck = race.stuck;

	/* The error that is stuck has met a hole. */
	ksft_print_msg("hugetlb_punch_poison: control=%s calls=%lu failed_calls=0",
		       variant->other_file || variant->other_page ? "yes" : "no",
		       poison->errors + self->stuck);
	printf(" migrations=%lu lost_migrations=%d holes=%lu held=%lu kept=%lu\n",
	       poison->met + self->stuck, self->stuck, poison->ended,
	       control->held, poison->kept);
	/* The others are told of already. */
	if (self->stuck)
		poison_tell(poison);
	ASSERT_FALSE(self->stuck)
		TH_LOG("stuck: no error handled since %ld ms, after %lu errors and %lu holes",
		       ms_since(race.since), poison->errors, poison->ended);
	/* Poison that stays is a failure, also where there is no more of it. */
	if (poison->refused && !poison->kept)
		SKIP(return, "MADV_HWPOISON does not work here: %s",
		     strerror(poison->refused));
	EXPECT_EQ(0, poison->kept)
		TH_LOG("%lu of %lu pages could not be taken back, and stay poisoned",
		       poison->kept, poison->errors);
	/* Who poisons has ended by itself when there were too many, or no more. */
	why = race_failed(&self->crew, race.ended && !poison->done &&
			  !poison->refused);
	ASSERT_EQ(NULL, why)
		TH_LOG("%s", why);
	/* Not after a failure: a skip would take its place. */
	if (!__test_passed(_metadata))
		return;
	if (poison->met < ENOUGH_MET || control->held < ENOUGH_MET)
		SKIP(return, "inconclusive: %lu of %lu errors met by %lu holes",
		     poison->met, poison->errors, poison->ended);
}

TEST_HARNESS_MAIN
