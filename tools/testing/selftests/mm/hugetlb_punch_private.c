// SPDX-License-Identifier: GPL-2.0
/*
 * Can a hole be punched into a hugetlb file, or its end cut off, while somebody
 * uses a private mapping of it?
 *
 * A page of a hole is unmapped from each mapping, with its hugetlb VMA lock
 * held. A private mapping has a lock of another kind: it is in the reservation
 * map, while that of a shared mapping is in a struct of its own. If the kernel
 * does not get the lock at once, it waits for it without i_mmap_rwsem, and
 * needs a reference to what the lock is in. If it takes a private lock for a
 * shared one then, the reference is counted somewhere in the reservation map:
 *
 *	hole punch			private mapping
 *					fault on another page, has the lock
 *	tries to get the lock, in vain
 *	counts a reference to what it
 *	takes for the lock
 *					unlocks, looks at its reservations:
 *					spins for good, or worse
 *
 * Here one process fills the last page of a file and punches a hole there, or
 * truncates the file and makes it as long as before, in a loop. Another one has
 * a private mapping. A thread of it reads the last page, and others write to the
 * other pages and give them back, so that its lock is busy. No one may be stuck,
 * and whoever reads the last page must find what was written there, or nothing,
 * or get SIGBUS while the file is short.
 *
 * Environment:
 *	HUGETLB_PMD_CHURN=1		run it at all: a kernel that has the
 *					defect crashes; not for machines that do
 *					work
 */
#include "kselftest_harness.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <numa.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "migrate_util.h"
#include "vm_util.h"

#define NR_PAGES	8
#define LAST		(NR_PAGES - 1)	/* the page that goes */
#define NR_WRITERS	2
#define SPARE		6	/* free pages, for what is copied and filled */
#define SECONDS		10
#define ENOUGH		50	/* fewer punches or reads are no evidence */
#define STUCK_MS	20000
#define MAGIC		0x70756e6368ull	/* "punch" */

struct control {
	unsigned int stop;
	unsigned long punches;
	unsigned long reads;
	unsigned long found;	/* reads that found what was written */
	unsigned long writes;
	unsigned long strange;	/* what was read and never written */
	unsigned long sigbus;	/* reads beyond the end of the file */
	int error;		/* of a call that failed */
};

FIXTURE(hugetlb_punch_private)
{
	struct control *control;
	struct crew crew;
	int fd;
	bool stuck;
};

FIXTURE_VARIANT(hugetlb_punch_private)
{
	bool truncate;
};

FIXTURE_VARIANT_ADD(hugetlb_punch_private, hole) {
	.truncate = false };
FIXTURE_VARIANT_ADD(hugetlb_punch_private, truncate) {
	.truncate = true };

static struct control *shared;
static char *mapping;		/* of the process that runs */
static sigjmp_buf beyond;

static bool stopped(void)
{
	return __atomic_load_n(&shared->stop, __ATOMIC_ACQUIRE);
}

static __noreturn void give_up(int error)
{
	crew_give_up(&shared->error, error);
}

static bool take_page(int fd, bool truncate)
{
	if (!truncate)
		return !fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				  LAST * pmd_size(), pmd_size());
	return !ftruncate(fd, LAST * pmd_size()) &&
	       !ftruncate(fd, NR_PAGES * pmd_size());
}

/* Fill the last page and take it from the file. */
static __noreturn void punch_main(int fd, bool truncate)
{
	uint64_t *word;

	mapping = mmap(NULL, pmd_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		       LAST * pmd_size());
	if (mapping == MAP_FAILED)
		give_up(errno);
	word = (uint64_t *)mapping;
	while (!stopped()) {
		__atomic_store_n(word, MAGIC, __ATOMIC_RELEASE);
		/* So that somebody maps it meanwhile. */
		sched_yield();
		if (!take_page(fd, truncate))
			give_up(errno);
		count_up(&shared->punches, 1);
	}
	_exit(0);
}

static void *write_others(void *arg)
{
	long nr = (long)arg;
	int page = 0;

	while (!stopped()) {
		char *addr = mapping + page * pmd_size();

		__atomic_store_n(addr + nr * 64, 1, __ATOMIC_RELAXED);
		if (madvise(addr, pmd_size(), MADV_DONTNEED))
			give_up(errno);
		page = (page + 1) % LAST;
		count_up(&shared->writes, 1);
	}
	return NULL;
}

static void on_sigbus(int sig)
{
	siglongjmp(beyond, 1);
}

/*
 * Returns whether there is a page. siglongjmp(3) may forget what is in registers,
 * so nothing here is kept over it.
 */
static bool read_last(uint64_t *found)
{
	if (sigsetjmp(beyond, 1))
		return false;
	*found = __atomic_load_n((uint64_t *)(mapping + LAST * pmd_size()),
				 __ATOMIC_ACQUIRE);
	return true;
}

