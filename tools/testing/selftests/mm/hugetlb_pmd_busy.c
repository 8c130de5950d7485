// SPDX-License-Identifier: GPL-2.0
/*
 * Can pages of a shared PMD page table be migrated while they are in use?
 *
 * Processes that map the same PUD of a hugetlb file share a page table (see
 * hugetlb_pmd_migrate.c). A kernel that unshares it to migrate a page needs
 * locks for that which it can only try to get, as it has locked the page. Page
 * faults hold them, and so does another migration. Each unsharing makes all who
 * share the table fault. So the busier the memory is, the more migrations fail:
 * of soft offlining, of memory that is to go offline, of move_pages(2).
 *
 * Here processes share a table. Some migrate pages, each its own ones, to and
 * fro between two nodes. Some write to all pages, and check what they have
 * written. Some only share the table, and sleep. Nobody does anything else that
 * a migration has to wait for, so nearly all pages have to be moved at the first
 * try.
 *
 * They map the file one after the other, before anybody migrates. A process
 * that finds the pages in a shared table takes one page fault to touch them
 * all. If one of them takes more, nothing is tested, and the test is skipped.
 *
 * Environment:
 *	HUGETLB_PMD_CHURN=1		run the variants in which several migrate,
 *					too: that crashes kernels before 5.7,
 *					which unshare one table twice
 *	HUGETLB_PMD_BUSY_SECONDS=n	how long a variant runs
 */
#include "kselftest_harness.h"

#include <numa.h>
#include <numaif.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <unistd.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_page.h"
#include "migrate_util.h"
#include "vm_util.h"

#define NR_PAGES	8
#define SPARE		2	/* free pages of a node, above what is needed */
#define SECONDS		10
#define MAX_SECONDS	400
#define ENOUGH		50	/* fewer tries are no evidence */
#define WANT_PERCENT	90
#define TRIES		3	/* to touch all pages with one fault, to find one */
#define START_MS	60000
#define STUCK_MS	20000
#define WORD_BYTES	64	/* each writer has a word of its own in a page */

struct control {
	uint32_t ready;		/* how many have mapped the file */
	uint32_t go;
	uint32_t stop;
	long faults;		/* of one that found no shared table, or 0 */
	unsigned long calls;
	unsigned long failed_calls;
	unsigned long tries;	/* one for each page of a call */
	unsigned long moved;
	unsigned long writes;
	unsigned long lost;
	int error;		/* of a call that failed for good */
};

FIXTURE(hugetlb_pmd_busy)
{
	struct control *control;
	struct crew crew;
	int fd;
};

FIXTURE_VARIANT(hugetlb_pmd_busy)
{
	int migrators, writers, sleepers;
	bool all;	/* of its pages in one call, or one by one */
	bool control;	/* nobody shares */
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_busy, one_migrates) {
	.migrators = 1, .writers = 2, .sleepers = 2, .all = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_busy, two_migrate) {
	.migrators = 2, .writers = 2 };
FIXTURE_VARIANT_ADD(hugetlb_pmd_busy, four_migrate) {
	.migrators = 4, .writers = 2 };
FIXTURE_VARIANT_ADD(hugetlb_pmd_busy, many_share) {
	.migrators = 1, .writers = 2, .sleepers = 64, .all = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_busy, control_alone) {
	.migrators = 1, .all = true, .control = true };

static struct control *shared;
static char *where;		/* TRIES PUDs of address space */

static bool stopped(void)
{
	return __atomic_load_n(&shared->stop, __ATOMIC_ACQUIRE);
}

static __noreturn void give_up(int error)
{
	crew_give_up(&shared->error, error);
}

