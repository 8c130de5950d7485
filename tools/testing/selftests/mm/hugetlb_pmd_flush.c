// SPDX-License-Identifier: GPL-2.0
/*
 * When a process gives up a part of what a shared PMD page table maps, do all
 * of its threads lose all of that table?
 *
 * munmap() of one huge page, mprotect() of it, and a hole punched into the file
 * make the kernel unshare the table that maps the page (see
 * hugetlb_pmd_migrate.c for what that is): its PUD entry goes from the mm, and
 * with it every page of the table, not only the one that was asked for. If the
 * TLB is flushed for no more than that one, other threads go on writing to the
 * rest through stale entries, and the mm no longer knows that it maps them:
 *
 *	process A, thread 1   process A, thread 2      process B
 *	writes to page 1      unmaps page 0
 *	  |                     table unshared
 *	  |                                            migrates page 1:
 *	  |                                            A does not map it, it seems
 *	  |                                            copies it
 *	writes to the old page
 *	      (lost)
 *
 * One round of the test is
 *
 *	place      page 1 on the node that it is to leave
 *	map        A first, then B, which finds A's table and shares it: one
 *		   fault for all pages is the proof
 *	write      A's second thread, to page 1
 *	give up    A's first thread: the operation under test on page 0
 *	migrate    B moves page 1 by move_pages(2); the thread writes on
 *	stop       the thread, somewhat later
 *	compare    the journal in a new mapping with the number of the last write
 *
 * Environment:
 *	HUGETLB_PMD_FLUSH_CALLS=n	rounds a variant
 */
#include "kselftest_harness.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <numa.h>
#include <numaif.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_journal.h"
#include "migrate_page.h"
#include "migrate_util.h"
#include "vm_util.h"

#define NR_PAGES	4	/* populated pages of the file */
#define CALLS		10	/* that move the page */
#define MIN_MOVES	3	/* fewer are no evidence */
#define TEST_MS		6000	/* no call begins later */
#define EXAMPLES	2
#define HOT_PASSES	64
#define LINGER_PASSES	256
#define MAX_RESTS	6	/* see the end of a round */
#define STEP_TIMEOUT_MS	20000
/*
 * An address that was used before is no good: where flushes are missing, there
 * may still be stale entries for it, and no fault to count.
 */
#define MAP_ROOM	512
/* Address space may be short: an arm64 kernel has 512 PUDs, or less. */
#define MIN_ROOM	16

enum give_up { MUNMAP, MPROTECT, PUNCH_HOLE };

static const char * const give_up_name[] = {
	"munmap", "mprotect", "punch_hole",
};

/* Steps of a round, in this order; the number of the round in the upper bits. */
enum step { STEP_MAP = 1, STEP_WRITE, STEP_GIVE_UP, STEP_STOP };

/* What process A and B share. */
struct shared {
	uint32_t cmd;		/* from B: round << 4 | step */
	uint32_t ack;		/* from A's first thread: the same */
	uint32_t hot;		/* from A's second thread: it writes */
	uint32_t stop;		/* to that thread */
	pid_t tid;		/* of it, 0 where there is none */
	uint32_t pause_us;	/* to it: for how long to rest now and then */
	int error;		/* errno of what A was to do */
	long faults;		/* A's second thread: in a round */
	uint64_t now;		/* number of its last write so far */
	uint64_t last;		/* and of the last of all */
	char *addr;		/* A's mapping, for the next step */
};

FIXTURE(hugetlb_pmd_flush)
{
	struct shared *shared;
	char *area;		/* PUDs for A and B, then the view's */
	int room;		/* how many for A and B */
	int fd;
	int nodes[2];		/* the page leaves from, and goes to */
	int cpus[CPU_SETSIZE];
	int nr_cpus;
	pid_t pid;		/* process A */
	int given_up;		/* which page, and which is written to */
	int written;
};

FIXTURE_VARIANT(hugetlb_pmd_flush)
{
	enum give_up give_up;
	int page;		/* that is given up */
	bool aligned;		/* so that the table can be shared */
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_flush, munmap_first) {
	.give_up = MUNMAP, .page = 0, .aligned = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_flush, munmap_middle) {
	.give_up = MUNMAP, .page = 2, .aligned = true };
/*
 * x86 empties the TLB for a huge page's worth of small pages: its mprotect()
 * flushes enough, whatever it is asked for.
 */
