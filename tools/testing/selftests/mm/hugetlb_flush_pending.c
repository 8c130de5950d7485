// SPDX-License-Identifier: GPL-2.0
/*
 * Is a private huge page that mprotect(2) takes the access to migrated with all
 * that is written to it?
 *
 * mprotect() changes the page table first, and flushes the TLBs after that. In
 * the meantime threads go on writing through their TLBs. x86 does not flush
 * when it takes away an entry that gives no access, as no TLB can have it. But
 * if a flush is pending, a TLB can still have the entry from before. The mm
 * says whether one is:
 *
 *	mprotect(PROT_NONE)			migration
 *	a flush is pending
 *	page: no access
 *						flushes, since one is pending
 *						copies the page
 *						maps the copy
 *	flushes
 *	no flush is pending
 *
 * If mprotect() leaves out the first step for huge pages, migration does not
 * flush, and what a thread writes to the old page after it was copied is lost.
 *
 * Here one thread writes to a page. Another one takes the access to it away,
 * and gives it back. A process takes the page offline meanwhile, as is done to
 * memory that may fail soon: it is migrated, without the mmap lock of the
 * process that has it. The thread that writes waits when it has no access. When
 * it has access again, it looks for what it wrote.
 *
 * Variants: as it is, and with no mprotect().
 *
 * Environment:
 *	HUGETLB_PMD_MIGRATE_OFFLINE=1	run it at all: it takes memory offline
 */
#include "kselftest_harness.h"

#include <numa.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_journal.h"
#include "migrate_memory.h"
#include "migrate_page.h"
#include "migrate_util.h"
#include "vm_util.h"

#define SOFT_OFFLINE	"/sys/devices/system/memory/soft_offline_page"
#define SPARE		3	/* free pages, for where it goes */
#define ROUNDS		15
#define WANT		3	/* lost writes are enough */
#define MIN_MOVES	5	/* fewer are no evidence */
#define MAX_DELAY_US	20000
#define STEP_TIMEOUT_MS	20000

/* Shared with the one who takes the page offline. */
struct control {
	uint32_t round;
	uint32_t done;
	char address[32];	/* in physical memory */
	unsigned int delay_us;
	int error;
	uint64_t began;		/* to take it offline, and when that ended */
	uint64_t ended;
};

FIXTURE(hugetlb_flush_pending)
{
	struct control *control;
	char *page;
	int fd;
	int node;
	int cpus[2];
	struct crew crew;
	pthread_t writer;
	pid_t writer_tid;
	bool has_writer;
	long spare;		/* pages that the pool must have */
	/* Between the writer and the test. */
	uint32_t stop;
	uint32_t asked;		/* to look for what was written */
	uint32_t answered;
	uint64_t writes;
	long lost;		/* times that some were lost */
	struct journal_loss loss;
	size_t words;
};

FIXTURE_VARIANT(hugetlb_flush_pending)
{
	bool mprotect;
};

FIXTURE_VARIANT_ADD(hugetlb_flush_pending, mprotect) { .mprotect = true };
FIXTURE_VARIANT_ADD(hugetlb_flush_pending, no_mprotect) {
	.mprotect = false };

static uint32_t has_access;

/* The write is made anew when there is access again. */
static void sigsegv(int sig)
{
	const struct timespec tick = { .tv_nsec = 100000 };

	while (!__atomic_load_n(&has_access, __ATOMIC_ACQUIRE))
		nanosleep(&tick, NULL);
}

static void keep_loss(const struct journal_loss *loss, void *arg)
{
	struct journal_loss *last = arg;

	if (loss->write >= last->write)
		*last = *loss;
}

