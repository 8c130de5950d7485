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
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_memory.h"
#include "migrate_page.h"
#include "migrate_util.h"
#include "vm_util.h"

#define NR_PAGES	5
#define NR_HOLDERS	2	/* of i_mmap_rwsem */
#define SPARE		6	/* free pages, for what is filled anew */
#define ENOUGH_MET	20	/* fewer errors that met a hole are no evidence */
#define MAX_SECONDS	40	/* until there are so many, on a busy machine */
#define STUCK_MS	10000
#define UNPOISON_TRIES	100	/* of 1 ms, until nobody has a reference */
#define KEPT_MAX	3	/* pages whose poison stays: fewer than SPARE */

#define REFUSED		2	/* exit status of who cannot poison */

enum hole { MIDDLE, START, ACROSS, WHOLE };

struct control {
	unsigned int stop;
	int page;		/* that is poisoned next, and punched */
	unsigned long begun;	/* holes */
	unsigned long ended;
	unsigned long held;	/* times that i_mmap_rwsem was taken */
	unsigned long errors;	/* that were handled */
	unsigned long met;	/* of them, those that a hole met */
	unsigned long kept;	/* of them, those whose poison is still there */
	int64_t kept_pfns[KEPT_MAX];
	pid_t poisoner;		/* in madvise(), or 0 */
	int64_t pfn;		/* that is poisoned, or 0 */
	bool met_one;		/* by the last error */
	int refused;		/* errno of madvise() */
	int error;		/* of another call that failed */
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
static bool poisons;

static bool stopped(void)
{
	return __atomic_load_n(&shared->stop, __ATOMIC_ACQUIRE);
}

static __noreturn void give_up(int error)
{
	crew_give_up(&shared->error, error);
}

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
		count_up(&shared->begun, 1);
		if (!punch(fd, page, variant->hole))
			give_up(errno);
		count_up(&shared->ended, 1);
		if (addr)
			munmap(addr, pmd_size());
	}
	_exit(0);
}

/*
 * To change the protection of a mapping, i_mmap_rwsem is held while all of its page
 * table is walked. What covers no PUD shares no table, and keeps that.
 */
static __noreturn void hold_main(int fd)
{
	size_t size = pud_size() - pmd_size();
	char *addr = reserve_puds(1);

	if (!addr)
		give_up(ENOMEM);
	addr = mmap(addr, size, PROT_READ, MAP_SHARED | MAP_FIXED | MAP_NORESERVE,
		    fd, 0);
	if (addr == MAP_FAILED)
		give_up(errno);
	/* The table is there from now on. Nobody poisons this page. */
	__atomic_load_n(addr, __ATOMIC_RELAXED);
	while (!stopped()) {
		if (mprotect(addr, size, PROT_READ | PROT_WRITE) ||
		    mprotect(addr, size, PROT_READ))
			give_up(errno);
		count_up(&shared->held, 2);
	}
	_exit(0);
}

/*
 * Where vm.memory_failure_early_kill is set, an error ends all who map the page,
 * whether they have touched it or not. Not for those who call this.
 */
static void stay_alive(void)
{
	if (prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_LATE, 0, 0))
		give_up(errno);
}

static void sigbus(int sig)
{
	/* From 6.9 on, who poisons a page of his own is told so by SIGBUS. */
	if (!poisons)
		_exit(1);
}

/*
 * Poison a page, in a process of its own: it may be killed for it. Nothing else
 * kills it, so that the error was handled in any case.
 */
static __noreturn void poison_main(int fd, int page)
{
	unsigned long begun, ended;
	char *addr = map_page(fd, page);
	int64_t pfn;
	int ret;

	if (addr == MAP_FAILED)
		give_up(errno);
	signal(SIGBUS, sigbus);
	__atomic_store_n(addr, 1, __ATOMIC_RELAXED);
	pfn = page_pfn(0, addr);
	if (pfn <= 0)
		give_up(-pfn);

	/* The first hole from now on may be the end of one in another page. */
	begun = counted(&shared->begun);
	while (counted(&shared->begun) < begun + 2) {
		if (stopped())
			_exit(1);
		usleep(100);
	}
	begun = counted(&shared->begun);
	ended = counted(&shared->ended);
	/*
	 * One that had not ended by now meets the error, or one that comes. That
	 * is all that can be seen from here: with one CPU, it may be one that was
	 * preempted with no lock held, and then it has met nothing.
	 */
	shared->met_one = ended < begun;
	shared->pfn = pfn;
	__atomic_store_n(&shared->poisoner, getpid(), __ATOMIC_RELEASE);
	poisons = true;
	ret = madvise(addr, psize(), MADV_HWPOISON);
	/* Busy: it is poisoned, but was not taken from who maps it, or is in use. */
	if (ret && errno != EBUSY) {
		shared->refused = errno;
		shared->pfn = 0;
		_exit(REFUSED);
	}
	if (counted(&shared->begun) != begun)
		shared->met_one = true;
	_exit(0);
}

