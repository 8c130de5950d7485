// SPDX-License-Identifier: GPL-2.0
/*
 * Is a memory error in a page of a hugetlb file handled while others fault on it?
 *
 * From 5.7 to 6.0 a page fault has i_mmap_rwsem of the file, to read, when it waits
 * for the lock of the page. Who handles a memory error has the page locked when he
 * waits for i_mmap_rwsem to find the processes that are to be told. He only reads,
 * too. But who maps or unmaps the file writes, and who comes after a writer that
 * waits has to wait as well:
 *
 *	memory error		page fault		mmap(2)
 *				takes i_mmap_rwsem
 *	locks the page
 *							waits for i_mmap_rwsem
 *	waits for i_mmap_rwsem
 *				waits for the page
 *
 * Here one process poisons pages by madvise(2), others map the page that is next,
 * fault on it and unmap it, and one more maps and unmaps another page. The time
 * between the two locks of an error is short. So one of those who fault has a
 * private mapping, and stores to it: the page is locked, and i_mmap_rwsem and the
 * mutex of the page's faults are held, while it is copied. When that is done, the
 * error mostly waits for the page already, another fault for the mutex, with
 * i_mmap_rwsem held, and somebody to write. No one may be stuck.
 *
 *	page 0		1		2
 *			poisoned	poisoned, in turn
 *
 *	other_file	faults on another file: comes back on any kernel
 *	other_page	faults on page 0: comes back on any kernel
 *	shared		the others have shared mappings, and load
 *	private		all have private mappings, and store
 *	uffd		the others map the page by UFFDIO_CONTINUE, since 5.13
 *
 * After each error, when nobody faults on the page any more, it is punched out of
 * the file, and the poison is taken back. Where that cannot be, for some pages, the
 * test ends while there are huge pages left, and fails. It tries once more at the
 * end.
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
 *	HUGETLB_FAULT_POISON_LEAVE=1	where the poison cannot be taken back,
 *					leave it: up to 16 pages in each variant
 *					are lost until the next boot
 */
#include "kselftest_harness.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <numa.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_memory.h"
#include "migrate_page.h"
#include "migrate_poison.h"
#include "migrate_race.h"
#include "migrate_util.h"

/* The headers may be older. */
#ifndef UFFDIO_REGISTER_MODE_MINOR
#define UFFDIO_REGISTER_MODE_MINOR	((__u64)1 << 2)
#define UFFD_FEATURE_MINOR_HUGETLBFS	((__u64)1 << 9)
struct uffdio_continue {
	struct uffdio_range range;
	__u64 mode;
	__s64 mapped;
};

#define UFFDIO_CONTINUE	_IOWR(UFFDIO, 0x07, struct uffdio_continue)
#endif

#define NR_PAGES	3
#define NR_FAULTERS	3	/* the first one always copies */
#define SPARE		8	/* free pages: copies, and what is filled anew */
#define ENOUGH_MET	20	/* fewer errors that met a fault are no evidence */
#define MAX_SECONDS	40	/* until there are so many, on a busy machine */
#define STUCK_MS	10000
#define LEFT_MAX	16	/* where it stays of all, and how many are enough */
#define ENOUGH_LEFT	8
#define NOWHERE		-1

enum fault { LOAD, STORE, CONTINUE };

struct control {
	struct poison poison;	/* begun and ended are faults */
	int page;		/* that is poisoned next */
	int at[NR_FAULTERS];	/* the page that each has mapped, or NOWHERE */
	unsigned long stores;	/* faults, to a private mapping: mostly copies */
	unsigned long refused;	/* faults, those that found no page, or poison */
	unsigned long mapped;	/* times that another page was mapped */
};

FIXTURE(hugetlb_fault_poison)
{
	struct control *control;
	struct crew crew;
	int fd;
	int other;		/* a file that is faulted on instead */
	bool stuck;
};

FIXTURE_VARIANT(hugetlb_fault_poison)
{
	enum fault fault;
	bool other_file;
	bool other_page;
};

/* First those that come back on any kernel: after the others it is too late. */
FIXTURE_VARIANT_ADD(hugetlb_fault_poison, other_file) {
	.fault = LOAD, .other_file = true };
FIXTURE_VARIANT_ADD(hugetlb_fault_poison, other_page) {
	.fault = LOAD, .other_page = true };
FIXTURE_VARIANT_ADD(hugetlb_fault_poison, shared) {
	.fault = LOAD };
FIXTURE_VARIANT_ADD(hugetlb_fault_poison, private) {
	.fault = STORE };
FIXTURE_VARIANT_ADD(hugetlb_fault_poison, uffd) {
	.fault = CONTINUE };

static struct control *shared;
static sigjmp_buf refused;

