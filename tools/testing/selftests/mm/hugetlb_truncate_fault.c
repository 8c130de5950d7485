// SPDX-License-Identifier: GPL-2.0
/*
 * Is a page that is faulted in while a hugetlb file is truncated gone after it?
 *
 * A page fault looks at the size of the file, and then gets a page and clears
 * it, which takes a while. Truncation sets the size, unmaps what is behind it,
 * and takes the pages there out of the file. If it does not wait for a fault
 * that has seen the old size, the page comes after all that, and is left past
 * the end:
 *
 *	fault				truncation
 *	looks at the size
 *	gets a page, clears it		sets the size, unmaps, removes pages,
 *					gives reservations back
 *	adds the page to the file,
 *	and maps it
 *
 * The reservation that the fault has used is given back once more: fewer pages
 * are counted as reserved than are. In the end HugePages_Rsvd is less than zero,
 * and who has reserved huge pages may not get them.
 *
 * Here one thread stores to the last page of a file, and another one cuts that
 * page off, a little later each time, so that the two meet in all ways. Then
 * the page must not be there any more. In a private mapping the page is not in
 * the file, but must not be there either.
 *
 * In the variant copy, the page was copied for a private mapping long before.
 * Others fault on other pages of this mapping all the time. A truncation that
 * unmaps only what it can lock at once leaves the copy where it is.
 *
 * Environment:
 *	HUGETLB_PMD_CHURN=1		run it at all: on a kernel that has the
 *					defect the number of reserved huge pages
 *					is wrong until the next boot
 */
#include "kselftest_harness.h"

#include <fcntl.h>
#include <numa.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "migrate_util.h"
#include "vm_util.h"

#define NR_PAGES	8
#define LAST		(NR_PAGES - 1)	/* the page that goes */
#define NR_WRITERS	2
#define SPARE		6	/* free pages, for what is copied */
#define ROUNDS		400
#define STEPS		40	/* moments at which the file is cut */
#define LONGEST		4	/* that a fault may take, of what it took alone */
#define ENOUGH		20	/* fewer rounds of a kind are no evidence */
#define STUCK_MS	20000

struct control {
	uint32_t round;		/* of the thread that stores */
	uint32_t stored;	/* the last round that it is done with */
	uint32_t stop;
	bool has_page;		/* whether it found a page in that round */
	unsigned long rounds;
	unsigned long met;	/* rounds in which it did, after the cut began */
	unsigned long left;	/* in which the page is there after the cut */
	unsigned long in_file;	/* in which it is in the file, too */
	unsigned long writes;	/* by those who keep the lock busy */
	int error;		/* of a call that failed */
};

FIXTURE(hugetlb_truncate_fault)
{
	struct control *control;
	struct crew crew;
	long reserved;
	int fd;
};

FIXTURE_VARIANT(hugetlb_truncate_fault)
{
	int flags;
	bool copy;	/* the page is there before, and others fault */
	bool control;	/* nobody faults meanwhile */
};

FIXTURE_VARIANT_ADD(hugetlb_truncate_fault, alone) {
	.flags = MAP_SHARED, .control = true };
FIXTURE_VARIANT_ADD(hugetlb_truncate_fault, copy) {
	.flags = MAP_PRIVATE, .copy = true };
FIXTURE_VARIANT_ADD(hugetlb_truncate_fault, private) {
	.flags = MAP_PRIVATE };
/* The last, for after it no huge pages may be had. */
FIXTURE_VARIANT_ADD(hugetlb_truncate_fault, shared) {
	.flags = MAP_SHARED };

static struct control *shared;
static char *mapping;		/* of the process that runs, in this round */
static __thread sigjmp_buf beyond;

static __noreturn void give_up(int error)
{
	crew_give_up(&shared->error, error);
}

static bool stopped(void)
{
	return __atomic_load_n(&shared->stop, __ATOMIC_ACQUIRE);
}

static void on_sigbus(int sig)
{
	siglongjmp(beyond, 1);
}

/*
 * Returns whether there is a page. siglongjmp(3) may forget what is in registers,
 * so nothing here is kept over it.
 */
static bool store_to(char *addr)
{
	if (sigsetjmp(beyond, 1))
		return false;
	__atomic_store_n(addr, 1, __ATOMIC_RELAXED);
	return true;
}

