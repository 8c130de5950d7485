// SPDX-License-Identifier: GPL-2.0
/*
 * Does mremap(2) of hugetlb mappings come back, with all pages in their place?
 *
 * mremap() holds i_mmap_rwsem of the file for writing while it moves entries.
 * Where the new mapping covers a PUD that has no page table yet, the table may
 * be one that others have, and to look for that takes i_mmap_rwsem for reading:
 * whoever does so in mremap() waits for itself.
 *
 *			old table	new mapping
 *	beside		own		covers none, comes back
 *	shared_source	shared		nothing to move, comes back
 *	shared_down	shared		the same, below the old one
 *	shared_part	shared		the same; the old one is longer, and
 *					what is before it stays
 *	whole_pud	own		covers a PUD
 *	shared_target	own		covers a PUD, and another process has a
 *					table with the same pages
 *	down		own		covers a PUD, below the old one
 *	part		own		covers a PUD; the old one is longer, and
 *					what is before it stays
 *	busy		own		covers a PUD, and another process writes
 *					to the pages all the time
 *	faults		own		the same, and the other one maps the
 *					file anew each time, so that it faults
 *					on each page
 *
 * The process that moves stores a word in each page before, and looks for all
 * of them after. What it stores then must be seen by another one that has the
 * file mapped, and by a new mapping. The test itself maps nothing before: if
 * the lock of the file is never released, a process that maps the file cannot
 * exit, either.
 *
 * Environment:
 *	HUGETLB_PMD_CHURN=1		run it at all: on a kernel that has the
 *					defect a process is left that nothing
 *					can end
 */
#include "kselftest_harness.h"

#include <fcntl.h>
#include <numa.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "migrate_util.h"
#include "vm_util.h"

#define NR_PAGES	4
#define NR_LEFT		2	/* pages that stay where a part is moved */
#define BUSY_WORD	8	/* of a page, for who writes meanwhile */
#define STUCK_MS	10000
#define BUSY_TRIES	500	/* of 10 ms, until a write falls into a move */

struct control {
	unsigned int go;		/* to the one that moves */
	unsigned int moved;		/* set by it */
	unsigned int looked;		/* 1 and 2: set by the other one */
	int error;			/* of a call that failed */
	long faults;			/* of it, to touch the pages */
	int bad_page;			/* -1 for none */
	uint64_t found;
	int other_bad_page;		/* what the other one found */
	uint64_t other_found;
	unsigned long writes;		/* of it */
	unsigned long meanwhile;	/* of these, during the last move */
	unsigned long lost;		/* of these */
};

FIXTURE(hugetlb_pmd_mremap)
{
	struct control *control;
	char *area;		/* PUDs: old at 0, new at 2, other at 4 */
	struct crew mover, other;
	int fd;
	bool stuck;
};

FIXTURE_VARIANT(hugetlb_pmd_mremap)
{
	size_t beside;			/* huge pages that the new one is off */
	bool shared_source;
	bool shared_target;
	bool down;
	bool part;
	bool busy;
	bool faults;
};

/* First those that come back on any kernel: after the others it is too late. */
FIXTURE_VARIANT_ADD(hugetlb_pmd_mremap, beside) {
	.beside = 1 };
FIXTURE_VARIANT_ADD(hugetlb_pmd_mremap, shared_source) {
	.shared_source = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_mremap, shared_down) {
	.shared_source = true, .down = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_mremap, shared_part) {
	.shared_source = true, .part = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_mremap, whole_pud) {};
FIXTURE_VARIANT_ADD(hugetlb_pmd_mremap, shared_target) {
	.shared_target = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_mremap, down) {
	.down = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_mremap, part) {
	.part = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_mremap, busy) {
	.shared_target = true, .busy = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_mremap, faults) {
	.shared_target = true, .busy = true, .faults = true };

static uint64_t *word_of(char *addr, int page)
{
	return (uint64_t *)(addr + page * pmd_size());
}

static char *map_at(char *addr, size_t size, int fd)
{
	return mmap(addr, size, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, 0);
}

static bool move_to(char *to, char *from)
{
	return mremap(from, pud_size(), pud_size(),
		      MREMAP_MAYMOVE | MREMAP_FIXED, to) == to;
}