static char *map_page(int fd, int page, int flags)
{
	return mmap(NULL, pmd_size(), PROT_READ | PROT_WRITE,
		    flags | MAP_NORESERVE, fd, page * pmd_size());
}

/* A userfaultfd for UFFDIO_CONTINUE, or an error number below zero. */
static int open_uffd(void)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_MINOR_HUGETLBFS,
	};
	int error, fd = syscall(__NR_userfaultfd, O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (!ioctl(fd, UFFDIO_API, &api))
		return fd;
	error = errno;
	close(fd);
	return -error;
}

static void no_page(int sig)
{
	siglongjmp(refused, 1);
}

/*
 * Returns whether there is a page. siglongjmp(3) may forget what is in registers,
 * so nothing here is kept over it.
 */
static bool touch(char *addr, enum fault fault)
{
	if (sigsetjmp(refused, 1))
		return false;
	if (fault == STORE)
		__atomic_store_n(addr, 1, __ATOMIC_RELAXED);
	else
		__atomic_load_n(addr, __ATOMIC_RELAXED);
	return true;
}

static void register_page(int uffd, char *addr)
{
	struct uffdio_register reg = {
		.range = { (uintptr_t)addr, pmd_size() },
		.mode = UFFDIO_REGISTER_MODE_MINOR,
	};

	if (ioctl(uffd, UFFDIO_REGISTER, &reg))
		give_up(errno);
}

/* Returns whether there is a page, as above: a poisoned one is none. */
static bool continue_page(int uffd, char *addr)
{
	struct uffdio_continue cont = {
		.range = { (uintptr_t)addr, pmd_size() },
	};

	return !ioctl(uffd, UFFDIO_CONTINUE, &cont);
}

static void fault_once(int fd, int page, enum fault fault, int uffd)
{
	char *addr = map_page(fd, page, fault == STORE ? MAP_PRIVATE : MAP_SHARED);
	bool found;

	if (addr == MAP_FAILED)
		give_up(errno);
	if (fault == CONTINUE)
		register_page(uffd, addr);
	count_up(&shared->poison.begun, 1);
	found = fault == CONTINUE ? continue_page(uffd, addr) :
		touch(addr, fault);
	count_up(&shared->poison.ended, 1);
	if (found && fault == STORE)
		count_up(&shared->stores, 1);
	munmap(addr, pmd_size());
	if (found)
		return;
	count_up(&shared->refused, 1);
	/* The kernel may have a line in its log for each that finds poison. */
	usleep(1000);
}

static __noreturn void fault_main(int fd, int nr,
				  const FIXTURE_VARIANT(hugetlb_fault_poison) *
				  variant)
{
	enum fault fault = nr ? variant->fault : STORE;
	int page, uffd = -1;

	signal(SIGBUS, no_page);
	if (fault == CONTINUE) {
		uffd = open_uffd();
		if (uffd < 0)
			give_up(-uffd);
	}
	while (!stopped()) {
		page = __atomic_load_n(&shared->page, __ATOMIC_SEQ_CST);
		__atomic_store_n(&shared->at[nr], page, __ATOMIC_SEQ_CST);
		/* Who takes the poison back may not have seen it in time. */
		if (__atomic_load_n(&shared->page, __ATOMIC_SEQ_CST) == page)
			fault_once(fd,
				   variant->other_file || variant->other_page ?
				   0 : page, fault, uffd);
		__atomic_store_n(&shared->at[nr], NOWHERE, __ATOMIC_SEQ_CST);
	}
	_exit(0);
}

/* Each mmap(2) and munmap(2) takes i_mmap_rwsem to write. */
static __noreturn void map_main(int fd)
{
	char *addr;

	while (!stopped()) {
		addr = map_page(fd, 0, MAP_SHARED);
		if (addr == MAP_FAILED)
			give_up(errno);
		munmap(addr, pmd_size());
		count_up(&shared->mapped, 1);
	}
	_exit(0);
}

/* Nobody faults on @page any more when this returns, if nobody has to stop. */
static void leave(int page, int next)
{
	int i;

	__atomic_store_n(&shared->page, next, __ATOMIC_SEQ_CST);
	for (i = 0; i < NR_FAULTERS; i++)
		while (__atomic_load_n(&shared->at[i], __ATOMIC_SEQ_CST) ==
		       page && !stopped())
			usleep(100);
}

static __noreturn void error_main(int fd)
{
	struct poison *poison = &shared->poison;
	int page = 1, next;

	while (!stopped() &&
	       poison_page(poison, fd, page, 2 * NR_FAULTERS)) {
		next = page == 1 ? 2 : 1;
		leave(page, next);
		/* Who sees it stop takes back what is poisoned. */
		if (stopped() || !poison_take_back(poison, fd, page))
			break;
		page = next;
	}
	_exit(0);
}

