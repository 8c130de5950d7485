// SPDX-License-Identifier: GPL-2.0
/*
 * Has the kernel itself found a page that it copied while somebody could still
 * write to it?
 *
 * With CONFIG_DEBUG_VM_UNMAPPED migration looks, before it copies a folio, for
 * page table entries that are left and (on x86) for processes that had one and
 * were not flushed since, or not on all CPUs that run them. It counts what it
 * finds, in debugfs. So this test needs no writers and no luck, as
 * hugetlb_pmd_migrate does: the first migration of a page in a shared PMD table
 * shows whether all sharers are flushed.
 *
 * One round of the test is
 *
 *	touch	the page, in all processes, so that each has an entry: after a
 *		migration the table may be shared no more
 *	move	it to the other node, by move_pages(2)
 *	read	the counters: looked at, compared, and nothing found
 *
 * Pages in tables that are not shared, and pages that are not hugetlb pages,
 * show that the kernel does not complain without cause.
 */
#include "kselftest_harness.h"

#include <errno.h>
#include <numa.h>
#include <numaif.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_page.h"
#include "migrate_util.h"
#include "vm_util.h"

#define DEBUGFS		"/sys/kernel/debug/vm_unmapped/"
#define MAX_SHARERS	4
#define PROOF_PAGES	4	/* more than one, or a fault proves nothing */
#define STEP_TIMEOUT_MS	20000

enum kind {
	SHARED,		/* a hugetlb file, in one PMD table */
	UNALIGNED,	/* the same file, in tables of their own */
	ANON,		/* a small page, private, after fork */
	SHMEM,		/* a small page of a file */
	THP,		/* an anonymous huge page, after fork */
};

struct sharer {
	uint32_t step;		/* to make */
	uint32_t done;		/* the last that was made */
	int error;		/* errno of the mapping */
	bool awake;		/* between steps: its CPU has its memory loaded */
	char *addr;
};

/* What the kernel has counted. */
struct counters {
	long looks, flushes, cpus, mapped, unflushed, behind;
	long no_gen, no_cpus, not_looked;
};

FIXTURE(hugetlb_pmd_unmapped)
{
	struct sharer *sharers;
	struct crew crew;
	char *area;		/* PUDs, two for each process */
	size_t area_size;
	char *addr;		/* of the page, in this process */
	int fd;
	int nodes[2];
};

FIXTURE_VARIANT(hugetlb_pmd_unmapped)
{
	enum kind kind;
	int sharers;		/* this process included */
	int calls;		/* that move the page */
	bool awake;		/* the others never sleep */
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_unmapped, shared_2) {
	.kind = SHARED, .sharers = 2, .calls = 10 };
FIXTURE_VARIANT_ADD(hugetlb_pmd_unmapped, shared_4) {
	.kind = SHARED, .sharers = 4, .calls = 10 };
FIXTURE_VARIANT_ADD(hugetlb_pmd_unmapped, shared_awake) {
	.kind = SHARED, .sharers = 2, .calls = 10, .awake = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_unmapped, not_shared) {
	.kind = UNALIGNED, .sharers = 4, .calls = 10 };
FIXTURE_VARIANT_ADD(hugetlb_pmd_unmapped, anon) {
	.kind = ANON, .sharers = 4, .calls = 10 };
FIXTURE_VARIANT_ADD(hugetlb_pmd_unmapped, shmem) {
	.kind = SHMEM, .sharers = 4, .calls = 10 };
FIXTURE_VARIANT_ADD(hugetlb_pmd_unmapped, thp) {
	.kind = THP, .sharers = 4, .calls = 10 };

static bool is_hugetlb(enum kind kind)
{
	return kind == SHARED || kind == UNALIGNED;
}

static long counter(const char *name)
{
	char path[96];

	snprintf(path, sizeof(path), DEBUGFS "%s", name);
	return file_read_long(path);
}

static struct counters read_counters(void)
{
	return (struct counters) {
		.looks = counter("looks"),
		.flushes = counter("flushes"),
		.cpus = counter("cpus"),
		.mapped = counter("mapped"),
		.unflushed = counter("unflushed"),
		.behind = counter("behind"),
		.no_gen = counter("no_gen"),
		.no_cpus = counter("no_cpus"),
		.not_looked = counter("contended") + counter("no_rmap") +
			      counter("no_room") + counter("busy"),
	};
}

