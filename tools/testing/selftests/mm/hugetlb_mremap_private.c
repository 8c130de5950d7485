// SPDX-License-Identifier: GPL-2.0
/*
 * Can a private hugetlb mapping be moved while others punch holes into the file,
 * or truncate it?
 *
 * A hole locks each mapping of the file, and unmaps pages of it. A private mapping
 * with reserved pages has its lock in its reservation map. When mremap(2) has moved
 * one, the new mapping has that map, and the old one is told that it has none. If
 * that comes between the two ends of a hole, the hole finds no lock to release:
 *
 *	hole				mremap()
 *	locks the map of the old one
 *					takes the map from the old one
 *	finds no map, releases nothing
 *
 * The next fault of the process, or the next mremap(2), waits for the lock for
 * ever. So does its exit.
 *
 * Here two processes store to a private mapping each, and move it to and fro, while
 * two others take the pages from the file. All are ordinary users. No one may be
 * stuck. In a new page a word that was stored to the old one is missing: that shows
 * that the holes do come to these mappings. A move counts if a hole had begun, or
 * began meanwhile, and was not over: with two who punch, that is most of them.
 *
 *			what takes the pages	from where to where
 *	other_file	holes in another file	between two PUDs
 *	no_reserve	holes			the same; no page is reserved
 *	shared		holes			the same; a shared mapping
 *	punch		holes			between two PUDs
 *	punch_near	holes			within a PUD
 *	remove		MADV_REMOVE		within a PUD
 *	truncate	truncation		between two PUDs
 *
 * The first three have no lock in a reservation map, or nobody who takes it, and
 * come back on any kernel. They are run first, as processes that are stuck stay.
 * Who is stuck in a fault holds a lock of the page that others may need, also for
 * another file. So no test is run after that.
 *
 * Environment:
 *	HUGETLB_PMD_CHURN=1		run it at all: on a kernel that has the
 *					defect, processes stay that nothing can
 *					end; not for machines that do work
 */
#include "kselftest_harness.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_page.h"
#include "migrate_race.h"
#include "migrate_util.h"

#define NR_PAGES	4
#define NR_MOVERS	2
#define NR_TAKERS	2
#define SPARE		(2 * NR_PAGES)	/* free pages, for what is not yet free again */
#define SECONDS		10
#define ENOUGH		50	/* fewer moves that met a hole are no evidence */
#define STILL_MS	3000	/* who does not move for so long may be stuck */
#define STUCK_MS	20000
#define MAGIC		0x6d72656d6170ull	/* "mremap" */

enum take { PUNCH, REMOVE, TRUNCATE };

struct mover {
	unsigned long moves;
	unsigned long met;	/* those with a hole at the same time */
	unsigned long gone;	/* pages that were new, the first ones too */
	unsigned long sigbus;	/* stores beyond the end of the file */
};

struct control {
	unsigned long begun;	/* holes, or truncations */
	unsigned long ended;
	struct mover movers[NR_MOVERS];
};

FIXTURE(hugetlb_mremap_private)
{
	struct control *control;
	struct crew movers;
	struct crew takers;
	char *area;
	int fd;
	int other;
	bool stuck;
};

FIXTURE_VARIANT(hugetlb_mremap_private)
{
	enum take take;
	int flags;		/* of the mapping that is moved */
	bool near;
	bool other_file;
	bool control;
};

FIXTURE_VARIANT_ADD(hugetlb_mremap_private, other_file) {
	.flags = MAP_PRIVATE, .other_file = true, .control = true };
FIXTURE_VARIANT_ADD(hugetlb_mremap_private, no_reserve) {
	.flags = MAP_PRIVATE | MAP_NORESERVE, .control = true };
FIXTURE_VARIANT_ADD(hugetlb_mremap_private, shared) {
	.flags = MAP_SHARED, .control = true };
FIXTURE_VARIANT_ADD(hugetlb_mremap_private, punch) {
	.flags = MAP_PRIVATE };
FIXTURE_VARIANT_ADD(hugetlb_mremap_private, punch_near) {
	.flags = MAP_PRIVATE, .near = true };
FIXTURE_VARIANT_ADD(hugetlb_mremap_private, remove) {
	.flags = MAP_PRIVATE, .near = true, .take = REMOVE };
FIXTURE_VARIANT_ADD(hugetlb_mremap_private, truncate) {
	.flags = MAP_PRIVATE, .take = TRUNCATE };