static __noreturn void mover_main(FIXTURE_DATA(hugetlb_pmd_mremap) * self,
				  const FIXTURE_VARIANT(hugetlb_pmd_mremap) *
				  variant)
{
	struct control *control = self->control;
	int i, left = variant->part ? NR_LEFT : 0;
	int tries = variant->busy ? BUSY_TRIES : 1;
	unsigned long before;
	char *old = self->area, *new = self->area;
	uint64_t *words[NR_PAGES];

	*(variant->down ? &old : &new) += 2 * pud_size();
	/* What covers no PUD has a table of its own. */
	if (!variant->shared_source)
		old += pmd_size();
	new += variant->beside * pmd_size();
	if (map_at(old, left * pmd_size() + pud_size(), self->fd) == MAP_FAILED)
		crew_give_up(&control->error, errno);
	control->faults = touch_pages(old, NR_PAGES);
	for (i = 0; i < NR_PAGES; i++) {
		__atomic_store_n(word_of(old, i), 100 + i, __ATOMIC_RELAXED);
		words[i] = i < left ? word_of(old, i) : word_of(new, i - left);
	}

	for (;;) {
		before = __atomic_load_n(&control->writes, __ATOMIC_RELAXED);
		if (!move_to(new, old + left * pmd_size()))
			crew_give_up(&control->error, errno);
		control->meanwhile = __atomic_load_n(&control->writes,
						     __ATOMIC_RELAXED) - before;
		if (control->meanwhile || !--tries)
			break;
		/* Where it covers no PUD it comes back on any kernel. */
		if (!move_to(old, new))
			crew_give_up(&control->error, errno);
		usleep(10000);
	}

	for (i = 0; i < NR_PAGES && control->bad_page < 0; i++) {
		control->found = __atomic_load_n(words[i], __ATOMIC_RELAXED);
		if (control->found != 100u + i)
			control->bad_page = i;
	}
	for (i = 0; i < NR_PAGES; i++)
		__atomic_store_n(words[i], 200 + i, __ATOMIC_RELAXED);
	set_and_wake(&control->moved, 1);
	_exit(0);
}

/*
 * Store to all pages until they are moved, and look for what was stored: with
 * @fd in a new mapping each time.
 */
static void write_meanwhile(struct control *control, char *addr, int fd)
{
	uint64_t *word, n = 0;
	int i;

	while (!__atomic_load_n(&control->moved, __ATOMIC_ACQUIRE)) {
		n++;
		for (i = 0; i < NR_PAGES; i++) {
			word = word_of(addr, i) + BUSY_WORD;
			if (__atomic_load_n(word, __ATOMIC_RELAXED) != n - 1)
				count_up(&control->lost, 1);
			__atomic_store_n(word, n, __ATOMIC_RELAXED);
		}
		count_up(&control->writes, NR_PAGES);
		if (fd >= 0 && map_at(addr, pud_size(), fd) == MAP_FAILED)
			crew_give_up(&control->error, errno);
	}
}

static __noreturn void other_main(FIXTURE_DATA(hugetlb_pmd_mremap) * self,
				  const FIXTURE_VARIANT(hugetlb_pmd_mremap) *
				  variant)
{
	struct control *control = self->control;
	char *addr = self->area + 4 * pud_size();
	int i;

	/* It covers a PUD only if its table is to be shared. */
	if (!variant->shared_source && !variant->shared_target)
		addr += pmd_size();
	if (map_at(addr, pud_size(), self->fd) == MAP_FAILED)
		crew_give_up(&control->error, errno);
	for (i = 0; i < NR_PAGES; i++)
		__atomic_store_n(word_of(addr, i), 1 + i, __ATOMIC_RELAXED);
	set_and_wake(&control->looked, 1);

	if (variant->busy)
		write_meanwhile(control, addr,
				variant->faults ? self->fd : -1);
	wait_for_change(&control->moved, 0);
	for (i = 0; i < NR_PAGES && control->other_bad_page < 0; i++) {
		control->other_found = __atomic_load_n(word_of(addr, i),
						       __ATOMIC_RELAXED);
		if (control->other_found != 200u + i)
			control->other_bad_page = i;
	}
	set_and_wake(&control->looked, 2);
	_exit(0);
}