static __noreturn void sharer_main(struct sharer *me, int fd)
{
	uint32_t step = 0;

	/* Other processes have inherited what they are to share. */
	if (fd >= 0)
		me->error = map_pud(fd, me->addr);
	for (;;) {
		while (me->awake &&
		       __atomic_load_n(&me->step, __ATOMIC_ACQUIRE) == step)
			;
		step = wait_for_change(&me->step, step);
		if (!me->error)
			touch_pages(me->addr, 1);
		set_and_wake(&me->done, step);
	}
}

/* Have all processes touch the page; false, with a line, if one does not. */
static bool all_touch(struct sharer *sharers, int nr, char *addr,
		      const pid_t *pids)
{
	int i;

	touch_pages(addr, 1);
	for (i = 0; i < nr; i++)
		set_and_wake(&sharers[i].step, sharers[i].step + 1);
	for (i = 0; i < nr; i++) {
		struct sharer *s = &sharers[i];
		struct wait_limit limit = {};
		uint32_t done;

		for (;;) {
			done = __atomic_load_n(&s->done, __ATOMIC_ACQUIRE);
			if (done == s->step)
				break;
			if (!within_limit(&limit, &pids[i], 1,
					  STEP_TIMEOUT_MS)) {
				ksft_print_msg("sharer %d does not answer\n",
					       i + 1);
				return false;
			}
			wait_a_while(&s->done, done, 100);
		}
		if (s->error) {
			ksft_print_msg("sharer %d cannot map the file: %s\n",
				       i + 1, strerror(s->error));
			return false;
		}
	}
	return true;
}

/* Arm the check; NULL, or why that cannot be. */
static const char *arm(void)
{
	char value[16];
	long enabled = counter("enabled");

	if (enabled < 0)
		return "no " DEBUGFS ": needs CONFIG_DEBUG_VM_UNMAPPED and debugfs";
	snprintf(value, sizeof(value), "%ld", enabled);
	if (guard_undo(DEBUGFS "enabled", value) ||
	    file_write(DEBUGFS "enabled", "1") || counter("enabled") != 1)
		return "cannot write to " DEBUGFS "enabled";
	return NULL;
}

/* Small memory, which the processes inherit. */
static char *make_memory(enum kind kind, char *area)
{
	size_t len = kind == THP ? pmd_size() : (size_t)getpagesize();
	char *addr = mmap(area, len, PROT_READ | PROT_WRITE,
			  MAP_FIXED | MAP_ANONYMOUS |
			  (kind == SHMEM ? MAP_SHARED : MAP_PRIVATE), -1, 0);

	if (addr == MAP_FAILED)
		return NULL;
	if (kind == THP)
		madvise(addr, len, MADV_HUGEPAGE);
	__atomic_store_n(addr, 1, __ATOMIC_RELAXED);
	return addr;
}

/* Its last small page is where it has to be. */
static bool is_thp(char *addr)
{
	int64_t nr = pmd_size() / getpagesize();
	int64_t first = page_pfn(0, addr);

	return first > 0 && !(first % nr) &&
	       page_pfn(0, addr + (nr - 1) * getpagesize()) == first + nr - 1;
}

FIXTURE_SETUP(hugetlb_pmd_unmapped)
{
	const char *why;
	long faults;
	int i, puds;

	self->fd = -1;
	if (geteuid())
		SKIP(return, "needs root, for the huge page pool");
	why = nodes_lack(self->nodes, 2, sched_getcpu()) ?:
	      guard_lacks();
	if (!why)
		why = arm();
	if (!why && is_hugetlb(variant->kind))
		why = pool_lacks(self->nodes, 2, PROOF_PAGES + 1);
	if (why)
		SKIP(return, "%s", why);

	puds = 2 * MAX_SHARERS;
	self->area_size = puds * pud_size();
	self->area = reserve_puds(puds);
	if (!self->area)
		SKIP(return, "needs %d times %zu MiB of address space",
		     puds, pud_size() >> 20);
	self->sharers = share_memory(MAX_SHARERS * sizeof(*self->sharers));
	ASSERT_NE(NULL, self->sharers);

	self->addr = self->area;
	if (is_hugetlb(variant->kind)) {
		why = file_lacks(&self->fd, pud_size());
		if (why)
			SKIP(return, "%s", why);
		faults = faults_to_share(self->fd, self->addr,
					 PROT_READ | PROT_WRITE, 0,
					 PROOF_PAGES);
		if (faults != 1)
			SKIP(return, "%s", not_shared(faults, PROOF_PAGES));
		/* No whole PUD is in a mapping that begins here. */
		if (variant->kind == UNALIGNED)
			self->addr += pmd_size();
	} else {
		self->addr = make_memory(variant->kind, self->area);
		ASSERT_NE(NULL, self->addr);
		if (variant->kind == THP && !is_thp(self->addr))
			SKIP(return, "no THP to be had");
	}

	/* Before this process maps a file that they would inherit. */
	for (i = 0; i < variant->sharers - 1; i++) {
		struct sharer *s = &self->sharers[i];
		pid_t pid;

		s->awake = variant->awake;
		s->addr = self->addr;
		if (self->fd >= 0)
			s->addr += 2 * (i + 1) * pud_size();
		pid = crew_fork(&self->crew);
		ASSERT_GE(pid, 0);
		if (!pid)
			sharer_main(s, self->fd);
	}
	if (self->fd >= 0)
		ASSERT_EQ(0, map_pud(self->fd, self->addr));
}

