// SPDX-License-Identifier: GPL-2.0
/*
 * Is a page that is faulted in while a hugetlb file is truncated gone after it?
 *
 * A page fault looks at the size of the file, and then gets a page and clears
 * it, which takes a while. Truncation sets the size, unmaps what is past it,
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
 * and who has reserved huge pages may not get them. Here the file is in a mount
 * with a size, which counts in the same way, and nobody else uses: all its pages
 * must be free after each round.
 *
 * One thread stores to the last page of a file, and another one cuts that page
 * off, a little later each time, so that the two meet in all ways. Then the page
 * must not be there any more. In a private mapping the page is not in the file,
 * but must not be there either. And UFFDIO_COPY is a page fault of its own.
 *
 * Where that is late, the file has pages, and the fault comes after the cut has
 * begun, a little later each time: when truncation has unmapped what is past the
 * end, and takes the first of the pages out of the file. It may find the last page
 * there, and copy it for a private mapping. UFFDIO_COPY may use a reservation that
 * is about to be given back.
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
#include <linux/userfaultfd.h>
#include <numa.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_page.h"
#include "migrate_race.h"
#include "migrate_util.h"
#include "vm_util.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY	1
#endif

#define NR_PAGES	8
#define LAST		(NR_PAGES - 1)	/* the page that goes */
#define NR_WRITERS	2
#define SPARE		6	/* free pages, for what is copied */
#define MOUNT_PAGES	(NR_PAGES + SPARE)
#define ROUNDS		400
#define STEPS		40	/* moments at which the file is cut */
#define LONGEST		4	/* that a fault may take, of what it took alone */
#define ENOUGH		20	/* fewer rounds of a kind are no evidence */
#define STUCK_MS	20000

struct control {
	uint32_t round;		/* of the thread that stores */
	uint32_t stored;	/* the last round that it is done with */
	uint64_t delay;		/* before it stores, in nanoseconds */
	uint64_t began, ended;	/* when it stored in that round */
	bool has_page;		/* whether it found a page then */
	unsigned long rounds;
	unsigned long met;	/* rounds in which it did, after the cut began */
	unsigned long bad;	/* with any of the three below */
	unsigned long left;	/* in which the page is there after the cut */
	unsigned long in_file;	/* in which it is in the file, too */
	unsigned long astray;	/* after which the mount counts otherwise */
	unsigned long writes;	/* by those who keep the lock busy */
};

FIXTURE(hugetlb_truncate_fault)
{
	struct control *control;
	struct crew crew;
	long reserved;
	int dir;	/* of the mount */
	int fd;
	int uffd;
	char *source;	/* of UFFDIO_COPY */
};

FIXTURE_VARIANT(hugetlb_truncate_fault)
{
	int flags;
	bool copy;	/* the page is there before, and others fault */
	bool late;	/* after the cut has begun; the file has pages */
	bool uffd;	/* UFFDIO_COPY, and no store; in turn late and not */
	bool control;	/* nobody faults meanwhile */
};

FIXTURE_VARIANT_ADD(hugetlb_truncate_fault, alone) {
	.flags = MAP_SHARED, .control = true };
FIXTURE_VARIANT_ADD(hugetlb_truncate_fault, copy) {
	.flags = MAP_PRIVATE, .copy = true };
FIXTURE_VARIANT_ADD(hugetlb_truncate_fault, private) {
	.flags = MAP_PRIVATE };
FIXTURE_VARIANT_ADD(hugetlb_truncate_fault, private_late) {
	.flags = MAP_PRIVATE | MAP_NORESERVE, .late = true };
/* The last, for after these no huge pages may be had. */
FIXTURE_VARIANT_ADD(hugetlb_truncate_fault, shared) {
	.flags = MAP_SHARED };
FIXTURE_VARIANT_ADD(hugetlb_truncate_fault, uffd) {
	.flags = MAP_SHARED | MAP_NORESERVE, .uffd = true };

static struct control *shared;
static char *mapping;		/* of the process that runs, in this round */
static __thread sigjmp_buf beyond;

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

/* Returns whether it has put a page there: -ENOENT and the like are no page. */
static bool copy_to(int uffd, char *addr, const char *source)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)addr,
		.src = (uintptr_t)source,
		.len = pmd_size(),
	};

	return !ioctl(uffd, UFFDIO_COPY, &copy);
}