/* The first one fills the table, and all others have to share it. */
static void map_and_wait(int fd, bool first)
{
	int tries, error;
	long faults = 0;

	/* A fault that has nothing to do with these pages may be counted too. */
	for (tries = 0; tries < TRIES && faults != 1; tries++) {
		if (tries) {
			unmap_pud(where);
			where += pud_size();
		}
		error = map_pud(fd, where);
		if (error)
			give_up(error);
		faults = touch_pages(where, NR_PAGES);
		if (first)
			break;
	}
	if (!first && faults != 1)
		shared->faults = faults;
	set_and_wake(&shared->ready, shared->ready + 1);
	wait_for_change(&shared->go, 0);
}

static __noreturn void sleep_main(int fd, bool first)
{
	map_and_wait(fd, first);
	wait_for_change(&shared->stop, 0);
	_exit(0);
}

/*
 * The node of a page of this process, below 0 if it is not mapped: another
 * migration may unshare the table between the touch and the question.
 */
static int node_of(void *page)
{
	int tries, node = -ENOENT;

	for (tries = 0; tries < TRIES && node < 0; tries++) {
		touch_pages(page, 1);
		node = page_node(0, page);
	}
	return node;
}

static __noreturn void migrate_main(int fd, bool first, int page, int nr,
				    bool all, const int nodes[2])
{
	int status[NR_PAGES], from[NR_PAGES], target[NR_PAGES];
	int i, k, now, step = all ? nr : 1;
	void *pages[NR_PAGES];
	long rc;

	map_and_wait(fd, first);
	for (i = 0; i < nr; i++)
		pages[i] = where + (page + i) * pmd_size();
	for (i = 0; !stopped(); i = (i + step) % nr) {
		/*
		 * Each goes to the node where it is not.  Asked for the node
		 * where it is, a page counts as moved and nobody moves it.
		 */
		for (k = i; k < i + step; k++) {
			from[k] = node_of(pages[k]);
			target[k] = nodes[from[k] == nodes[0]];
			status[k] = -EBUSY;
		}
		rc = move_pages(0, step, pages + i, target + i, status + i,
				MPOL_MF_MOVE_ALL);
		if (rc < 0 && errno != EBUSY && errno != EAGAIN)
			give_up(errno);
		count_up(&shared->calls, 1);
		count_up(&shared->failed_calls, rc != 0);
		for (k = i; k < i + step; k++) {
			now = node_of(pages[k]);
			if (from[k] < 0 || now < 0)
				continue;
			count_up(&shared->tries, 1);
			count_up(&shared->moved, now == target[k]);
		}
	}
	_exit(0);
}

static uint64_t *word_of(int page, int writer)
{
	return (uint64_t *)(where + page * pmd_size() + writer * WORD_BYTES);
}

static __noreturn void write_main(int fd, bool first, int nr)
{
	uint64_t *word, last[NR_PAGES] = {}, n = 0;
	int i, error;

	map_and_wait(fd, first);
	while (!stopped()) {
		n++;
		for (i = 0; i < NR_PAGES; i++) {
			word = word_of(i, nr);
			if (__atomic_load_n(word, __ATOMIC_RELAXED) != last[i])
				count_up(&shared->lost, 1);
			last[i] = n;
			__atomic_store_n(word, n, __ATOMIC_RELAXED);
		}
		count_up(&shared->writes, NR_PAGES);
	}
	/* What is in a TLB alone is lost: look with a new mapping. */
	unmap_pud(where);
	error = map_pud(fd, where);
	if (error)
		give_up(error);
	for (i = 0; i < NR_PAGES; i++)
		if (__atomic_load_n(word_of(i, nr), __ATOMIC_RELAXED) != last[i])
			count_up(&shared->lost, 1);
	_exit(0);
}

/* Whether process @nr has mapped the file, as all before it have. */
static bool is_ready(uint32_t nr)
{
	int waited;

	for (waited = 0; waited < START_MS && !shared->error; waited += 100)
		if (wait_a_while(&shared->ready, nr, 100))
			return true;
	return false;
}