static __noreturn void private_main(int fd, bool truncate)
{
	struct sigaction act = { .sa_handler = on_sigbus };
	pthread_t threads[NR_WRITERS];
	uint64_t found;
	sigset_t set;
	long i;

	mapping = mmap(NULL, NR_PAGES * pmd_size(), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE, fd, 0);
	if (mapping == MAP_FAILED)
		give_up(errno);
	/* It is for the thread that reads: the others touch what is always there. */
	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	for (i = 0; i < NR_WRITERS; i++)
		if (pthread_create(&threads[i], NULL, write_others, (void *)i))
			give_up(EAGAIN);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	if (truncate)
		sigaction(SIGBUS, &act, NULL);
	while (!stopped()) {
		count_up(&shared->reads, 1);
		if (!read_last(&found)) {
			count_up(&shared->sigbus, 1);
			continue;
		}
		if (found == MAGIC)
			count_up(&shared->found, 1);
		else if (found)
			count_up(&shared->strange, 1);
		/* In a hole it has got a page of its own: give that back. */
		if (!found && madvise(mapping + LAST * pmd_size(), pmd_size(),
				      MADV_DONTNEED))
			give_up(errno);
	}
	for (i = 0; i < NR_WRITERS; i++)
		pthread_join(threads[i], NULL);
	_exit(0);
}

FIXTURE_SETUP(hugetlb_punch_private)
{
	int i, nodes[2];
	const char *why;
	pid_t pid;
	char *addr;

	self->fd = -1;
	if (geteuid())
		SKIP(return, "needs root, for the huge page pool");
	why = churn_lacks("may crash a kernel that has the defect") ?:
	      nodes_lack(nodes, 1, sched_getcpu()) ?:
	      guard_lacks() ?:
	      pool_lacks(nodes, 1, 2 * NR_PAGES + SPARE) ?:
	      file_lacks(&self->fd, NR_PAGES * pmd_size());
	if (why)
		SKIP(return, "%s", why);

	addr = mmap(NULL, pmd_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE,
		    self->fd, 0);
	ASSERT_NE(MAP_FAILED, addr);
	if (madvise(addr, pmd_size(), MADV_DONTNEED))
		SKIP(munmap(addr, pmd_size()); return,
		     "no MADV_DONTNEED of huge pages on this kernel (since 5.18)");
	munmap(addr, pmd_size());

	shared = share_memory(sizeof(*shared));
	ASSERT_NE(NULL, shared);
	self->control = shared;
	for (i = 0; i < 2; i++) {
		pid = crew_fork(&self->crew);
		ASSERT_GE(pid, 0);
		if (pid)
			continue;
		if (i)
			private_main(self->fd, variant->truncate);
		punch_main(self->fd, variant->truncate);
	}
}

FIXTURE_TEARDOWN(hugetlb_punch_private)
{
	const char *why;

	if (!crew_kill(&self->crew, STUCK_MS))
		self->stuck = true;
	if (self->fd >= 0)
		close(self->fd);
	/* The guardian must not wait for those who are stuck. */
	why = guard_end(!self->stuck);
	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
}

TEST_F_TIMEOUT(hugetlb_punch_private, comes_back, 120)
{
	struct control *control = self->control;
	unsigned long *counters[] = { &control->punches, &control->reads,
				      &control->writes };
	static const char * const names[] = { "punches", "reads", "writes" };
	unsigned long last[3] = {}, since[3], start = cycles_clock(), now;
	bool ended = false;
	int i, first = 0;

	for (i = 0; i < 3; i++)
		since[i] = start;
	while (!ended && ms_since(start) < SECONDS * 1000) {
		usleep(10 * 1000);
		for (i = 0; i < 3; i++) {
			now = __atomic_load_n(counters[i], __ATOMIC_ACQUIRE);
			if (now != last[i])
				since[i] = cycles_clock();
			last[i] = now;
		}
		ended = crew_ended(&self->crew);
	}
	__atomic_store_n(&control->stop, 1, __ATOMIC_RELEASE);
	if (!crew_wait(&self->crew, STUCK_MS)) {
		self->stuck = true;
		for (i = 1; i < 3; i++)
			if (since[i] < since[first])
				first = i;
	}

	ksft_print_msg("hugetlb_punch_private: control=no");
	printf(" calls=%lu failed_calls=0 migrations=%lu lost_migrations=%d",
	       control->punches, control->punches, self->stuck);
	printf(" reads=%lu found=%lu writes=%lu sigbus=%lu\n", control->reads,
	       control->found, control->writes, control->sigbus);
	ASSERT_FALSE(self->stuck)
		TH_LOG("stuck: %lu holes, %lu reads, %lu writes, first no more %s",
		       control->punches, control->reads, control->writes,
		       names[first]);
	ASSERT_EQ(0, control->error)
		TH_LOG("a call failed: %s", strerror(control->error));
	ASSERT_FALSE(ended)
		TH_LOG("a process died");
	ASSERT_EQ(0, crew_failed(&self->crew))
		TH_LOG("a process died");
	EXPECT_EQ(0, control->strange)
		TH_LOG("%lu reads found what was never written there",
		       control->strange);
	/* Not after a failure: a skip would take its place. */
	if (!control->strange &&
	    (control->punches < ENOUGH || control->found < ENOUGH ||
	     control->writes < ENOUGH))
		SKIP(return,
		     "inconclusive: %lu holes, %lu reads of what was there before, %lu writes",
		     control->punches, control->found, control->writes);
}

TEST_HARNESS_MAIN
