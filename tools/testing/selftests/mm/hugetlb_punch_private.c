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
 * or get SIGBUS while the file is short. Two variants have more processes beside
 * these: a second one like it; one that forks with a private and with a shared
 * mapping, whose children read the last page, while it has its private pages
 * copied; and one that keeps the lock of a shared mapping busy, as in
 *
 * hugetlb_punch_wait, a control. Where the lock is that of a shared mapping, it
 * is right to wait for it, and this shows that a hole comes to that. Whoever
 * reads /proc/<pid>/smaps_rollup has the page tables of a mapping walked with its
 * lock held, long if the mapping is. The process that punches sleeps for nothing
 * else, for nobody else has its file: so its voluntary context switches in the
 * system call count the waits. There must be none without the walks.
 *
 * Environment:
 *	HUGETLB_PMD_CHURN=1		run it at all: a kernel that has the
 *					defect crashes; not for machines that do
 *					work
 */
#include "kselftest_harness.h"

#include <errno.h>
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
#include <sys/resource.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_page.h"
#include "migrate_race.h"
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
#define NR_WALKERS	2
#define WALK_PUDS	8	/* of a mapping that takes long to walk */
#define ALONE		200	/* holes that nobody may make wait */
#define WAITS		50	/* are enough */

struct control {
	unsigned long punches;
	unsigned long reads;
	unsigned long found;	/* reads that found what was written */
	unsigned long writes;
	unsigned long strange;	/* what was read and never written */
	unsigned long sigbus;	/* reads beyond the end of the file */
	unsigned long forks;
	unsigned long no_forks;	/* for want of memory, or of processes */
	unsigned long killed;	/* children: for want of memory, or it is a failure */
	unsigned long walks;	/* of a shared mapping, with its lock held */
	unsigned int walk;	/* they may begin */
	unsigned long alone;	/* holes that waited before */
	unsigned long waits;	/* and since */
};

/* First: after the other it may be too late. */
FIXTURE(hugetlb_punch_wait)
{
	struct control *control;
	struct crew crew;
	int fd;
};

FIXTURE_VARIANT(hugetlb_punch_wait)
{
	bool truncate;
};

FIXTURE_VARIANT_ADD(hugetlb_punch_wait, hole) {
	.truncate = false };
FIXTURE_VARIANT_ADD(hugetlb_punch_wait, truncate) {
	.truncate = true };

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
	bool more;	/* processes */
};

FIXTURE_VARIANT_ADD(hugetlb_punch_private, hole) {
	.truncate = false };
FIXTURE_VARIANT_ADD(hugetlb_punch_private, truncate) {
	.truncate = true };
FIXTURE_VARIANT_ADD(hugetlb_punch_private, hole_more) {
	.more = true };
FIXTURE_VARIANT_ADD(hugetlb_punch_private, truncate_more) {
	.truncate = true, .more = true };

static struct control *shared;
static char *mapping;		/* of the process that runs */
static sigjmp_buf beyond;

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

/*
 * Fork in a loop. The child reads the last page, and this one stores to a page
 * that both have, which copies it.
 */