static void *writer_main(void *arg)
{
	FIXTURE_DATA(hugetlb_flush_pending) * self = arg;
	uint64_t *journal = (uint64_t *)self->page, n = 0;
	struct journal_loss loss;
	uint32_t asked;
	size_t words;

	__atomic_store_n(&self->writer_tid, syscall(SYS_gettid), __ATOMIC_RELEASE);
	pin_to_cpu(self->cpus[0]);
	while (!__atomic_load_n(&self->stop, __ATOMIC_ACQUIRE)) {
		journal_write(journal, 0, ++n);
		asked = __atomic_load_n(&self->asked, __ATOMIC_ACQUIRE);
		if (asked == self->answered)
			continue;
		memset(&loss, 0, sizeof(loss));
		words = journal_check(journal, 0, n, keep_loss, &loss);
		self->writes += n;
		if (words && !self->lost++) {
			self->loss = loss;
			self->words = words;
		}
		memset(journal, 0, JOURNAL_BYTES);
		n = 0;
		set_and_wake(&self->answered, asked);
	}
	return NULL;
}

static __noreturn void mover_main(struct control *control, int cpu)
{
	uint32_t round = 0;
	int ret;

	pin_to_cpu(cpu);
	for (;;) {
		round = wait_for_change(&control->round, round);
		usleep(control->delay_us);
		control->began = cycles_clock();
		ret = file_write(SOFT_OFFLINE, control->address);
		control->ended = cycles_clock();
		control->error = -ret;
		set_and_wake(&control->done, round);
	}
}

/* For @pid to make @word @val. */
static bool wait_until(uint32_t *word, uint32_t val, pid_t pid)
{
	struct wait_limit limit = {};
	uint32_t now;

	while ((now = __atomic_load_n(word, __ATOMIC_ACQUIRE)) != val) {
		if (!within_limit(&limit, &pid, 1, STEP_TIMEOUT_MS))
			return false;
		wait_a_while(word, now, 100);
	}
	return true;
}

FIXTURE_SETUP(hugetlb_flush_pending)
{
	struct sigaction action = { .sa_handler = sigsegv };
	const char *why;
	int nodes[2];
	pid_t pid;

	self->fd = -1;
	if (geteuid())
		SKIP(return, "needs root, to take memory offline");
	if (!env_long("HUGETLB_PMD_MIGRATE_OFFLINE", 0))
		SKIP(return, "takes memory offline: HUGETLB_PMD_MIGRATE_OFFLINE=1 allows it");
	if (access(SOFT_OFFLINE, W_OK))
		SKIP(return, "needs CONFIG_MEMORY_FAILURE");
	why = unpoison_lacks();
	if (why)
		SKIP(return, "%s", why);
	if (cpu_list(self->cpus, 2) < 2)
		SKIP(return, "needs two CPUs");
	why = nodes_lack(nodes, 1, self->cpus[0]);
	if (why)
		SKIP(return, "%s", why);
	self->node = nodes[0];

	why = guard_lacks();
	if (why)
		SKIP(return, "%s", why);
	self->spare = SPARE;
	why = pool_lacks(nodes, 1, SPARE + 1) ?:
	      file_lacks(&self->fd, pmd_size());
	if (why)
		SKIP(return, "%s", why);
	self->control = share_memory(sizeof(*self->control));
	ASSERT_NE(NULL, self->control);

	/* Before the page is mapped: it must not have it too. */
	pid = crew_fork(&self->crew);
	ASSERT_GE(pid, 0);
	if (!pid)
		mover_main(self->control, self->cpus[1]);

	numa_set_preferred(self->node);
	self->page = mmap(NULL, pmd_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE,
			  self->fd, 0);
	ASSERT_NE(MAP_FAILED, self->page);
	memset(self->page, 0, JOURNAL_BYTES);

	pin_to_cpu(self->cpus[1]);
	has_access = 1;
	sigaction(SIGSEGV, &action, NULL);
	ASSERT_EQ(0, pthread_create(&self->writer, NULL, writer_main, self));
	self->has_writer = true;
}

static void stop_writer(FIXTURE_DATA(hugetlb_flush_pending) * self)
{
	if (!self->has_writer)
		return;
	mprotect(self->page, pmd_size(), PROT_READ | PROT_WRITE);
	__atomic_store_n(&has_access, 1, __ATOMIC_RELEASE);
	__atomic_store_n(&self->stop, 1, __ATOMIC_RELEASE);
	pthread_join(self->writer, NULL);
	self->has_writer = false;
}