FIXTURE_SETUP(hugetlb_pmd_busy)
{
	int i, nr, nodes[2], each = NR_PAGES / variant->migrators;
	const char *why;
	pid_t pid;

	self->fd = -1;
	if (geteuid())
		SKIP(return, "needs root, for MPOL_MF_MOVE_ALL");
	why = variant->migrators < 2 ? NULL :
	      churn_lacks("may crash a kernel before 5.7");
	if (why)
		SKIP(return, "%s", why);
	why = nodes_lack(nodes, 2, sched_getcpu()) ?:
	      guard_lacks() ?:
	      pool_lacks(nodes, 2, NR_PAGES + SPARE) ?:
	      file_lacks(&self->fd, pud_size()) ?:
	      area_lacks(&where, TRIES);
	if (why)
		SKIP(return, "%s", why);
	shared = share_memory(sizeof(*shared));
	ASSERT_NE(NULL, shared);
	self->control = shared;

	nr = variant->migrators + variant->writers + variant->sleepers;
	/* Who migrates comes last: all share when it begins. */
	for (i = 0; i < nr; i++) {
		pid = crew_fork(&self->crew);
		ASSERT_GE(pid, 0);
		if (pid) {
			ASSERT_TRUE(is_ready(i))
				TH_LOG("process %d has not come up: %s", i,
				       strerror(shared->error ?: ETIMEDOUT));
			continue;
		}
		if (i < variant->sleepers)
			sleep_main(self->fd, !i);
		if (i < variant->sleepers + variant->writers)
			write_main(self->fd, !i, i - variant->sleepers);
		migrate_main(self->fd, !i, each * (nr - 1 - i), each,
			     variant->all, nodes);
	}
}

FIXTURE_TEARDOWN(hugetlb_pmd_busy)
{
	const char *why = crew_end(&self->crew, self->fd, STUCK_MS);

	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
}

TEST_F_TIMEOUT(hugetlb_pmd_busy, moves, 500)
{
	long seconds = env_count("HUGETLB_PMD_BUSY_SECONDS", SECONDS);
	struct control *control = self->control;
	unsigned long start, tries, moved;
	bool gone, few_writes;
	int died = 0;

	if (control->faults)
		SKIP(return, "%s", not_shared(control->faults, NR_PAGES));

	set_and_wake(&control->go, 1);
	start = cycles_clock();
	seconds = MIN(MAX(seconds, 1), MAX_SECONDS);
	while (!died && ms_since(start) < seconds * 1000) {
		usleep(10 * 1000);
		died = crew_ended(&self->crew);
	}
	set_and_wake(&control->stop, 1);
	gone = crew_wait(&self->crew, STUCK_MS);

	tries = control->tries;
	moved = control->moved;
	few_writes = variant->writers && control->writes < ENOUGH;
	ksft_print_msg("hugetlb_pmd_busy: control=%s",
		       variant->control ? "yes" : "no");
	/* A page may be in somebody's hands for a moment: few are no defect. */
	printf(" calls=%lu failed_calls=%lu migrations=%lu lost_migrations=%lu",
	       control->calls, control->failed_calls, tries,
	       moved * 100 < tries * WANT_PERCENT ? tries - moved : 0);
	printf(" moved=%lu writes=%lu\n", moved, control->writes);
	ASSERT_TRUE(gone)
		TH_LOG("a process does not end");
	ASSERT_EQ(0, control->error)
		TH_LOG("a call failed: %s", strerror(control->error));
	ASSERT_EQ(0, died)
		TH_LOG("a process died");
	ASSERT_EQ(0, crew_failed(&self->crew))
		TH_LOG("a process died");
	EXPECT_EQ(0, control->lost)
		TH_LOG("%lu writes were lost", control->lost);
	/* Not after a loss: a skip would take its place. */
	if (!control->lost && (tries < ENOUGH || few_writes))
		SKIP(return, "inconclusive: pages were to be moved %lu times, %lu writes",
		     tries, control->writes);
	EXPECT_GE(moved * 100, tries * WANT_PERCENT)
		TH_LOG("%lu of %lu pages were moved, %d percent are wanted",
		       moved, tries, WANT_PERCENT);
}

TEST_HARNESS_MAIN