/* Returns whether the page is as any other again. */
static bool take_back(int fd, int page)
{
	int tries;

	/* Not as long as the file has the page. */
	if (!punch_range(fd, page * pmd_size(), pmd_size()))
		give_up(errno);
	for (tries = 0; tries < UNPOISON_TRIES; tries++) {
		if (!pfn_unpoison(shared->pfn))
			return true;
		usleep(1000);
	}
	return false;
}

static __noreturn void error_main(int fd)
{
	int status, page = 1;
	pid_t pid;

	while (!stopped()) {
		__atomic_store_n(&shared->page, page, __ATOMIC_RELEASE);
		pid = fork();
		if (pid < 0)
			give_up(errno);
		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			poison_main(fd, page);
		}
		if (waitpid(pid, &status, 0) != pid)
			give_up(errno);
		__atomic_store_n(&shared->poisoner, 0, __ATOMIC_RELEASE);
		if (shared->error)
			give_up(shared->error);
		if (WIFEXITED(status) && WEXITSTATUS(status) == REFUSED)
			break;
		if (shared->pfn) {
			count_up(&shared->errors, 1);
			if (shared->met_one)
				count_up(&shared->met, 1);
			if (!take_back(fd, page)) {
				shared->kept_pfns[shared->kept] = shared->pfn;
				count_up(&shared->kept, 1);
			}
			shared->pfn = 0;
			if (shared->kept == KEPT_MAX)
				break;
		}
		page = page == 1 ? 3 : 1;
	}
	_exit(0);
}

FIXTURE_SETUP(hugetlb_punch_poison)
{
	int i, nodes[2];
	const char *why;
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

	shared = share_memory(sizeof(*shared));
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
		hold_main(self->fd);
	}
}

/* Once more, now that nobody has the file: a page that stays poisoned is lost. */
static void take_back_kept(const struct control *control)
{
	unsigned long i;
	int ret;

	if (control->pfn)
		pfn_unpoison(control->pfn);
	for (i = 0; i < control->kept; i++) {
		ret = pfn_unpoison(control->kept_pfns[i]);
		if (ret)
			ksft_print_msg("page frame %#llx stays poisoned: %s\n",
				       (unsigned long long)control->kept_pfns[i],
				       strerror(-ret));
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
		take_back_kept(self->control);
	/* The guardian must not wait for those who are stuck. */
	why = guard_end(!self->stuck);
	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
}

/* The others are told of already. */
static void tell_poisoner(FIXTURE_DATA(hugetlb_punch_poison) * self)
{
	pid_t pid = __atomic_load_n(&self->control->poisoner, __ATOMIC_ACQUIRE);

	if (pid)
		tell_where(pid);
}

TEST_F_TIMEOUT(hugetlb_punch_poison, comes_back, 120)
{
	struct control *control = self->control;
	unsigned long start = cycles_clock(), since = start, last = 0, now;
	bool ended = false;

	while (!ended && ms_since(start) < MAX_SECONDS * 1000 &&
	       ms_since(since) < STUCK_MS &&
	       counted(&control->met) < ENOUGH_MET) {
		usleep(10 * 1000);
		now = counted(&control->errors);
		if (now != last)
			since = cycles_clock();
		last = now;
		ended = crew_ended(&self->crew);
	}
	/* Stuck is who does not end: no error for long may be a busy machine. */
	__atomic_store_n(&control->stop, 1, __ATOMIC_RELEASE);
	self->stuck = !crew_wait(&self->crew, STUCK_MS);

	/* The error that is stuck has met a hole. */
	ksft_print_msg("hugetlb_punch_poison: control=%s calls=%lu failed_calls=0",
		       variant->other_file || variant->other_page ? "yes" : "no",
		       control->errors + self->stuck);
	printf(" migrations=%lu lost_migrations=%d holes=%lu held=%lu kept=%lu\n",
	       control->met + self->stuck, self->stuck, control->ended,
	       control->held, control->kept);
	if (self->stuck)
		tell_poisoner(self);
	ASSERT_FALSE(self->stuck)
		TH_LOG("stuck: no error handled since %ld ms, after %lu errors and %lu holes",
		       ms_since(since), control->errors, control->ended);
	/* Poison that stays is a failure, also where there is no more of it. */
	if (control->refused && !control->kept)
		SKIP(return, "MADV_HWPOISON does not work here: %s",
		     strerror(control->refused));
	ASSERT_EQ(0, control->error)
		TH_LOG("a call failed: %s", strerror(control->error));
	EXPECT_EQ(0, control->kept)
		TH_LOG("%lu of %lu pages could not be taken back, and stay poisoned",
		       control->kept, control->errors);
	/* Who poisons has ended by itself when there were too many, or no more. */
	ASSERT_FALSE(ended && control->kept < KEPT_MAX && !control->refused)
		TH_LOG("a process died");
	ASSERT_EQ(0, crew_failed(&self->crew))
		TH_LOG("a process died");
	/* Not after a failure: a skip would take its place. */
	if (!__test_passed(_metadata))
		return;
	if (control->met < ENOUGH_MET || control->held < ENOUGH_MET)
		SKIP(return, "inconclusive: %lu of %lu errors met by %lu holes",
		     control->met, control->errors, control->ended);
}

TEST_HARNESS_MAIN