static __noreturn void fork_main(int fd)
{
	struct sigaction act = { .sa_handler = on_sigbus };
	char *maps[2];
	uint64_t found;
	int i, status;
	pid_t pid;

	for (i = 0; i < 2; i++) {
		maps[i] = mmap(NULL, NR_PAGES * pmd_size(),
			       PROT_READ | PROT_WRITE, MAP_NORESERVE |
			       (i ? MAP_SHARED : MAP_PRIVATE), fd, 0);
		if (maps[i] == MAP_FAILED)
			give_up(errno);
	}
	while (!stopped()) {
		__atomic_store_n(maps[0], 1, __ATOMIC_RELAXED);
		pid = fork();
		if (pid < 0 && errno != EAGAIN && errno != ENOMEM)
			give_up(errno);
		if (pid < 0) {
			count_up(&shared->no_forks, 1);
			usleep(1000);
			continue;
		}
		if (!pid) {
			sigaction(SIGBUS, &act, NULL);
			for (i = 0; i < 2; i++) {
				mapping = maps[i];
				if (read_last(&found) && found && found != MAGIC)
					count_up(&shared->strange, 1);
			}
			_exit(0);
		}
		__atomic_store_n(maps[0], 2, __ATOMIC_RELAXED);
		if (waitpid(pid, &status, 0) != pid)
			give_up(errno);
		if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
			count_up(&shared->killed, 1);
		else if (status)
			give_up(ECHILD);
		/* Of its own the last page would not go with the hole. */
		if (madvise(maps[0], NR_PAGES * pmd_size(), MADV_DONTNEED))
			give_up(errno);
		count_up(&shared->forks, 1);
	}
	_exit(0);
}

/* Have the page tables of the process that punches walked. */
static __noreturn void walk_main(pid_t pid)
{
	char path[48], buf[4096];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
	wait_for_change(&shared->walk, 0);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		give_up(errno);
	while (!stopped()) {
		/* It may have ended just before this one is to. */
		if (pread(fd, buf, sizeof(buf), 0) <= 0)
			break;
		count_up(&shared->walks, 1);
	}
	_exit(0);
}

static long sleeps(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_nvcsw;
}

/* Fill the last page and take it, and say if that had to wait. */
static bool take_and_wait(int fd, bool truncate)
{
	long before;

	__atomic_store_n((uint64_t *)(mapping + LAST * pmd_size()), MAGIC,
			 __ATOMIC_RELEASE);
	before = sleeps();
	if (!take_page(fd, truncate))
		give_up(errno);
	count_up(&shared->punches, 1);
	return sleeps() != before;
}