FIXTURE_VARIANT_ADD(hugetlb_pmd_flush, mprotect_first) {
	.give_up = MPROTECT, .page = 0, .aligned = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_flush, mprotect_middle) {
	.give_up = MPROTECT, .page = 2, .aligned = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_flush, punch_hole_first) {
	.give_up = PUNCH_HOLE, .page = 0, .aligned = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_flush, punch_hole_middle) {
	.give_up = PUNCH_HOLE, .page = 2, .aligned = true };
/* No table is shared here, so this passes on every kernel. */
FIXTURE_VARIANT_ADD(hugetlb_pmd_flush, not_shared) { .give_up = MUNMAP };

static size_t journal_offset(void)
{
	/* Not in the line of TCG's TLB that the other pages use. */
	return JOURNAL_BYTES;
}

/* Process A, second thread. */

struct writer {
	struct shared *shared;
	uint64_t *journal;
	int cpu;
};

static void *write_page(void *arg)
{
	struct writer *w = arg;
	struct shared *sh = w->shared;
	uint64_t n = sh->last, hot = n + HOT_PASSES;
	long linger = LINGER_PASSES;
	struct rusage before, after;

	__atomic_store_n(&sh->tid, syscall(SYS_gettid), __ATOMIC_RELEASE);
	pin_to_cpu(w->cpu);
	getrusage(RUSAGE_THREAD, &before);
	while (!__atomic_load_n(&sh->stop, __ATOMIC_ACQUIRE) || linger--) {
		n++;
		journal_write(w->journal, 0, n);
		__atomic_store_n(&sh->now, n, __ATOMIC_RELEASE);
		if (n == hot)
			set_and_wake(&sh->hot, 1);
		if (sh->pause_us && !(n % (1 << JOURNAL_SHIFT)))
			usleep(sh->pause_us);
	}
	getrusage(RUSAGE_THREAD, &after);
	sh->faults = after.ru_minflt - before.ru_minflt;
	__atomic_store_n(&sh->last, n, __ATOMIC_RELEASE);
	__atomic_store_n(&sh->tid, 0, __ATOMIC_RELEASE);
	return NULL;
}

/* Process A, first thread. */

static int give_up(enum give_up how, int fd, char *addr, int page)
{
	size_t size = pmd_size();
	int ret = 0;

	addr += page * size;
	switch (how) {
	case MUNMAP:
		ret = munmap(addr, size);
		break;
	case MPROTECT:
		ret = mprotect(addr, size, PROT_READ);
		break;
	case PUNCH_HOLE:
		ret = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				page * size, size);
		break;
	}
	return ret ? errno : 0;
}