static void *store_last(void *arg)
{
	uint32_t round = 0;

	while (!stopped()) {
		/* A wakeup would come at any time: spin. */
		if (__atomic_load_n(&shared->round, __ATOMIC_ACQUIRE) == round)
			continue;
		round++;
		shared->has_page = store_to(mapping + LAST * pmd_size());
		__atomic_store_n(&shared->stored, round, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void *write_others(void *arg)
{
	long page = (long)arg;
	char *addr;

	while (!stopped()) {
		addr = mapping + page * pmd_size();
		__atomic_store_n(addr, 1, __ATOMIC_RELAXED);
		if (madvise(addr, pmd_size(), MADV_DONTNEED))
			give_up(errno);
		count_up(&shared->writes, 1);
	}
	return NULL;
}

static void map_file(int fd, int flags)
{
	mapping = mmap(NULL, NR_PAGES * pmd_size(), PROT_READ | PROT_WRITE,
		       flags, fd, 0);
	if (mapping == MAP_FAILED)
		give_up(errno);
}

/* The file without a page, and as long as it was. */
static void make_anew(int fd)
{
	if (ftruncate(fd, 0) || ftruncate(fd, NR_PAGES * pmd_size()))
		give_up(errno);
}

/* How long it takes to fault the last page in, in nanoseconds: about. */
static uint64_t fault_time(int fd, int flags)
{
	uint64_t start, least = UINT64_MAX;
	int i;

	for (i = 0; i < 5; i++) {
		make_anew(fd);
		map_file(fd, flags);
		start = cycles_clock();
		if (!store_to(mapping + LAST * pmd_size()))
			give_up(EFAULT);
		least = MIN(least, cycles_clock() - start);
		munmap(mapping, NR_PAGES * pmd_size());
	}
	return least;
}

static void look(int fd)
{
	struct stat status;

	if (fstat(fd, &status))
		give_up(errno);
	if (store_to(mapping + LAST * pmd_size()))
		shared->left++;
	if (status.st_blocks)
		shared->in_file++;
	shared->rounds++;
}

/* Nobody else has the file, or its last page, so nobody may keep that page. */
static void cut_while_faulting(int fd, int flags, bool alone)
{
	uint64_t whole = fault_time(fd, flags), start;
	pthread_t thread;
	uint32_t i;
	bool over;

	if (pthread_create(&thread, NULL, store_last, NULL))
		give_up(EAGAIN);
	for (i = 0; i < ROUNDS; i++) {
		make_anew(fd);
		map_file(fd, flags);
		start = cycles_clock();
		__atomic_store_n(&shared->round, i + 1, __ATOMIC_RELEASE);
		while (alone ? __atomic_load_n(&shared->stored,
					       __ATOMIC_ACQUIRE) != i + 1 :
		       cycles_clock() - start <
		       whole * LONGEST * (i % STEPS) / STEPS)
			;
		over = __atomic_load_n(&shared->stored, __ATOMIC_ACQUIRE) ==
		       i + 1;
		if (ftruncate(fd, LAST * pmd_size()))
			give_up(errno);
		while (__atomic_load_n(&shared->stored, __ATOMIC_ACQUIRE) !=
		       i + 1)
			;
		/* Then it has looked at the size before that was set. */
		shared->met += !over && shared->has_page;
		look(fd);
		munmap(mapping, NR_PAGES * pmd_size());
	}
	__atomic_store_n(&shared->stop, 1, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
}

static void cut_copies(int fd)
{
	pthread_t threads[NR_WRITERS];
	long i;

	make_anew(fd);
	map_file(fd, MAP_PRIVATE);
	for (i = 0; i < NR_WRITERS; i++)
		if (pthread_create(&threads[i], NULL, write_others, (void *)i))
			give_up(EAGAIN);
	for (i = 0; i < ROUNDS; i++) {
		if (!store_to(mapping + LAST * pmd_size()))
			give_up(EFAULT);
		if (ftruncate(fd, LAST * pmd_size()))
			give_up(errno);
		look(fd);
		if (ftruncate(fd, NR_PAGES * pmd_size()) ||
		    madvise(mapping + LAST * pmd_size(), pmd_size(),
			    MADV_DONTNEED))
			give_up(errno);
	}
	__atomic_store_n(&shared->stop, 1, __ATOMIC_RELEASE);
	for (i = 0; i < NR_WRITERS; i++)
		pthread_join(threads[i], NULL);
	munmap(mapping, NR_PAGES * pmd_size());
}

/* Of the size that pmd_size() says. What is below zero is written as unsigned. */
static long reserved_pages(void)
{
	char path[128], text[32];

	snprintf(path, sizeof(path),
		 "/sys/kernel/mm/hugepages/hugepages-%zukB/resv_hugepages",
		 pmd_size() >> 10);
	if (file_read(path, text, sizeof(text)) < 0)
		return 0;
	return (long)strtoul(text, NULL, 10);
}

FIXTURE_SETUP(hugetlb_truncate_fault)
{
	struct sigaction act = { .sa_handler = on_sigbus };
	const char *allow = getenv("HUGETLB_PMD_CHURN");
	const char *why;
	int nodes[2];
	pid_t pid;
	char *addr;

	self->fd = -1;
	if (geteuid())
		SKIP(return, "needs root, for the huge page pool");
	if (!allow || strcmp(allow, "1"))
		SKIP(return,
		     "may leave a wrong number of reserved huge pages: HUGETLB_PMD_CHURN=1 runs it, not on a machine that does work");
	why = nodes_lack(nodes, 1, sched_getcpu());
	if (why)
		SKIP(return, "%s", why);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	why = guard_lacks();
	if (why)
		SKIP(return, "%s", why);
	why = pool_lacks(nodes, 1, NR_PAGES + SPARE);
	if (why)
		SKIP(return, "%s", why);
	self->reserved = reserved_pages();
	self->fd = hugetlbfs_open(NR_PAGES * pmd_size());
	if (self->fd < 0)
		SKIP(return, "cannot mount hugetlbfs in /tmp: %s",
		     strerror(-self->fd));
	if (variant->copy) {
		addr = mmap(NULL, pmd_size(), PROT_READ | PROT_WRITE,
			    MAP_PRIVATE, self->fd, 0);
		ASSERT_NE(MAP_FAILED, addr);
		if (madvise(addr, pmd_size(), MADV_DONTNEED))
			SKIP(munmap(addr, pmd_size()); return,
			     "no MADV_DONTNEED of huge pages on this kernel (since 5.18)");
		munmap(addr, pmd_size());
	}

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, shared);
	self->control = shared;
	pid = crew_fork(&self->crew);
	ASSERT_GE(pid, 0);
	if (pid)
		return;
	sigaction(SIGBUS, &act, NULL);
	if (variant->copy)
		cut_copies(self->fd);
	else
		cut_while_faulting(self->fd, variant->flags, variant->control);
	if (ftruncate(self->fd, 0))
		give_up(errno);
	_exit(0);
}

FIXTURE_TEARDOWN(hugetlb_truncate_fault)
{
	bool gone = crew_kill(&self->crew, STUCK_MS);

	if (self->fd >= 0)
		close(self->fd);
	/* The guardian must not wait for those who are stuck. */
	if (gone)
		guard_stop();
	else
		guard_leave();
}

TEST_F_TIMEOUT(hugetlb_truncate_fault, is_gone, 180)
{
	struct control *control = self->control;
	bool gone = crew_wait(&self->crew, 120 * 1000);

	ksft_print_msg("hugetlb_truncate_fault: control=%s",
		       variant->control ? "yes" : "no");
	printf(" calls=%lu failed_calls=0 migrations=%lu lost_migrations=%lu",
	       control->rounds, control->rounds, control->left);
	printf(" met=%lu in_file=%lu writes=%lu reserved=%+ld\n",
	       control->met, control->in_file, control->writes,
	       reserved_pages() - self->reserved);
	ASSERT_TRUE(gone)
		TH_LOG("a process does not end after %lu rounds",
		       control->rounds);
	ASSERT_EQ(0, control->error)
		TH_LOG("a call failed: %s", strerror(control->error));
	ASSERT_EQ(0, self->crew.status[0]);
	EXPECT_EQ(0, control->left)
		TH_LOG("%lu times of %lu there is a page past the end of the file",
		       control->left, control->rounds);
	EXPECT_EQ(0, control->in_file)
		TH_LOG("%lu times the file has such a page", control->in_file);
	/* Not after a failure: a skip would take its place. */
	if (control->left || control->in_file)
		return;
	if (variant->copy && control->writes < ENOUGH)
		SKIP(return, "inconclusive: %lu faults meanwhile",
		     control->writes);
	if (!variant->copy && !variant->control && control->met < ENOUGH)
		SKIP(return,
		     "inconclusive: a fault and a truncation met %lu times",
		     control->met);
}

TEST_HARNESS_MAIN