FIXTURE_TEARDOWN(hugetlb_flush_pending)
{
	stop_writer(self);
	crew_kill(&self->crew, STEP_TIMEOUT_MS);
	if (self->page && self->page != MAP_FAILED)
		munmap(self->page, pmd_size());
	if (self->fd >= 0)
		close(self->fd);
	guard_stop();
}

TEST_F_TIMEOUT(hugetlb_flush_pending, lost_write, 120)
{
	struct control *control = self->control;
	long failed_calls = 0, moves = 0, met = 0;
	uint64_t called = 0, returned = 0;
	int error = 0;
	uint32_t round;

	srand(time(NULL));
	for (round = 1; round <= ROUNDS && self->lost < WANT; round++) {
		int64_t pfn = page_pfn(0, self->page), now;
		char value[32];

		ASSERT_GT(pfn, 0);
		snprintf(value, sizeof(value), "0x%llx",
			 (unsigned long long)pfn);
		ASSERT_EQ(0, guard_undo(UNPOISON_PFN, value));
		snprintf(control->address, sizeof(control->address), "0x%llx",
			 (unsigned long long)pfn * psize());
		/* Let it write for a while. */
		usleep(10 * 1000);

		control->delay_us = rand() % MAX_DELAY_US;
		set_and_wake(&control->round, round);
		if (variant->mprotect) {
			__atomic_store_n(&has_access, 0, __ATOMIC_RELEASE);
			called = cycles_clock();
			ASSERT_EQ(0, mprotect(self->page, pmd_size(),
					      PROT_NONE));
			returned = cycles_clock();
		}
		ASSERT_TRUE(wait_until(&control->done, round,
				       self->crew.pids[0]))
			TH_LOG("a page does not go offline");
		if (variant->mprotect) {
			ASSERT_EQ(0, mprotect(self->page, pmd_size(),
					      PROT_READ | PROT_WRITE));
			__atomic_store_n(&has_access, 1, __ATOMIC_RELEASE);
		}
		set_and_wake(&self->asked, round);
		ASSERT_TRUE(wait_until(&self->answered, round,
				       self->writer_tid))
			TH_LOG("the one who writes does not answer");

		if (control->error) {
			failed_calls++;
			error = control->error;
		}
		now = page_pfn(0, self->page);
		ASSERT_GT(now, 0);
		if (now == pfn)
			continue;
		moves++;
		/* One that came before or after it had no flush to miss. */
		met += !variant->mprotect || (control->began < returned &&
					      control->ended > called);
		pfn_unpoison(pfn);
#ifndef IN_TREE
		/* Up to 4.12 it may stay in the pool, free and of no use. */
		self->spare++;
#endif
		pool_fill(self->node, self->spare);
	}
	stop_writer(self);

	if (self->lost) {
		ksft_print_msg("lost: %zu words of the journal, the last write %llu:",
			       self->words,
			       (unsigned long long)self->loss.write);
		printf(" offset 0x%zx wrote 0x%llx found 0x%llx\n",
		       self->loss.word * sizeof(uint64_t),
		       (unsigned long long)self->loss.wrote,
		       (unsigned long long)self->loss.found);
	}
	ksft_print_msg("hugetlb_flush_pending: trigger=soft_offline sharers=1 control=%s",
		       variant->mprotect ? "no" : "yes");
	printf(" calls=%u failed_calls=%ld migrations=%ld lost_migrations=%ld",
	       round - 1, failed_calls, moves, self->lost);
	printf(" writes=%llu met=%ld\n", (unsigned long long)self->writes, met);
	EXPECT_EQ(0, self->lost)
		TH_LOG("writes lost in %ld of %ld migrations", self->lost,
		       moves);
	if (!self->lost && moves < MIN_MOVES)
		SKIP(return, "inconclusive: %ld of %u pages moved: %s", moves,
		     round - 1, error ? strerror(error) : "no error");
	if (!self->lost && met < MIN_MOVES)
		SKIP(return, "inconclusive: %ld of %ld moves met mprotect()",
		     met, moves);
}

TEST_HARNESS_MAIN