FIXTURE_SETUP(hugetlb_pmd_mremap)
{
	char *own, *other;
	int nodes[2];
	const char *why;
	long faults;
	pid_t pid;

	self->fd = -1;
	if (geteuid())
		SKIP(return, "needs root, for the huge page pool");
	why = churn_lacks("may leave a process that nothing can end");
	if (why)
		SKIP(return, "%s", why);
	if (guard_left())
		SKIP(return, "a process of an earlier test is stuck in the kernel");
	why = nodes_lack(nodes, 1, sched_getcpu()) ?:
	      guard_lacks() ?:
	      pool_lacks(nodes, 1, 2 * NR_PAGES) ?:
	      file_lacks(&self->fd, pud_size()) ?:
	      area_lacks(&self->area, 6);
	if (why)
		SKIP(return, "%s", why);
	self->control = share_memory(sizeof(*self->control));
	ASSERT_NE(NULL, self->control);
	self->control->bad_page = -1;
	self->control->other_bad_page = -1;

	/* Before the test maps the file: a child would inherit it. */
	own = map_at(self->area, pmd_size(), self->fd);
	ASSERT_NE(MAP_FAILED, own);
	other = mremap(own, pmd_size(), pmd_size(),
		       MREMAP_MAYMOVE | MREMAP_FIXED,
		       self->area + pud_size());
	if (other == MAP_FAILED)
		SKIP(return,
		     "no mremap of huge pages on this kernel (since 5.16)");
	ASSERT_EQ(self->area, mmap(self->area, 6 * pud_size(), PROT_NONE,
				   MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS |
				   MAP_NORESERVE, -1, 0));
	/* To share a table is what does not come back. */
	faults = faults_to_share(self->fd, self->area, PROT_READ | PROT_WRITE,
				 0, NR_PAGES);
	ASSERT_LT(0, faults)
		TH_LOG("cannot map the file: %s", strerror(-faults));
	if (!variant->beside && faults != 1)
		SKIP(return, "%s", not_shared(faults, NR_PAGES));

	pid = crew_fork(&self->mover);
	ASSERT_GE(pid, 0);
	if (!pid) {
		wait_for_change(&self->control->go, 0);
		mover_main(self, variant);
	}
	pid = crew_fork(&self->other);
	ASSERT_GE(pid, 0);
	if (!pid)
		other_main(self, variant);
}

FIXTURE_TEARDOWN(hugetlb_pmd_mremap)
{
	bool gone = !self->stuck && crew_kill(&self->mover, STUCK_MS) &&
		    crew_kill(&self->other, STUCK_MS);
	const char *why;

	/* Whoever is stuck has the lock of the file: leave that alone, too. */
	if (gone && self->fd >= 0)
		close(self->fd);
	why = guard_end(gone);
	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
}

TEST_F_TIMEOUT(hugetlb_pmd_mremap, comes_back, 120)
{
	struct control *control = self->control;
	char *view;
	bool control_only = variant->beside || variant->shared_source;
	int i;

	ASSERT_TRUE(wait_a_while(&control->looked, 0, STUCK_MS))
		TH_LOG("a call failed: %s", strerror(control->error));
	set_and_wake(&control->go, 1);
	self->stuck = !crew_wait(&self->mover, STUCK_MS);
	ksft_print_msg("hugetlb_pmd_mremap: control=%s",
		       control_only ? "yes" : "no");
	printf(" calls=1 failed_calls=0 migrations=1 lost_migrations=%d",
	       self->stuck);
	printf(" faults=%ld writes=%lu\n", control->faults, control->meanwhile);
	/* Whoever asks the file for more now waits as well. */
	ASSERT_FALSE(self->stuck)
		TH_LOG("mremap() did not come back in %d ms", STUCK_MS);
	ASSERT_EQ(0, control->error)
		TH_LOG("a call failed: %s", strerror(control->error));
	ASSERT_EQ(0, self->mover.status[0]);
	if (variant->shared_source && control->faults != 1)
		SKIP(return, "%s", not_shared(control->faults, NR_PAGES));

	EXPECT_EQ(-1, control->bad_page)
		TH_LOG("page %d holds %llu where it was moved to",
		       control->bad_page, (unsigned long long)control->found);
	ASSERT_TRUE(wait_a_while(&control->looked, 1, STUCK_MS));
	EXPECT_EQ(0, control->lost)
		TH_LOG("%lu of %lu writes of another one were lost",
		       control->lost, control->writes);
	EXPECT_EQ(-1, control->other_bad_page)
		TH_LOG("page %d holds %llu where another one maps it",
		       control->other_bad_page,
		       (unsigned long long)control->other_found);
	view = self->area + pud_size() + pmd_size();
	ASSERT_NE(MAP_FAILED, map_at(view, NR_PAGES * pmd_size(), self->fd));
	for (i = 0; i < NR_PAGES; i++)
		EXPECT_EQ(200u + i, __atomic_load_n(word_of(view, i),
						    __ATOMIC_RELAXED));
	if (variant->busy && !control->meanwhile && __test_passed(_metadata))
		SKIP(return, "inconclusive: nobody wrote meanwhile");
}

TEST_HARNESS_MAIN