static struct control *shared;
static sigjmp_buf beyond;

static size_t size(void)
{
	return NR_PAGES * pmd_size();
}

static __noreturn void take_main(int fd, enum take take)
{
	char *addr = NULL;
	bool done;

	/* Nothing here takes a right that not everybody has who may write to the file. */
	be_nobody();
	if (take == REMOVE)
		addr = mmap(NULL, size(), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (addr == MAP_FAILED)
		give_up(errno);
	while (!stopped()) {
		count_up(&shared->begun, 1);
		if (take == REMOVE)
			done = !madvise(addr, size(), MADV_REMOVE);
		else if (take == PUNCH)
			done = !fallocate(fd, FALLOC_FL_PUNCH_HOLE |
					  FALLOC_FL_KEEP_SIZE, 0, size());
		else
			done = !ftruncate(fd, 0) && !ftruncate(fd, size());
		if (!done)
			give_up(errno);
		count_up(&shared->ended, 1);
	}
	_exit(0);
}

static void on_sigbus(int sig)
{
	siglongjmp(beyond, 1);
}

/*
 * Have a page there. Returns whether the file goes so far. siglongjmp(3) may forget
 * what is in registers, so nothing here is kept over it.
 */
static bool touch(struct mover *me, char *page)
{
	uint64_t *words = (uint64_t *)page;

	if (sigsetjmp(beyond, 1))
		return false;
	/* First store: who reads a page may be given that of the file. */
	__atomic_store_n(&words[1], MAGIC, __ATOMIC_RELEASE);
	if (__atomic_load_n(&words[0], __ATOMIC_ACQUIRE) == MAGIC)
		return true;
	__atomic_store_n(&words[0], MAGIC, __ATOMIC_RELEASE);
	count_up(&me->gone, 1);
	return true;
}

static __noreturn void move_main(int fd, struct mover *me, char *from, char *to,
				 int flags, enum take take)
{
	struct sigaction act = { .sa_handler = on_sigbus };
	unsigned long begun, ended;
	char *moved;

	be_nobody();
	if (mmap(from, size(), PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd,
		 0) != from)
		give_up(errno);
	if (take == TRUNCATE)
		sigaction(SIGBUS, &act, NULL);
	while (!stopped()) {
		if (!touch(me, from) ||
		    !touch(me, from + size() - pmd_size()))
			count_up(&me->sigbus, 1);
		ended = counted(&shared->ended);
		moved = mremap(from, size(), size(),
			       MREMAP_MAYMOVE | MREMAP_FIXED, to);
		if (moved != to)
			give_up(errno);
		begun = counted(&shared->begun);
		to = from;
		from = moved;
		count_up(&me->moves, 1);
		/* One that had not ended before, or began since. */
		if (begun > ended)
			count_up(&me->met, 1);
	}
	_exit(0);
}

/* Whether this kernel moves huge pages; nobody else has the file yet. */
static const char *can_move_lacks(int fd, char *from, char *to)
{
	const char *why = NULL;
	char *moved;

	if (mmap(from, size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED,
		 fd, 0) != from)
		return "cannot map huge pages";
	moved = mremap(from, size(), size(), MREMAP_MAYMOVE | MREMAP_FIXED, to);
	if (moved == MAP_FAILED) {
		why = "no mremap of huge pages on this kernel (since 5.16)";
		moved = from;
	}
	munmap(moved, size());
	return why;
}

FIXTURE_SETUP(hugetlb_mremap_private)
{
	int i, nodes[2];
	const char *why;
	char *to;
	pid_t pid;

	self->fd = -1;
	self->other = -1;
	if (geteuid())
		SKIP(return, "needs root, for the huge page pool");
	why = churn_lacks("may leave processes that nothing can end");
	if (why)
		SKIP(return, "%s", why);
	if (guard_left())
		SKIP(return, "processes of the test before are stuck");
	why = nodes_lack(nodes, 1, sched_getcpu()) ?:
	      guard_lacks() ?:
	      pool_lacks(nodes, 1, NR_MOVERS * NR_PAGES + SPARE) ?:
	      file_lacks(&self->fd, size()) ?:
	      file_lacks(&self->other, size()) ?:
	      area_lacks(&self->area, 2);
	if (why)
		SKIP(return, "%s", why);
	if (pud_size() < 2 * size())
		SKIP(return, "a PUD has no room for two mappings");
	to = self->area + (variant->near ? size() : pud_size());
	why = can_move_lacks(self->fd, self->area, to);
	if (why)
		SKIP(return, "%s", why);

	shared = race_begin(sizeof(*shared));
	ASSERT_NE(NULL, shared);
	self->control = shared;
	for (i = 0; i < NR_MOVERS; i++) {
		pid = crew_fork(&self->movers);
		ASSERT_GE(pid, 0);
		if (!pid)
			move_main(self->fd, &shared->movers[i], self->area, to,
				  variant->flags, variant->take);
	}
	for (i = 0; i < NR_TAKERS; i++) {
		pid = crew_fork(&self->takers);
		ASSERT_GE(pid, 0);
		if (!pid)
			take_main(variant->other_file ? self->other : self->fd,
				  variant->take);
	}
}

FIXTURE_TEARDOWN(hugetlb_mremap_private)
{
	/* Once somebody is stuck, no wait brings him back. */
	int ms = self->stuck ? 0 : STUCK_MS;
	const char *why;

	if (!crew_kill(&self->movers, ms))
		self->stuck = true;
	if (!crew_kill(&self->takers, ms))
		self->stuck = true;
	if (self->fd >= 0)
		close(self->fd);
	if (self->other >= 0)
		close(self->other);
	if (self->area)
		munmap(self->area, 2 * pud_size());
	/* The guardian must not wait for those who are stuck. */
	why = guard_end(!self->stuck);
	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
}

TEST_F_TIMEOUT(hugetlb_mremap_private, comes_back, 120)
{
	struct control *control = self->control;
	unsigned long start = cycles_clock(), since[NR_MOVERS];
	unsigned long moves = 0, met = 0, gone = 0, sigbus = 0;
	unsigned long least_met = -1ul, least_gone = -1ul;
	unsigned long last[NR_MOVERS] = {}, now;
	bool ended = false, still = false;
	int i, movers, takers;
	const char *why;

	for (i = 0; i < NR_MOVERS; i++)
		since[i] = start;
	while (!ended && !still && ms_since(start) < SECONDS * 1000) {
		usleep(10 * 1000);
		for (i = 0; i < NR_MOVERS; i++) {
			now = counted(&control->movers[i].moves);
			if (now != last[i])
				since[i] = cycles_clock();
			last[i] = now;
			still |= ms_since(since[i]) >= STILL_MS;
		}
		ended = crew_ended(&self->movers) || crew_ended(&self->takers);
	}
	/* Stuck is who does not end: no move for long may be a busy machine. */
	race_stop();
	crew_wait(&self->movers, STUCK_MS);
	movers = self->movers.nr - crew_ended(&self->movers);
	/* They have had that time as well. */
	crew_wait(&self->takers, movers ? 1000 : STUCK_MS);
	takers = self->takers.nr - crew_ended(&self->takers);
	self->stuck = movers || takers;

	for (i = 0; i < NR_MOVERS; i++) {
		struct mover *one = &control->movers[i];

		moves += one->moves;
		met += one->met;
		gone += one->gone;
		sigbus += one->sigbus;
		if (one->met < least_met)
			least_met = one->met;
		if (one->gone < least_gone)
			least_gone = one->gone;
	}
	/* The move of one that is stuck has met a hole. */
	ksft_print_msg("hugetlb_mremap_private: control=%s calls=%lu failed_calls=0",
		       variant->control ? "yes" : "no", moves + movers);
	printf(" migrations=%lu lost_migrations=%d holes=%lu gone=%lu sigbus=%lu\n",
	       met + movers, movers, control->ended, gone, sigbus);
	ASSERT_EQ(0, movers)
		TH_LOG("stuck: %d who move, after %lu moves and %lu holes",
		       movers, moves, control->ended);
	ASSERT_EQ(0, takers)
		TH_LOG("stuck: %d who punch or truncate, and nobody who moves",
		       takers);
	why = race_failed(&self->movers, ended) ?:
	      race_failed(&self->takers, false);
	ASSERT_EQ(NULL, why)
		TH_LOG("%s", why);
	/* Each of them: one alone would be no second one. */
	if (least_met < ENOUGH ||
	    (!variant->other_file && least_gone < ENOUGH))
		SKIP(return,
		     "inconclusive: of %lu moves %lu met a hole, and %lu pages were new after %lu holes",
		     moves, met, gone, control->ended);
}

TEST_HARNESS_MAIN
