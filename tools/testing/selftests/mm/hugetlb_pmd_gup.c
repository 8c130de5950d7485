// SPDX-License-Identifier: GPL-2.0
/*
 * Does get_user_pages_fast() find pages of another process, if a PMD table is
 * unshared while it walks through it?
 *
 * Processes that map a hugetlb file in the same way share its PMD tables (see
 * hugetlb_pmd_migrate.c). get_user_pages_fast() goes through page tables with no
 * lock, only with interrupts disabled. When a process gives up a shared table,
 * the other one may be the last to have it, and can use it for anything:
 *
 *	process A, thread 1	process A, thread 2	process B
 *	vmsplice(2): finds
 *	the table
 *				unmaps the file: the
 *				table is B's alone
 *							unmaps one huge page,
 *							maps memory of its own
 *							there, and writes to it
 *	finds B's memory in
 *	the table
 *
 * So whoever unshares has to wait for such walks. An interrupt to the CPU that
 * walks does it. Where TLBs are flushed by interrupts, as on x86 without the help
 * of a hypervisor, the flush is that interrupt. arm64 flushes without, so this
 * can be seen there.
 *
 * Here it is done as above, again and again. What thread 1 finds is read from the
 * pipe: it has to be what the file has.
 *
 * Variants: as it is, without privilege, and with tables that are not shared.
 *
 * Environment:
 *	HUGETLB_PMD_GUP_SECONDS=n	how long a variant runs
 */
#include "kselftest_harness.h"

#include <fcntl.h>
#include <numa.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_page.h"
#include "migrate_race.h"
#include "migrate_util.h"
#include "vm_util.h"

#define NR_PAGES	4
#define PAGE		2	/* that is walked to */
#define OF_FILE		0x66696c6566696c65ull
#define OF_B		0x6220736563726574ull
#define SECONDS		3
#define MAX_SECONDS	100
#define MORE		4	/* times that, on a slow machine */
#define WANT		3	/* pages of B are enough */
#define ENOUGH		20	/* fewer rounds, or walks, are no evidence */
#define WALK_US		5000	/* for a walk to begin */
#define HOLD_US		60000	/* for it to end, where it is made to wait */
#define STUCK_MS	30000

enum job { UNMAP, MAP, REUSE, END, NR_JOBS };
enum who { B, A, NR_PROCS };

struct control {
	uint32_t asked;		/* by A; what of it says which job */
	uint32_t done;		/* by B */
	bool walker_done;	/* it came to its end */
	unsigned long rounds;
	unsigned long walks;	/* that found a page */
	unsigned long of_b;	/* it was one of B */
	unsigned long of_none;	/* it was one of neither */
};

FIXTURE(hugetlb_pmd_gup)
{
	struct control *control;
	struct crew crew;
	int fd;
};

FIXTURE_VARIANT(hugetlb_pmd_gup)
{
	bool user;	/* no privilege */
	bool control;	/* mapped where no table can be shared */
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_gup, shared) { };
FIXTURE_VARIANT_ADD(hugetlb_pmd_gup, shared_user) { .user = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_gup, not_shared) { .control = true };

static struct control *shared;
static char *where;		/* where the file is mapped, pud_size() bytes */

static void map(int fd)
{
	int error = map_pud(fd, where);

	if (error)
		give_up(error);
	touch_pages(where, NR_PAGES);
}