static void *fault_last(void *arg)
{
	const FIXTURE_DATA(hugetlb_truncate_fault) * self = arg;
	uint32_t round = 0;
	char *last;

	while (!stopped()) {
		/* A wakeup would come at any time: spin. */
		if (__atomic_load_n(&shared->round, __ATOMIC_ACQUIRE) == round)
			continue;
		round++;
		last = mapping + LAST * pmd_size();
		shared->began = cycles_clock();
		while (cycles_clock() - shared->began < shared->delay)
			;
		shared->began = cycles_clock();
		shared->has_page = self->uffd < 0 ? store_to(last) :
				   copy_to(self->uffd, last, self->source);
		shared->ended = cycles_clock();
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

/* The first @nr pages of the file. */
static void fill(int fd, int nr)
{
	if (fallocate(fd, 0, 0, nr * pmd_size()))
		give_up(errno);
}

/*
 * How long it takes to fault the last page in, or to cut all but the first off,
 * in nanoseconds: about.
 */
static uint64_t time_of(int fd, int flags, bool cut)
{
	uint64_t start, least = UINT64_MAX;
	int i;

	for (i = 0; i < 5; i++) {
		make_anew(fd);
		if (cut)
			fill(fd, NR_PAGES);
		map_file(fd, flags);
		start = cycles_clock();
		if (cut && ftruncate(fd, pmd_size()))
			give_up(errno);
		if (!cut && !store_to(mapping + LAST * pmd_size()))
			give_up(EFAULT);
		least = MIN(least, cycles_clock() - start);
		munmap(mapping, NR_PAGES * pmd_size());
	}
	return least;
}

/* Returns whether something is left past the end of a file of @pages pages. */
static bool look(int fd, int pages)
{
	struct stat status;
	bool left, in_file;

	if (fstat(fd, &status))
		give_up(errno);
	left = store_to(mapping + LAST * pmd_size());
	in_file = status.st_blocks * 512 > pages * pmd_size();
	shared->left += left;
	shared->in_file += in_file;
	shared->rounds++;
	return left || in_file;
}

/* Nobody has a page of the mount now. Returns whether that changed the count. */
static bool is_astray(FIXTURE_DATA(hugetlb_truncate_fault) * self, long *free)
{
	long was = *free;

	*free = hugetlbfs_free(self->dir);
	shared->astray += *free != was;
	return *free != was;
}

static void register_pages(int uffd)
{
	struct uffdio_register reg = {
		.range = { (uintptr_t)mapping, NR_PAGES * pmd_size() },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	if (ioctl(uffd, UFFDIO_REGISTER, &reg))
		give_up(errno);
}

/* Nobody else has the file, or its last page, so nobody may keep that page. */
static void cut_while_faulting(FIXTURE_DATA(hugetlb_truncate_fault) * self,
			       const FIXTURE_VARIANT(hugetlb_truncate_fault) *
			       variant)
{
	int fd = self->fd;
	uint64_t fault = time_of(fd, variant->flags, false);
	uint64_t cut = time_of(fd, variant->flags | MAP_NORESERVE, true);
	uint64_t start, moment;
	long free = MOUNT_PAGES;
	pthread_t thread;
	bool late, over, bad;
	uint32_t i;

	if (pthread_create(&thread, NULL, fault_last, self))
		give_up(EAGAIN);
	for (i = 0; i < ROUNDS; i++) {
		late = variant->late || (variant->uffd && i & 1);
		make_anew(fd);
		if (late)
			fill(fd, variant->uffd ? LAST : NR_PAGES);
		map_file(fd, variant->flags);
		if (variant->uffd)
			register_pages(self->uffd);
		moment = (late ? cut : fault) * LONGEST * (i % STEPS) / STEPS;
		shared->delay = late ? moment : 0;
		start = cycles_clock();
		__atomic_store_n(&shared->round, i + 1, __ATOMIC_RELEASE);
		while (variant->control ?
		       __atomic_load_n(&shared->stored, __ATOMIC_ACQUIRE) !=
		       i + 1 :
		       !late && cycles_clock() - start < moment)
			;
		over = __atomic_load_n(&shared->stored, __ATOMIC_ACQUIRE) ==
		       i + 1;
		start = cycles_clock();
		if (ftruncate(fd, late ? pmd_size() : LAST * pmd_size()))
			give_up(errno);
		moment = cycles_clock();
		while (__atomic_load_n(&shared->stored, __ATOMIC_ACQUIRE) !=
		       i + 1)
			;
		/* A store that got a page has looked at the size before. */
		if (late || variant->uffd)
			shared->met += shared->began < moment &&
				       shared->ended > start;
		else
			shared->met += !over && shared->has_page;
		bad = look(fd, late ? 1 : 0);
		munmap(mapping, NR_PAGES * pmd_size());
		if (ftruncate(fd, 0))
			give_up(errno);
		bad |= is_astray(self, &free);
		shared->bad += bad;
	}
	race_stop();
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
		shared->bad += look(fd, 0);
		if (ftruncate(fd, NR_PAGES * pmd_size()) ||
		    madvise(mapping + LAST * pmd_size(), pmd_size(),
			    MADV_DONTNEED))
			give_up(errno);
	}
	race_stop();
	for (i = 0; i < NR_WRITERS; i++)
		pthread_join(threads[i], NULL);
	munmap(mapping, NR_PAGES * pmd_size());
}

/* For the memory of this process. Returns -1 where there is none, and why. */
static int open_uffd(const char **why)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = syscall(__NR_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	/* Up to 5.10 there is no such flag. */
	if (fd < 0 && errno == EINVAL)
		fd = syscall(__NR_userfaultfd, O_CLOEXEC);
	*why = "needs CONFIG_USERFAULTFD";
	if (fd < 0)
		return -1;
	if (!ioctl(fd, UFFDIO_API, &api) &&
	    api.features & UFFD_FEATURE_MISSING_HUGETLBFS)
		return fd;
	*why = "no UFFDIO_COPY of huge pages (since 4.11)";
	close(fd);
	return -1;
}

FIXTURE_SETUP(hugetlb_truncate_fault)
{
	struct sigaction act = { .sa_handler = on_sigbus };
	const char *why;
	int nodes[2];
	pid_t pid;
	char *addr;

	self->fd = -1;
	self->dir = -1;
	self->uffd = -1;
	if (geteuid())
		SKIP(return, "needs root, for the huge page pool");
	why = churn_lacks("may leave a wrong number of reserved huge pages") ?:
	      nodes_lack(nodes, 1, sched_getcpu()) ?:
	      guard_lacks() ?:
	      pool_lacks(nodes, 1, MOUNT_PAGES) ?:
	      mount_lacks(&self->dir, MOUNT_PAGES);
	if (why)
		SKIP(return, "%s", why);
	if (variant->uffd) {
		self->uffd = open_uffd(&why);
		if (self->uffd < 0)
			SKIP(return, "%s", why);
		close(self->uffd);
		self->source = malloc(pmd_size());
		ASSERT_NE(NULL, self->source);
		memset(self->source, 1, pmd_size());
	}
	self->reserved = pool_reserved();
	ASSERT_EQ(MOUNT_PAGES, hugetlbfs_free(self->dir));
	self->fd = hugetlbfs_file(self->dir, NR_PAGES * pmd_size());
	ASSERT_LE(0, self->fd)
		TH_LOG("no file in the mount: %s", strerror(-self->fd));
	if (variant->copy) {
		addr = mmap(NULL, pmd_size(), PROT_READ | PROT_WRITE,
			    MAP_PRIVATE, self->fd, 0);
		ASSERT_NE(MAP_FAILED, addr);
		if (madvise(addr, pmd_size(), MADV_DONTNEED))
			SKIP(munmap(addr, pmd_size()); return,
			     "no MADV_DONTNEED of huge pages on this kernel (since 5.18)");
		munmap(addr, pmd_size());
	}

	shared = race_begin(sizeof(*shared));
	ASSERT_NE(NULL, shared);
	self->control = shared;
	pid = crew_fork(&self->crew);
	ASSERT_GE(pid, 0);
	if (pid)
		return;
	sigaction(SIGBUS, &act, NULL);
	self->uffd = variant->uffd ? open_uffd(&why) : -1;
	if (variant->uffd && self->uffd < 0)
		give_up(EINVAL);
	if (variant->copy)
		cut_copies(self->fd);
	else
		cut_while_faulting(self, variant);
	if (ftruncate(self->fd, 0))
		give_up(errno);
	_exit(0);
}

FIXTURE_TEARDOWN(hugetlb_truncate_fault)
{
	const char *why;

	if (self->dir >= 0)
		close(self->dir);
	why = crew_end(&self->crew, self->fd, STUCK_MS);
	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
}

TEST_F_TIMEOUT(hugetlb_truncate_fault, is_gone, 180)
{
	struct control *control = self->control;
	bool gone = crew_wait(&self->crew, 120 * 1000);
	const char *why;

	ksft_print_msg("hugetlb_truncate_fault: control=%s",
		       variant->control ? "yes" : "no");
	printf(" calls=%lu failed_calls=0 migrations=%lu lost_migrations=%lu",
	       control->rounds, control->rounds, control->bad);
	printf(" met=%lu left=%lu in_file=%lu astray=%lu writes=%lu reserved=%+ld\n",
	       control->met, control->left, control->in_file, control->astray,
	       control->writes, pool_reserved() - self->reserved);
	ASSERT_TRUE(gone)
		TH_LOG("a process does not end after %lu rounds",
		       control->rounds);
	why = race_failed(&self->crew, false);
	ASSERT_EQ(NULL, why)
		TH_LOG("%s", why);
	EXPECT_EQ(0, control->left)
		TH_LOG("%lu times of %lu there is a page past the end of the file",
		       control->left, control->rounds);
	EXPECT_EQ(0, control->in_file)
		TH_LOG("%lu times the file has such a page", control->in_file);
	EXPECT_EQ(0, control->astray)
		TH_LOG("%lu times other pages are free in the mount than before",
		       control->astray);
	/* Not after a failure: a skip would take its place. */
	if (control->bad)
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