FIXTURE_SETUP(hugetlb_fault_poison)
{
	int i, error, nodes[2];
	const char *why;
	bool leave;
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
	why = unpoison_lacks();
	leave = why && env_long("HUGETLB_FAULT_POISON_LEAVE", 0);
	if (why && !leave)
		SKIP(return, "%s, or HUGETLB_FAULT_POISON_LEAVE=1 to leave it",
		     why);
	why = poisoned_lacks() ?:
	      nodes_lack(nodes, 1, sched_getcpu()) ?:
	      guard_lacks();
	if (why)
		SKIP(return, "%s", why);
	why = pool_lacks(nodes, 1, NR_PAGES + 1 + SPARE + LEFT_MAX);
	/* As many as were left before are got first, and are in use. */
	if (why && leave)
		why = pool_lacks(nodes, 1, NR_PAGES + 1 + SPARE + LEFT_MAX);
	why = why ?: file_lacks(&self->fd, NR_PAGES * pmd_size()) ?:
	      file_lacks(&self->other, pmd_size());
	if (why)
		SKIP(return, "%s", why);
	if (variant->fault == CONTINUE) {
		error = open_uffd();
		if (error < 0)
			SKIP(return, "no UFFDIO_CONTINUE on this kernel (since 5.13): %s",
			     strerror(-error));
		close(error);
	}
	ASSERT_EQ(0, fallocate(self->fd, 0, 0, NR_PAGES * pmd_size()));
	ASSERT_EQ(0, fallocate(self->other, 0, 0, pmd_size()));

	shared = race_begin(sizeof(*shared));
	ASSERT_NE(NULL, shared);
	self->control = shared;
	shared->poison.leave = leave;
	shared->poison.leave_max = LEFT_MAX;
	shared->page = 1;
	for (i = 0; i < NR_FAULTERS; i++)
		shared->at[i] = NOWHERE;
	for (i = 0; i < NR_FAULTERS + 2; i++) {
		int fd = variant->other_file ? self->other : self->fd;

		pid = crew_fork(&self->crew);
		ASSERT_GE(pid, 0);
		if (pid)
			continue;
		/* Who poisons stays as anybody is, and so do his children. */
		if (i == NR_FAULTERS + 1)
			error_main(self->fd);
		stay_alive();
		if (i == NR_FAULTERS)
			map_main(fd);
		fault_main(fd, i, variant);
	}
}

FIXTURE_TEARDOWN(hugetlb_fault_poison)
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

TEST_F_TIMEOUT(hugetlb_fault_poison, comes_back, 120)
{
	struct control *control = self->control;
	struct poison *poison = &control->poison;
	unsigned long enough = poison->leave ? ENOUGH_LEFT : ENOUGH_MET;
	struct race race = {
		.crew = &self->crew, .steps = &poison->errors,
		.met = &poison->met, .enough = enough,
		.max_seconds = MAX_SECONDS, .stuck_ms = STUCK_MS,
	};
	const char *why;

	race_run(&race);
	self->stuck = race.stuck;

	/* The error that is stuck has met a fault. */
	ksft_print_msg("hugetlb_fault_poison: control=%s calls=%lu failed_calls=0",
		       variant->other_file || variant->other_page ? "yes" : "no",
		       poison->errors + self->stuck);
	printf(" migrations=%lu lost_migrations=%d faults=%lu stores=%lu",
	       poison->met + self->stuck, self->stuck, poison->ended,
	       control->stores);
	printf(" refused=%lu mapped=%lu kept=%lu\n", control->refused,
	       control->mapped, poison->kept);
	/* The crew's are told by who waited for them. */
	if (self->stuck)
		poison_tell(poison);
	ASSERT_FALSE(self->stuck)
		TH_LOG("stuck: no error handled since %ld ms, after %lu errors and %lu faults",
		       ms_since(race.since), poison->errors, poison->ended);
	/* Not where poison has stayed: a skip would take the place of that. */
	if (poison->refused && !poison->kept && !race_error())
		SKIP(return, "MADV_HWPOISON does not work here: %s",
		     strerror(poison->refused));
	EXPECT_EQ(0, poison->kept)
		TH_LOG("%lu of %lu pages could not be taken back, and stay poisoned",
		       poison->kept, poison->errors);
	why = race_failed(&self->crew, race.ended && !poison->done &&
			  !poison->refused);
	ASSERT_EQ(NULL, why)
		TH_LOG("%s", why);
	/* Not after a failure: a skip would take its place. */
	if (!__test_passed(_metadata))
		return;
	if (poison->met < enough || control->stores < ENOUGH_MET ||
	    control->mapped < ENOUGH_MET)
		SKIP(return, "inconclusive: %lu of %lu met by %lu faults; %lu stores, %lu maps",
		     poison->met, poison->errors, poison->ended,
		     control->stores, control->mapped);
}

TEST_HARNESS_MAIN