static __noreturn void
process_a(FIXTURE_DATA(hugetlb_pmd_flush) * self, enum give_up how,
	  pid_t parent)
{
	struct shared *sh = self->shared;
	struct writer writer = { .shared = sh };
	pthread_t thread;
	uint32_t cmd = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	signal(SIGALRM, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	/* Of two CPUs B has one, and sleeps while this thread does something. */
	pin_to_cpu(self->cpus[self->nr_cpus > 2]);
	writer.cpu = self->cpus[self->nr_cpus - 1];

	for (;;) {
		char *addr;

		cmd = wait_for_change(&sh->cmd, cmd);
		addr = sh->addr;
		switch (cmd & 0xf) {
		case STEP_MAP:
			sh->error = map_pud(self->fd, addr);
			if (!sh->error)
				touch_pages(addr, NR_PAGES);
			break;
		case STEP_WRITE:
			sh->hot = 0;
			sh->stop = 0;
			writer.journal = (uint64_t *)
				(addr + self->written * pmd_size() +
				 journal_offset());
			sh->error = pthread_create(&thread, NULL, write_page,
						   &writer);
			if (!sh->error)
				wait_for_change(&sh->hot, 0);
			break;
		case STEP_GIVE_UP:
			sh->error = give_up(how, self->fd, addr,
					    self->given_up);
			break;
		case STEP_STOP:
			__atomic_store_n(&sh->stop, 1, __ATOMIC_RELEASE);
			pthread_join(thread, NULL);
			unmap_pud(addr);
			break;
		}
		set_and_wake(&sh->ack, cmd);
	}
}

/* Process B, which is the test. */

/* Returns whether A did as it was told. */
static bool command(FIXTURE_DATA(hugetlb_pmd_flush) * self, enum step step)
{
	struct shared *sh = self->shared;
	uint32_t cmd = ((sh->cmd >> 4) + 1) << 4 | step, ack;
	pid_t pids[2] = { self->pid };
	struct wait_limit limit = {};
	int status;

	sh->error = 0;
	set_and_wake(&sh->cmd, cmd);
	while (within_limit(&limit, pids, ARRAY_SIZE(pids), STEP_TIMEOUT_MS)) {
		/* The first thread may wait for the second. */
		pids[1] = __atomic_load_n(&sh->tid, __ATOMIC_ACQUIRE);
		ack = __atomic_load_n(&sh->ack, __ATOMIC_ACQUIRE);
		if (ack == cmd) {
			if (sh->error)
				ksft_print_msg("step %d failed: %s\n", step,
					       strerror(sh->error));
			return !sh->error;
		}
		if (waitpid(self->pid, &status, WNOHANG) == self->pid) {
			self->pid = 0;
			ksft_print_msg("process A is gone: status 0x%x\n",
				       status);
			return false;
		}
		wait_a_while(&sh->ack, ack, 100);
	}
	ksft_print_msg("process A does not answer in step %d\n", step);
	return false;
}

/* Shares nothing: not aligned to a PUD. */
static char *view_addr(FIXTURE_DATA(hugetlb_pmd_flush) * self)
{
	return self->area + self->room * pud_size() + pmd_size();
}

/* Before anybody maps the file: all pages to the second node but the one. */
static void place(FIXTURE_DATA(hugetlb_pmd_flush) * self)
{
	char *view = view_addr(self);
	int nodes[NR_PAGES], status[NR_PAGES];
	void *pages[NR_PAGES];
	int i;

	if (map_pud(self->fd, view))
		return;
	touch_pages(view, NR_PAGES);
	for (i = 0; i < NR_PAGES; i++) {
		pages[i] = view + i * pmd_size();
		nodes[i] = self->nodes[i != self->written];
	}
	move_pages(0, NR_PAGES, pages, nodes, status, MPOL_MF_MOVE_ALL);
	unmap_pud(view);
}

static void report_loss(const struct journal_loss *loss, void *arg)
{
	int *examples = arg;

	if (!*examples)
		return;
	(*examples)--;
	ksft_print_msg("a write is lost: number %llu, wrote 0x%llx found 0x%llx\n",
		       (unsigned long long)loss->write,
		       (unsigned long long)loss->wrote,
		       (unsigned long long)loss->found);
}

/* Returns the number of lost writes, or -1. Makes them good. */
static long compare(FIXTURE_DATA(hugetlb_pmd_flush) * self, int *examples)
{
	char *view = view_addr(self);
	uint64_t *journal;
	long lost;

	if (map_pud(self->fd, view))
		return -1;
	journal = (uint64_t *)(view + self->written * pmd_size() +
			       journal_offset());
	lost = journal_check(journal, 0, self->shared->last, report_loss,
			     examples);
	if (lost) {
		/* A new journal, or it would be lost again next time. */
		memset(journal, 0, JOURNAL_BYTES);
		self->shared->last = 0;
	}
	unmap_pud(view);
	return lost;
}

FIXTURE_SETUP(hugetlb_pmd_flush)
{
	pid_t parent, pid;
	const char *why;

	self->fd = -1;
	self->given_up = variant->page;
	self->written = variant->page + 1;
	if (geteuid())
		SKIP(return, "needs root, for MPOL_MF_MOVE_ALL");
	self->nr_cpus = cpu_list(self->cpus, ARRAY_SIZE(self->cpus));
	if (self->nr_cpus < 2)
		SKIP(return, "needs two CPUs");
	why = nodes_lack(self->nodes, 2, self->cpus[0]) ?:
	      guard_lacks() ?:
	      pool_lacks(self->nodes, 2, 2 * NR_PAGES + 2) ?:
	      file_lacks(&self->fd, pud_size());
	if (why)
		SKIP(return, "%s", why);
	for (self->room = MAP_ROOM; self->room >= MIN_ROOM; self->room /= 2) {
		self->area = reserve_puds(self->room + 2);
		if (self->area)
			break;
	}
	if (!self->area)
		SKIP(return, "needs %d times %zu MiB of address space",
		     MIN_ROOM + 2, pud_size() >> 20);
	self->shared = share_memory(sizeof(*self->shared));
	ASSERT_NE(NULL, self->shared);
	pin_to_cpu(self->cpus[0]);

	parent = getpid();
	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid)
		process_a(self, variant->give_up, parent);
	self->pid = pid;
}