/* Process B, whose table is not shared any more. */
static void reuse(void)
{
	char *page = where + PAGE * pmd_size();

	if (munmap(page, pmd_size()) ||
	    mmap(page, pmd_size(), PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != page)
		give_up(errno);
	madvise(page, pmd_size(), MADV_NOHUGEPAGE);
	*(uint64_t *)page = OF_B;
}

static __noreturn void b_main(int fd)
{
	uint32_t asked = 0;

	for (;;) {
		asked = wait_for_change(&shared->asked, asked);
		switch (asked % NR_JOBS) {
		case MAP:
			map(fd);
			break;
		case REUSE:
			reuse();
			break;
		case END:
			_exit(0);
		default:
			unmap_pud(where);
		}
		set_and_wake(&shared->done, asked);
	}
}

/* However long it takes: the test knows whether B is stuck or only slow. */
static void ask_b(enum job job)
{
	uint32_t asked = shared->asked + 1, done;

	while (asked % NR_JOBS != job)
		asked++;
	set_and_wake(&shared->asked, asked);
	if (job == END)
		return;
	while ((done = __atomic_load_n(&shared->done, __ATOMIC_ACQUIRE)) !=
	       asked)
		wait_a_while(&shared->done, done, 100);
}

/* Process A, thread 1. */
static void *walker_main(void *arg)
{
	struct iovec word = {
		.iov_base = where + PAGE * pmd_size(),
		.iov_len = sizeof(uint64_t),
	};
	uint64_t found;
	int ends[2];

	if (pipe(ends))
		give_up(errno);
	while (!stopped()) {
		if (vmsplice(ends[1], &word, 1, 0) != sizeof(found)) {
			/* Nothing is mapped, as it often is. */
			usleep(100);
			continue;
		}
		if (read(ends[0], &found, sizeof(found)) != sizeof(found))
			give_up(errno);
		count_up(&shared->walks, 1);
		if (found == OF_B)
			count_up(&shared->of_b, 1);
		else if (found != OF_FILE)
			count_up(&shared->of_none, 1);
	}
	close(ends[0]);
	close(ends[1]);
	shared->walker_done = true;
	return NULL;
}

static __noreturn void a_main(int fd)
{
	pthread_t walker;

	if (pthread_create(&walker, NULL, walker_main, NULL))
		give_up(EAGAIN);
	while (!stopped()) {
		ask_b(MAP);
		map(fd);
		usleep(WALK_US);
		unmap_pud(where);
		ask_b(REUSE);
		/* A walk that began with the file ends with B's memory there. */
		usleep(HOLD_US);
		ask_b(UNMAP);
		count_up(&shared->rounds, 1);
	}
	ask_b(END);
	pthread_join(walker, NULL);
	/* An oops ends a thread, and leaves its process alone. */
	if (!shared->walker_done)
		give_up(EFAULT);
	_exit(0);
}

static bool fill(int fd)
{
	char *addr = mmap(NULL, NR_PAGES * pmd_size(), PROT_READ | PROT_WRITE,
			  MAP_SHARED, fd, 0);
	int i;

	if (addr == MAP_FAILED)
		return false;
	for (i = 0; i < NR_PAGES; i++)
		*(uint64_t *)(addr + i * pmd_size()) = OF_FILE;
	return !munmap(addr, NR_PAGES * pmd_size());
}

FIXTURE_SETUP(hugetlb_pmd_gup)
{
	const char *why;
	int nodes[2];
	int i;
	long faults;
	pid_t pid;

	self->fd = -1;
	if (geteuid())
		SKIP(return, "needs root, for the huge page pool");
	/* Tables are shared where a mapping covers a PUD, whatever is in it. */
	why = nodes_lack(nodes, 1, sched_getcpu()) ?:
	      guard_lacks() ?:
	      pool_lacks(nodes, 1, NR_PAGES) ?:
	      file_lacks(&self->fd, NR_PAGES * pmd_size());
	if (why)
		SKIP(return, "%s", why);
	ASSERT_TRUE(fill(self->fd));
	why = area_lacks(&where, 2);
	if (why)
		SKIP(return, "%s", why);

	faults = faults_to_share(self->fd, where, PROT_READ | PROT_WRITE, 0,
				 NR_PAGES);
	ASSERT_LT(0, faults)
		TH_LOG("cannot map the file: %s", strerror(-faults));
	if (faults != 1)
		SKIP(return, "%s", not_shared(faults, NR_PAGES));
	if (variant->control)
		where += pmd_size();

	shared = race_begin(sizeof(*shared));
	ASSERT_NE(NULL, shared);
	self->control = shared;
	for (i = 0; i < NR_PROCS; i++) {
		pid = crew_fork(&self->crew);
		ASSERT_GE(pid, 0);
		if (pid)
			continue;
		if (variant->user)
			be_nobody();
		if (i == B)
			b_main(self->fd);
		a_main(self->fd);
	}
}

FIXTURE_TEARDOWN(hugetlb_pmd_gup)
{
	const char *why = crew_end(&self->crew, self->fd, STUCK_MS);

	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
}

TEST_F_TIMEOUT(hugetlb_pmd_gup, own_pages, 500)
{
	long seconds = env_count("HUGETLB_PMD_GUP_SECONDS", SECONDS);
	struct control *control = self->control;
	unsigned long start = cycles_clock(), rounds, of_b;
	bool gone = true;
	const char *why;
	int died = 0;

	seconds = MIN(seconds, MAX_SECONDS);
	/* Longer where these are too few to say anything. */
	while (!died &&
	       (ms_since(start) < seconds * 1000 ||
		(ms_since(start) < MORE * seconds * 1000 &&
		 (counted(&control->rounds) < ENOUGH ||
		  counted(&control->walks) < ENOUGH))) &&
	       counted(&control->of_b) < WANT) {
		usleep(10 * 1000);
		died = crew_ended(&self->crew);
	}
	race_stop();
	if (!died)
		gone = crew_wait(&self->crew, STUCK_MS);

	rounds = counted(&control->rounds);
	of_b = counted(&control->of_b);
	ksft_print_msg("hugetlb_pmd_gup: control=%s",
		       variant->control ? "yes" : "no");
	printf(" calls=%lu failed_calls=%d migrations=%lu lost_migrations=%lu",
	       rounds, !!race_error(), rounds, of_b);
	printf(" walks=%lu\n", counted(&control->walks));
	if (!of_b && !counted(&control->of_none) &&
	    race_oom_killed(crew_killed(&self->crew)))
		SKIP(return, OOM_KILLED);
	why = race_failed(&self->crew, died);
	ASSERT_EQ(NULL, why)
		TH_LOG("%s", why);
	ASSERT_TRUE(gone)
		TH_LOG("a process does not end");
	EXPECT_EQ(0, of_b)
		TH_LOG("in %lu of %lu rounds a page of another process was read",
		       of_b, rounds);
	EXPECT_EQ(0, counted(&control->of_none))
		TH_LOG("%lu times a page was read that nobody had written to",
		       counted(&control->of_none));
	/*
	 * Who found no page at all would find none of another process. Not after a
	 * failure: a skip would take its place.
	 */
	if (__test_passed(_metadata) &&
	    (rounds < ENOUGH || counted(&control->walks) < ENOUGH))
		SKIP(return, "inconclusive: %lu rounds, %lu walks", rounds,
		     counted(&control->walks));
}

TEST_HARNESS_MAIN