static __noreturn void wait_main(int fd, bool truncate)
{
	int i;

	mapping = mmap(NULL, WALK_PUDS * pud_size(), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (mapping == MAP_FAILED)
		give_up(errno);
	/* The first one finds more to do. */
	take_and_wait(fd, truncate);
	for (i = 0; i < ALONE; i++)
		count_up(&shared->alone, take_and_wait(fd, truncate));
	set_and_wake(&shared->walk, 1);
	while (!stopped())
		count_up(&shared->waits, take_and_wait(fd, truncate));
	_exit(0);
}

/* Since 6.3 walks take the lock: walk_hugetlb_range(). */
static bool walks_lock(void)
{
	struct utsname name;
	int major, minor;

	return uname(&name) ||
	       sscanf(name.release, "%d.%d", &major, &minor) != 2 ||
	       major > 6 || (major == 6 && minor >= 3);
}

FIXTURE_SETUP(hugetlb_punch_wait)
{
	int i, nodes[2];
	const char *why;
	pid_t pid;

	self->fd = -1;
	if (geteuid())
		SKIP(return, "needs root, for the huge page pool");
	if (!walks_lock())
		SKIP(return, "page table walks take no lock on this kernel (since 6.3)");
	/* Where the others run, and not without them. */
	why = churn_lacks("goes with tests that may crash a kernel") ?:
	      nodes_lack(nodes, 1, sched_getcpu()) ?:
	      guard_lacks() ?:
	      pool_lacks(nodes, 1, 3 * NR_PAGES + SPARE) ?:
	      file_lacks(&self->fd, WALK_PUDS * pud_size());
	if (why)
		SKIP(return, "%s", why);
	shared = race_begin(sizeof(*shared));
	ASSERT_NE(NULL, shared);
	self->control = shared;
	for (i = 0; i < 1 + NR_WALKERS; i++) {
		pid = crew_fork(&self->crew);
		ASSERT_GE(pid, 0);
		if (pid)
			continue;
		if (i)
			walk_main(self->crew.pids[0]);
		wait_main(self->fd, variant->truncate);
	}
}

FIXTURE_TEARDOWN(hugetlb_punch_wait)
{
	const char *why = crew_end(&self->crew, self->fd, STUCK_MS);

	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
}

/* The kernel, for want of memory. */
static bool were_oom_killed(const struct control *control,
			    const struct crew *crew)
{
	return race_oom_killed(control->killed + crew_killed(crew));
}

TEST_F_TIMEOUT(hugetlb_punch_wait, is_reached, 120)
{
	struct control *control = self->control;
	unsigned long start = cycles_clock();
	bool gone, ended = false;
	const char *why;

	while (!ended && ms_since(start) < SECONDS * 1000 &&
	       counted(&control->waits) < WAITS) {
		usleep(10 * 1000);
		ended = crew_ended(&self->crew);
	}
	race_stop();
	/* Those who still wait for the walks to begin. */
	set_and_wake(&control->walk, 1);
	gone = crew_wait(&self->crew, STUCK_MS);

	ksft_print_msg("hugetlb_punch_private: control=yes");
	printf(" calls=%lu failed_calls=0 migrations=%lu lost_migrations=0",
	       control->punches, control->punches);
	printf(" waits=%lu alone=%lu walks=%lu\n", control->waits,
	       control->alone, control->walks);
	ASSERT_TRUE(gone)
		TH_LOG("a process does not end");
	if (were_oom_killed(control, &self->crew))
		SKIP(return, OOM_KILLED);
	why = race_failed(&self->crew, ended);
	ASSERT_EQ(NULL, why)
		TH_LOG("%s", why);
	if (control->alone)
		SKIP(return,
		     "inconclusive: %lu of %d holes waited for something else",
		     control->alone, ALONE);
	if (!control->waits)
		SKIP(return,
		     "inconclusive: none of %lu holes waited, in %lu walks",
		     control->punches, control->walks);
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
	      pool_lacks(nodes, 1, 3 * NR_PAGES + SPARE) ?:
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

	shared = race_begin(sizeof(*shared));
	ASSERT_NE(NULL, shared);
	self->control = shared;
	shared->walk = 1;
	for (i = 0; i < (variant->more ? 5 : 2); i++) {
		pid = crew_fork(&self->crew);
		ASSERT_GE(pid, 0);
		if (pid)
			continue;
		if (i == 4)
			walk_main(self->crew.pids[0]);
		if (i == 3)
			fork_main(self->fd);
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
	const char *why;

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
	race_stop();
	if (!crew_wait(&self->crew, STUCK_MS)) {
		self->stuck = true;
		for (i = 1; i < 3; i++)
			if (since[i] < since[first])
				first = i;
	}

	ksft_print_msg("hugetlb_punch_private: control=no");
	printf(" calls=%lu failed_calls=0 migrations=%lu lost_migrations=%d",
	       control->punches, control->punches, self->stuck);
	printf(" reads=%lu found=%lu writes=%lu sigbus=%lu", control->reads,
	       control->found, control->writes, control->sigbus);
	printf(" forks=%lu walks=%lu\n", control->forks, control->walks);
	ASSERT_FALSE(self->stuck)
		TH_LOG("stuck: %lu holes, %lu reads, %lu writes, first no more %s",
		       control->punches, control->reads, control->writes,
		       names[first]);
	if (were_oom_killed(control, &self->crew) && !control->strange)
		SKIP(return, OOM_KILLED);
	why = race_failed(&self->crew, ended);
	ASSERT_EQ(NULL, why)
		TH_LOG("%s", why);
	ASSERT_EQ(0, control->killed)
		TH_LOG("%lu children were killed", control->killed);
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
	if (!control->strange && variant->more &&
	    (control->forks < ENOUGH || control->walks < ENOUGH))
		SKIP(return,
		     "inconclusive: %lu forks, %lu that failed, %lu walks",
		     control->forks, control->no_forks, control->walks);
}

TEST_HARNESS_MAIN