FIXTURE_TEARDOWN(hugetlb_pmd_flush)
{
	if (self->pid > 0) {
		kill(self->pid, SIGKILL);
		waitpid(self->pid, NULL, 0);
	}
	if (self->area)
		munmap(self->area, (self->room + 2) * pud_size());
	/* Huge pages in use would stay in the pool. */
	if (self->fd >= 0)
		close(self->fd);
	guard_stop();
}

TEST_F_TIMEOUT(hugetlb_pmd_flush, lost_write, 120)
{
	long want = env_count("HUGETLB_PMD_FLUSH_CALLS", CALLS);
	long calls, moves = 0, lost_moves = 0, lost = 0, stale = 0, got, faults;
	int examples = EXAMPLES, rests = 0, from, to, status;
	uint64_t start = cycles_clock();
	bool moved, wrote;
	uint64_t then;
	char *addr;
	void *page;

	for (calls = 0; moves < want && calls < 4 * want &&
	     ms_since(start) < TEST_MS; calls++) {
		self->shared->pause_us = rests ? 50 << rests : 0;
		/* Not aligned, each reaches into the next PUD as well. */
		addr = self->area + calls * 4 % self->room * pud_size() +
		       (variant->aligned ? 0 : pmd_size());
		self->shared->addr = addr;
		addr += 2 * pud_size();
		page = addr + self->written * pmd_size();
		place(self);
		ASSERT_TRUE(command(self, STEP_MAP));
		/*
		 * Behind A in the file's tree of mappings: a hole is punched in
		 * this order, and only the last who has a table is left with
		 * one that is not shared, and flushed for the page.
		 */
		ASSERT_EQ(0, map_pud(self->fd, addr));
		faults = touch_pages(addr, NR_PAGES);
		/* Not after a loss: a skip would take its place. */
		if (variant->aligned && faults != 1 && !lost)
			SKIP(return, "%s", not_shared(faults, NR_PAGES));
		ASSERT_TRUE(command(self, STEP_WRITE));
		ASSERT_TRUE(command(self, STEP_GIVE_UP));

		touch_pages(page, 1);
		from = page_node(0, page);
		ASSERT_GE(from, 0);
		to = self->nodes[from == self->nodes[0]];
		then = __atomic_load_n(&self->shared->now, __ATOMIC_ACQUIRE);
		move_pages(0, 1, &page, &to, &status, MPOL_MF_MOVE_ALL);
		/* The first may have been under way before. */
		wrote = __atomic_load_n(&self->shared->now, __ATOMIC_ACQUIRE) >=
			then + 2;
		ASSERT_TRUE(command(self, STEP_STOP));
		stale += !self->shared->faults;
		touch_pages(page, 1);
		to = page_node(0, page);

		got = compare(self, &examples);
		ASSERT_GE(got, 0);
		lost += got;
		moved = to >= 0 && from != to;
		/*
		 * As in hugetlb_pmd_migrate.c: a page that is written to all the
		 * time may not get moved, and then the thread rests more.
		 */
		rests = moved ? 0 : rests < MAX_RESTS ? rests + 1 : MAX_RESTS;
		/* Who wrote nothing meanwhile could not lose anything. */
		moved = moved && (wrote || got);
		moves += moved;
		lost_moves += got && moved;
		unmap_pud(addr);
	}

	ksft_print_msg("hugetlb_pmd_flush: backing=hugetlbfs trigger=%s sharers=2",
		       give_up_name[variant->give_up]);
	printf(" control=%s calls=%ld failed_calls=0 moved_calls=%ld",
	       variant->aligned ? "no" : "yes", calls, moves);
	printf(" migrations=%ld lost_migrations=%ld lost_writes=%ld no_fault=%ld\n",
	       moves, lost_moves, lost, stale);

	EXPECT_EQ(0, lost)
		TH_LOG("%ld writes lost in %ld of %ld migrations", lost,
		       lost_moves, moves);
	if (!lost && moves < MIN_MOVES && moves < want)
		SKIP(return, "inconclusive: only %ld of %ld calls moved the page",
		     moves, calls);
}

TEST_HARNESS_MAIN