FIXTURE_TEARDOWN(hugetlb_pmd_unmapped)
{
	crew_kill(&self->crew, STEP_TIMEOUT_MS);
	if (self->area)
		munmap(self->area, self->area_size);
	/* Huge pages in use would stay in the pool. */
	if (self->fd >= 0)
		close(self->fd);
	guard_stop();
}

TEST_F_TIMEOUT(hugetlb_pmd_unmapped, nothing_found, 120)
{
	long calls = 0, moves = 0, bad_moves = 0, first = 0;
	long mapped, unflushed, behind;
	struct counters start = read_counters(), before, after;
	int from, to, status, error = 0;

	while (moves < variant->calls && calls < 4 * variant->calls) {
		void *page = self->addr;

		ASSERT_TRUE(all_touch(self->sharers, variant->sharers - 1,
				      self->addr, self->crew.pids));
		from = page_node(0, self->addr);
		ASSERT_GE(from, 0);
		to = self->nodes[from == self->nodes[0]];
		before = read_counters();
		calls++;
		if (move_pages(0, 1, &page, &to, &status, MPOL_MF_MOVE_ALL))
			error = errno;
		else if (status < 0)
			error = -status;
		after = read_counters();
		touch_pages(self->addr, 1);
		if (page_node(0, self->addr) != to)
			continue;
		moves++;
		/* Looked at, or this proves nothing. */
		ASSERT_GT(after.looks, before.looks)
			TH_LOG("migration %ld was not looked at", moves);
		if (after.mapped == before.mapped &&
		    after.unflushed == before.unflushed &&
		    after.behind == before.behind)
			continue;
		bad_moves++;
		if (!first)
			first = moves;
	}

	after = read_counters();
	mapped = after.mapped - start.mapped;
	unflushed = after.unflushed - start.unflushed;
	behind = after.behind - start.behind;
	ksft_print_msg("hugetlb_pmd_unmapped: sharers=%d control=%s calls=%ld moves=%ld",
		       variant->sharers,
		       variant->kind == SHARED ? "no" : "yes", calls, moves);
	printf(" bad_moves=%ld first=%ld mapped=%ld unflushed=%ld behind=%ld",
	       bad_moves, first, mapped, unflushed, behind);
	printf(" looks=%ld flushes=%ld cpus=%ld no_cpus=%ld not_looked=%ld\n",
	       after.looks - start.looks, after.flushes - start.flushes,
	       after.cpus - start.cpus, after.no_cpus - start.no_cpus,
	       after.not_looked - start.not_looked);

	EXPECT_EQ(0, mapped)
		TH_LOG("%ld entries were left for pages that were copied",
		       mapped);
	EXPECT_EQ(0, unflushed)
		TH_LOG("%ld times a process was not flushed, first at migration %ld",
		       unflushed, first);
	EXPECT_EQ(0, behind)
		TH_LOG("%ld times a CPU was left out of a flush, first at migration %ld",
		       behind, first);
	/* Not after a failure: a skip would take its place. */
	if (bad_moves || mapped || unflushed || behind)
		return;
	if (!moves)
		SKIP(return, "inconclusive: none of %ld calls moved the page: %s",
		     calls, strerror(error));
	/* Only x86 counts flushes. */
	if (after.no_gen != start.no_gen)
		SKIP(return, "inconclusive: this architecture does not count flushes");
	EXPECT_GE(after.flushes - start.flushes, 1)
		TH_LOG("no flush was compared");
	/* The other process has run all the time, on some CPU. */
	if (variant->awake && after.no_cpus == start.no_cpus)
		EXPECT_GE(after.cpus - start.cpus, 1)
			TH_LOG("no CPU was looked at");
}

TEST_HARNESS_MAIN
