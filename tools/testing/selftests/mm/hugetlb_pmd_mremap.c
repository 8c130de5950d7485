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
 *	private		own		covers a PUD, but is private: comes back
 *	whole_pud	own		covers a PUD
 *	shared_target	own		covers a PUD, and another process has a
 *					table with the same pages
 *	down		own		covers a PUD, below the old one
 *	part		own		covers a PUD; the old one is longer, and
 *					what is before it stays
 *	two_puds	own		covers two PUDs
 *	busy		own		covers a PUD, and another process writes
 *					to the pages all the time
 *	two_busy	own		the same, with two PUDs
 *	faults		own		as busy, and the other one maps the file
 *					anew each time, so that it faults on
 *					each page
 *
 * The process that moves stores a word in each page before, and looks for all
 * of them after. But in a shared mapping it would find them in the file, if
 * nothing had been moved. So it asks pagemap first, and touches nothing before:
 * the same page frames have to be at the new address, and none at the old one.
 * Of a shared table nothing is moved: they are there once they are touched.
 *
 * What it stores then must be seen by another process that has the file mapped,
 * and by a new mapping, or by neither if its own is private. At the end as many
 * huge pages must be free as before. The test itself maps nothing until then: if
 * the lock of the file is never released, a process that maps the file cannot
 * exit, either.
 *
 * Another test is about mremap() without memory for one of the two tables that
 * it needs. It has to fail with nothing moved. If it moves entries before it has
 * both tables, it has to move them back, but it does not hold i_mmap_rwsem all
 * the time, and another process can come to share the old table:
 *
 *	mremap()			another process
 *	  moves pages to one table
 *	  has no memory for the other
 *					shares the old table, maps the pages
 *	  moves the pages back, where
 *	  there are entries now
 *
 * If it overwrites an entry, the page is counted as mapped once too often, for
 * good: /proc/kpagecount tells. If it leaves the entry alone, its own is
 * unmapped, and it has a huge page less: /proc/self/status tells.
 *
 *			the other process
 *	apart		has a table of its own, always
 *	joins		comes to share the old table
 *
 * The new mapping covers no PUD, so this comes back on any kernel. It is the last,
 * as pages that stay mapped are missing then. So it is not run where a process is
 * stuck already: -v joins runs it alone.
 *
 * Environment:
 *	HUGETLB_PMD_CHURN=1		run it at all: on a kernel that has the
 *					defect a process is left that nothing
 *					can end, and another that is not to be
 *					ended
 */
#include "kselftest_harness.h"

#include <errno.h>
#include <fcntl.h>
#include <numa.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_page.h"
#include "migrate_util.h"
#include "vm_util.h"

#define NR_PAGES	4
#define NR_PUDS		9	/* old at 0, new at 3, other at 6 */
#define STUCK_MS	10000
#define LATE_MS		2000	/* for pages that are freed later */

static uint64_t word_at(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_RELAXED);
}

static char *map_at(char *addr, size_t size, int fd)
{
	return mmap(addr, size, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, 0);
}

/* Keep @size bytes there from being used by anything else. */
static bool reserve_again(char *addr, size_t size)
{
	return mmap(addr, size, PROT_NONE,
		    MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		    -1, 0) == addr;
}

static bool move_to(char *to, char *from, size_t size)
{
	return mremap(from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, to) ==
	       to;
}

/* Huge pages in use on all nodes. */
static long pages_used(void)
{
	long used = 0;
	int node;

	for (node = 0; node <= numa_max_node(); node++)
		used += pool_used(node);
	return used;
}

/*
 * How many more are in use than before, and stay so. Where somebody else has
 * huge pages too, nothing can be told: 0.
 */
static long pages_lost(long before, bool pool_was_shared)
{
	unsigned long start = cycles_clock();
	long lost;

	do {
		lost = pages_used() - before;
		if (lost <= 0)
			return 0;
		if (pool_was_shared || pool_is_shared()) {
			ksft_print_msg("others have huge pages: none can be called lost\n");
			return 0;
		}
		usleep(10 * 1000);
	} while (ms_since(start) < LATE_MS);
	return lost;
}

/* Whether this kernel moves huge pages, and says where they are. */
static const char *can_move_lacks(char *area, int fd)
{
	char *own = map_at(area, pmd_size(), fd);
	const char *why;

	if (own == MAP_FAILED)
		return "cannot map the file";
	touch_pages(own, 1);
	why = mremap_lacks(own, area + pud_size());
	reserve_again(area, 2 * pud_size());
	return why;
}

/* mremap(2) to where it covers a PUD. */

#define NR_LEFT		2	/* pages that stay where a part is moved */
#define BUSY_WORD	8	/* of a page, for who writes meanwhile */
#define BUSY_MS		(STUCK_MS / 4)	/* until a write falls into a move */

struct control {
	unsigned int go;		/* to the one that moves */
	unsigned int moved;		/* set by it */
	unsigned int looked;		/* 1 and 2: set by the other one */
	int error;			/* of a call that failed */
	long faults;			/* of it, to touch the pages */
	int in_place;			/* pages there before any is touched */
	int same;			/* pages there after that */
	int stale;			/* pages at the old address */
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
	char *area;
	struct crew mover, other;
	int fd;
	long used;			/* huge pages, before */
	bool pool_was_shared;
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
	bool private;
	bool two;			/* PUDs */
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
FIXTURE_VARIANT_ADD(hugetlb_pmd_mremap, private) {
	.private = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_mremap, whole_pud) {};
FIXTURE_VARIANT_ADD(hugetlb_pmd_mremap, shared_target) {
	.shared_target = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_mremap, down) {
	.down = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_mremap, part) {
	.part = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_mremap, two_puds) {
	.two = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_mremap, busy) {
	.shared_target = true, .busy = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_mremap, two_busy) {
	.shared_target = true, .busy = true, .two = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_mremap, faults) {
	.shared_target = true, .busy = true, .faults = true };

/* Of what is moved. */
static size_t size_of(const FIXTURE_VARIANT(hugetlb_pmd_mremap) * variant)
{
	return (variant->two ? 2 : 1) * pud_size();
}

/* The word of page @i of NR_PAGES. Of two PUDs each has half of the pages. */
static uint64_t *word_of(const FIXTURE_VARIANT(hugetlb_pmd_mremap) * variant,
			 char *addr, int i)
{
	if (variant->two && i >= NR_PAGES / 2) {
		addr += pud_size();
		i -= NR_PAGES / 2;
	}
	return (uint64_t *)(addr + i * pmd_size());
}

static char *map_private(char *addr, size_t size, int fd)
{
	return mmap(addr, size, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, 0);
}

static __noreturn void mover_main(FIXTURE_DATA(hugetlb_pmd_mremap) * self,
				  const FIXTURE_VARIANT(hugetlb_pmd_mremap) *
				  variant)
{
	struct control *control = self->control;
	int i, left = variant->part ? NR_LEFT : 0;
	size_t size = size_of(variant), all = left * pmd_size() + size;
	uint64_t *from[NR_PAGES], *words[NR_PAGES];
	char *old = self->area, *new = self->area;
	int64_t pfns[NR_PAGES];
	unsigned long before;
	uint64_t start;

	*(variant->down ? &old : &new) += 3 * pud_size();
	/* What covers no PUD has a table of its own. */
	if (!variant->shared_source)
		old += pmd_size();
	new += variant->beside * pmd_size();
	if ((variant->private ? map_private(old, all, self->fd) :
				map_at(old, all, self->fd)) == MAP_FAILED)
		crew_give_up(&control->error, errno);
	control->faults = touch_pages(old, variant->two ? 1 : NR_PAGES);
	for (i = 0; i < NR_PAGES; i++) {
		from[i] = word_of(variant, old, i);
		words[i] = i < left ? from[i] : word_of(variant, new, i - left);
		__atomic_store_n(from[i], 100 + i, __ATOMIC_RELAXED);
	}

	start = cycles_clock();
	for (;;) {
		for (i = 0; i < NR_PAGES; i++) {
			/* Others may have had its table: it was not moved. */
			word_at(from[i]);
			pfns[i] = page_pfn(0, from[i]);
			if (pfns[i] < 0)
				crew_give_up(&control->error, -pfns[i]);
		}
		before = __atomic_load_n(&control->writes, __ATOMIC_RELAXED);
		if (!move_to(new, old + left * pmd_size(), size))
			crew_give_up(&control->error, errno);
		control->meanwhile = __atomic_load_n(&control->writes,
						     __ATOMIC_RELAXED) - before;
		control->in_place = 0;
		for (i = 0; i < NR_PAGES; i++) {
			control->in_place += page_pfn(0, words[i]) == pfns[i];
			control->stale += i >= left &&
					  page_pfn(0, from[i]) >= 0;
		}
		if (!variant->busy || control->meanwhile ||
		    ms_since(start) >= BUSY_MS ||
		    control->in_place != NR_PAGES)
			break;
		if (!move_to(old, new, size))
			crew_give_up(&control->error, errno);
		usleep(10000);
	}

	for (i = 0; i < NR_PAGES && control->bad_page < 0; i++) {
		control->found = word_at(words[i]);
		if (control->found != 100u + i)
			control->bad_page = i;
	}
	for (i = 0; i < NR_PAGES; i++) {
		__atomic_store_n(words[i], 200 + i, __ATOMIC_RELAXED);
		control->same += page_pfn(0, words[i]) == pfns[i];
	}
	set_and_wake(&control->moved, 1);
	_exit(0);
}

/*
 * Store to all pages until they are moved, and look for what was stored: with
 * @fd in a new mapping each time.
 */
static void write_meanwhile(const FIXTURE_VARIANT(hugetlb_pmd_mremap) * variant,
			    struct control *control, char *addr, int fd)
{
	uint64_t *word, n = 0;
	int i;

	while (!__atomic_load_n(&control->moved, __ATOMIC_ACQUIRE)) {
		n++;
		for (i = 0; i < NR_PAGES; i++) {
			word = word_of(variant, addr, i) + BUSY_WORD;
			if (word_at(word) != n - 1)
				count_up(&control->lost, 1);
			__atomic_store_n(word, n, __ATOMIC_RELAXED);
		}
		count_up(&control->writes, NR_PAGES);
		if (fd >= 0 &&
		    map_at(addr, size_of(variant), fd) == MAP_FAILED)
			crew_give_up(&control->error, errno);
	}
}

/* What others find in page @i when it has been moved and stored to. */
static uint64_t seen_after(const FIXTURE_VARIANT(hugetlb_pmd_mremap) * variant,
			   int i)
{
	return (variant->private ? 1 : 200) + i;
}

static __noreturn void other_main(FIXTURE_DATA(hugetlb_pmd_mremap) * self,
				  const FIXTURE_VARIANT(hugetlb_pmd_mremap) *
				  variant)
{
	struct control *control = self->control;
	char *addr = self->area + 6 * pud_size();
	int i;

	/* At an offset that no other mapping has, it shares no table. */
	if (!variant->shared_source && !variant->shared_target)
		addr += 2 * pmd_size();
	if (map_at(addr, size_of(variant), self->fd) == MAP_FAILED)
		crew_give_up(&control->error, errno);
	for (i = 0; i < NR_PAGES; i++)
		__atomic_store_n(word_of(variant, addr, i), 1 + i,
				 __ATOMIC_RELAXED);
	set_and_wake(&control->looked, 1);

	if (variant->busy)
		write_meanwhile(variant, control, addr,
				variant->faults ? self->fd : -1);
	wait_for_change(&control->moved, 0);
	for (i = 0; i < NR_PAGES && control->other_bad_page < 0; i++) {
		control->other_found = word_at(word_of(variant, addr, i));
		if (control->other_found != seen_after(variant, i))
			control->other_bad_page = i;
	}
	set_and_wake(&control->looked, 2);
	_exit(0);
}

FIXTURE_SETUP(hugetlb_pmd_mremap)
{
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
	      file_lacks(&self->fd, size_of(variant)) ?:
	      area_lacks(&self->area, NR_PUDS);
	if (why)
		SKIP(return, "%s", why);
	self->control = share_memory(sizeof(*self->control));
	ASSERT_NE(NULL, self->control);
	self->control->bad_page = -1;
	self->control->other_bad_page = -1;
	self->pool_was_shared = pool_is_shared();
	self->used = pages_used();

	/* Before the test maps the file: a child would inherit it. */
	why = can_move_lacks(self->area, self->fd);
	if (why)
		SKIP(return, "%s", why);
	/* To share a table is what does not come back. */
	faults = faults_to_share(self->fd, self->area, PROT_READ | PROT_WRITE,
				 0, NR_PAGES);
	ASSERT_LT(0, faults)
		TH_LOG("cannot map the file: %s", strerror(-faults));
	if (!variant->beside && !variant->private && faults != 1)
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
	char *view = self->area + pmd_size();
	size_t size = size_of(variant);
	bool control_only = variant->beside || variant->shared_source ||
			    variant->private;
	long lost;
	int i;

	ASSERT_TRUE(wait_a_while(&control->looked, 0, STUCK_MS))
		TH_LOG("a call failed: %s", strerror(control->error));
	set_and_wake(&control->go, 1);
	self->stuck = !crew_wait(&self->mover, STUCK_MS);
	ksft_print_msg("hugetlb_pmd_mremap: control=%s",
		       control_only ? "yes" : "no");
	printf(" calls=1 failed_calls=0 migrations=1 lost_migrations=%d",
	       self->stuck);
	printf(" faults=%ld writes=%lu in_place=%d\n", control->faults,
	       control->meanwhile, control->in_place);
	/* Whoever asks the file for more now waits as well. */
	ASSERT_FALSE(self->stuck)
		TH_LOG("mremap() did not come back in %d ms", STUCK_MS);
	ASSERT_EQ(0, control->error)
		TH_LOG("a call failed: %s", strerror(control->error));
	ASSERT_EQ(0, self->mover.status[0]);
	if (variant->shared_source && control->faults != 1)
		SKIP(return, "%s", not_shared(control->faults, NR_PAGES));

	if (!variant->shared_source)
		EXPECT_EQ(NR_PAGES, control->in_place)
			TH_LOG("only %d of %d pages are where they were moved to",
			       control->in_place, NR_PAGES);
	EXPECT_EQ(0, control->stale)
		TH_LOG("%d pages are at the old address", control->stale);
	EXPECT_EQ(NR_PAGES, control->same)
		TH_LOG("%d of %d pages are others than before",
		       NR_PAGES - control->same, NR_PAGES);
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
	ASSERT_NE(MAP_FAILED, map_at(view, size, self->fd));
	for (i = 0; i < NR_PAGES; i++)
		EXPECT_EQ(seen_after(variant, i),
			  word_at(word_of(variant, view, i)));

	ASSERT_TRUE(crew_wait(&self->other, STUCK_MS));
	ASSERT_EQ(0, munmap(view, size));
	close(self->fd);
	self->fd = -1;
	lost = pages_lost(self->used, self->pool_was_shared);
	EXPECT_EQ(0, lost)
		TH_LOG("%ld huge pages are in use for good", lost);
	if (variant->busy && !control->meanwhile && __test_passed(_metadata))
		SKIP(return, "inconclusive: nobody wrote meanwhile");
}

/* mremap(2) without memory for one of two tables. */

#define FAIL_PAGE_ALLOC	"/sys/kernel/debug/fail_page_alloc/"
#define FAIL_USERCOPY	"/sys/kernel/debug/fail_usercopy"
#define BACK_MS		4000	/* at least, */
#define BACK_MAX_MS	20000	/* and at most, */
#define BACK_FEW	20	/* until there were so many of each kind */
#define NR_FAILING	50	/* no call allocates as many pages */
#define NR_DELAYS	61	/* of who shares, until it touches a page */
#define DELAY_NS	8000	/* and how much longer each of them is */

struct back {
	unsigned int turn;	/* odd: to touch the pages during the call */
	unsigned int called;	/* the same turn: it has come back */
	unsigned int stop;
	unsigned int stopped;
	bool no_memory;		/* that call, */
	int64_t pfns[NR_PAGES];	/* and where the pages were before */
	int error;		/* of a call that failed otherwise */
	unsigned long calls;
	unsigned long refused;	/* for want of memory */
	/* Of the refused, not by the first allocation: a table's, or a slab's. */
	unsigned long later;
	unsigned long joined;	/* of the refused, with the old table shared */
	unsigned long unmapped;	/* pages, by calls that failed */
	unsigned long moved;	/* pages not in their place after these */
	unsigned long bad;	/* words that were not there any more */
	unsigned long lost;	/* pages that the other one had mapped */
};

FIXTURE(hugetlb_pmd_mremap_back)
{
	struct back *back;
	char *area;
	struct crew crew;
	int fd;
	long used;
	bool pool_was_shared;
};

FIXTURE_VARIANT(hugetlb_pmd_mremap_back)
{
	bool joins;
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_mremap_back, apart) {};
FIXTURE_VARIANT_ADD(hugetlb_pmd_mremap_back, joins) {
	.joins = true };

/*
 * Huge pages that this process has mapped, as the kernel counts them: fewer than
 * none where it has unmapped what others had mapped in a table that it shared.
 */
static long own_pages(void)
{
	FILE *file = fopen("/proc/self/status", "re");
	unsigned long kib = 0;
	char line[128];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "HugetlbPages: %lu", &kib) == 1)
			break;
	if (file)
		fclose(file);
	return (long)kib / (long)(pmd_size() >> 10);
}

/*
 * At the new address the first one, at the end of the PUD, needs another table
 * than the others. These are spread over the PUD, and the one that comes next is
 * the last to be moved back, if any is.
 */
static uint64_t *back_word(char *addr, int i)
{
	size_t pages = pud_size() / pmd_size();
	const size_t at[NR_PAGES] = { pages - 1, pages - 2, pages / 2, 0 };

	return (uint64_t *)(addr + at[i] * pmd_size());
}

/* Returns 0 or the error number of mremap(2), with allocation @nth failing. */
static int move_and_fail(struct back *back, int file, char *to, char *from,
			 int nth, bool *injected)
{
	char text[16];
	int ret, len = snprintf(text, sizeof(text), "%d", nth);

	if (pwrite(file, text, len, 0) != len)
		crew_give_up(&back->error, errno);
	ret = move_to(to, from, pud_size()) ? 0 : errno;
	len = pread(file, text, sizeof(text) - 1, 0);
	if (len <= 0 || pwrite(file, "0", 1, 0) != 1)
		crew_give_up(&back->error, errno);
	text[len] = '\0';
	*injected = !strtol(text, NULL, 10);
	return ret;
}

/* How many pages are not where they were before the call that failed. */
static int not_in_place(const struct back *back, char *new, char *old)
{
	int i, nr = 0;

	for (i = 0; i < NR_PAGES; i++)
		nr += page_pfn(0, back_word(old, i)) != back->pfns[i] ||
		      page_pfn(0, back_word(new, i)) >= 0;
	return nr;
}

/*
 * Move a mapping that covers a PUD to where it covers none and needs two tables,
 * with its first allocation failing, then the second and so on, until the call
 * makes no more of them. The tables are freed only when both of the PUDs that
 * they are for have been unmapped from end to end.
 */
static __noreturn void back_main(FIXTURE_DATA(hugetlb_pmd_mremap_back) * self)
{
	int i, ret, nth = 1, file = open("/proc/thread-self/fail-nth", O_RDWR);
	char *old = self->area, *puds = old + 3 * pud_size();
	char *new = puds + pmd_size();
	struct back *back = self->back;
	unsigned int turn = 0;
	long before, after;
	bool injected;

	if (file < 0 || map_at(old, pud_size(), self->fd) == MAP_FAILED)
		crew_give_up(&back->error, errno);
	while (!__atomic_load_n(&back->stop, __ATOMIC_ACQUIRE)) {
		/* The other one has no table now: these come into its own. */
		for (i = 0; i < NR_PAGES; i++) {
			__atomic_store_n(back_word(old, i), turn + 1,
					 __ATOMIC_RELAXED);
			back->pfns[i] = page_pfn(0, back_word(old, i));
			if (back->pfns[i] < 0)
				crew_give_up(&back->error, -back->pfns[i]);
		}
		before = own_pages();
		set_and_wake(&back->turn, turn + 1);
		ret = move_and_fail(back, file, new, old, nth, &injected);
		after = own_pages();
		if (ret && (ret != ENOMEM || !injected))
			crew_give_up(&back->error, ret);
		count_up(&back->calls, 1);
		if (ret) {
			count_up(&back->refused, 1);
			count_up(&back->later, nth > 1);
			if (after < before)
				count_up(&back->unmapped, before - after);
			count_up(&back->moved, not_in_place(back, new, old));
		}
		back->no_memory = ret;
		set_and_wake(&back->called, turn + 1);
		/* Not by mremap(): that comes back on fixed kernels only. */
		if (!reserve_again(puds, 2 * pud_size()) ||
		    (!ret && map_at(old, pud_size(), self->fd) == MAP_FAILED))
			crew_give_up(&back->error, errno);
		for (i = 0; i < NR_PAGES; i++)
			if (word_at(back_word(old, i)) != turn + 1)
				count_up(&back->bad, 1);
		nth = injected && nth < NR_FAILING ? nth + 1 : 1;
		turn = wait_for_change(&back->turn, turn + 1);
	}
	__atomic_store_n(&back->stopped, 1, __ATOMIC_RELEASE);
	_exit(0);
}

/*
 * Touch the pages in each turn, and a little later each time. They have to stay
 * mapped, and to be those of the one that moves.
 */
static __noreturn void join_main(FIXTURE_DATA(hugetlb_pmd_mremap_back) * self,
				 bool joins)
{
	char *addr = self->area + 6 * pud_size() + (joins ? 0 : pmd_size());
	struct back *back = self->back;
	unsigned int turn;
	uint64_t start;
	long faults;
	int i;

	for (turn = 0;; turn += 2) {
		if (map_at(addr, pud_size(), self->fd) == MAP_FAILED)
			crew_give_up(&back->error, errno);
		if (turn)
			set_and_wake(&back->turn, turn);
		/* To be woken takes longer than to move the pages. */
		while (__atomic_load_n(&back->turn, __ATOMIC_ACQUIRE) == turn)
			if (__atomic_load_n(&back->stopped, __ATOMIC_ACQUIRE))
				_exit(0);
		start = cycles_clock();
		while (cycles_clock() - start <
		       turn / 2 % NR_DELAYS * DELAY_NS)
			;
		for (i = 1, faults = 0; i < NR_PAGES; i++)
			faults += touch_pages((char *)back_word(addr, i), 1);
		wait_for_change(&back->called, turn ? turn - 1 : 0);
		if (back->no_memory && faults == 1)
			count_up(&back->joined, 1);
		for (i = 1; i < NR_PAGES; i++)
			if (page_pfn(0, back_word(addr, i)) != back->pfns[i])
				count_up(&back->lost, 1);
		for (i = 0; i < NR_PAGES; i++)
			if (word_at(back_word(addr, i)) != turn + 1)
				count_up(&back->bad, 1);
		unmap_pud(addr);
	}
}

/* How often the kernel counts a page as mapped; 0 where it does not say. */
static uint64_t times_mapped(int64_t pfn)
{
	int fd = open("/proc/kpagecount", O_RDONLY | O_CLOEXEC);
	uint64_t times = 0;

	if (fd < 0)
		return 0;
	if (pread(fd, &times, sizeof(times), pfn * sizeof(times)) !=
	    sizeof(times))
		times = 0;
	close(fd);
	return times;
}

/* How many of the pages count as mapped, when nobody maps the file any more. */
static int still_mapped(const struct back *back)
{
	uint64_t start = cycles_clock();
	int i, nr;

	do {
		for (i = 0, nr = 0; i < NR_PAGES; i++)
			nr += back->pfns[i] > 0 && times_mapped(back->pfns[i]);
		if (!nr)
			return 0;
		usleep(10 * 1000);
	} while (ms_since(start) < LATE_MS);
	return nr;
}

/*
 * A page that counts as mapped cannot be taken out of its file: a kernel for
 * debugging dies of that, with a lock held that faults on other files need. So
 * have a process that keeps the file, and nothing else: neither the guardian nor
 * who reads what the test prints waits for it.
 */
static void keep_open(int keep)
{
	int fd;

	if (fork())
		return;
	setsid();
	for (fd = 0; fd < getdtablesize(); fd++)
		if (fd != keep)
			close(fd);
	for (;;)
		pause();
}

/*
 * Have page allocations fail that may sleep, and each size; not in the log. Each
 * one that fails counts "times" down, also by fail-nth, unless there is no limit.
 */
static const char *failing_lacks(void)
{
	static const char * const set[][2] = {
		{ FAIL_PAGE_ALLOC "times", "-1" },
		{ FAIL_PAGE_ALLOC "ignore-gfp-wait", "N" },
		{ FAIL_PAGE_ALLOC "min-order", "0" },
		{ FAIL_PAGE_ALLOC "verbose", "0" },
	};
	static char why[160];
	char old[32];
	size_t i;
	int ret;

	/* Otherwise allocations of everybody would fail, more than before. */
	if (file_read_long(FAIL_PAGE_ALLOC "probability") > 0)
		return "others have page allocations fail: " FAIL_PAGE_ALLOC "probability is not 0";
	/* What is left of fail-nth would fail the read of fail-nth itself. */
	if (!access(FAIL_USERCOPY, F_OK))
		return "fail-nth counts copies to user space, too: " FAIL_USERCOPY " is there";
	for (i = 0; i < ARRAY_SIZE(set); i++) {
		ret = file_read(set[i][0], old, sizeof(old));
		if (!ret)
			ret = guard_undo(set[i][0], old);
		if (!ret)
			ret = file_write(set[i][0], set[i][1]);
		/* Some kernels take no "times" below 0: it is put back. */
		if (!ret || (ret == -EINVAL && !i))
			continue;
		snprintf(why, sizeof(why),
			 "cannot set %s: %s: needs debugfs (lockdown=none), %s and %s",
			 set[i][0], strerror(-ret), "CONFIG_FAIL_PAGE_ALLOC",
			 "CONFIG_FAULT_INJECTION_DEBUG_FS");
		return why;
	}
	return NULL;
}

FIXTURE_SETUP(hugetlb_pmd_mremap_back)
{
	const char *why;
	int i, nodes[2];
	long faults;
	pid_t pid;

	self->fd = -1;
	if (geteuid())
		SKIP(return, "needs root, to have allocations fail");
	why = churn_lacks("may leave huge pages in use for good");
	if (why)
		SKIP(return, "%s", why);
	if (guard_left())
		SKIP(return, "a process of an earlier test is stuck in the kernel");
	if (access("/proc/thread-self/fail-nth", W_OK))
		SKIP(return, "no /proc/thread-self/fail-nth: needs %s",
		     "CONFIG_FAIL_PAGE_ALLOC");
	why = nodes_lack(nodes, 1, sched_getcpu()) ?:
	      guard_lacks() ?:
	      failing_lacks() ?:
	      pool_lacks(nodes, 1, 2 * NR_PAGES) ?:
	      file_lacks(&self->fd, pud_size()) ?:
	      area_lacks(&self->area, NR_PUDS);
	if (why)
		SKIP(return, "%s", why);
	self->back = share_memory(sizeof(*self->back));
	ASSERT_NE(NULL, self->back);
	self->pool_was_shared = pool_is_shared();
	self->used = pages_used();
	why = can_move_lacks(self->area, self->fd);
	if (why)
		SKIP(return, "%s", why);
	faults = faults_to_share(self->fd, self->area, PROT_READ | PROT_WRITE,
				 0, NR_PAGES);
	ASSERT_LT(0, faults)
		TH_LOG("cannot map the file: %s", strerror(-faults));
	if (faults != 1)
		SKIP(return, "%s", not_shared(faults, NR_PAGES));

	for (i = 0; i < 2; i++) {
		pid = crew_fork(&self->crew);
		ASSERT_GE(pid, 0);
		if (pid)
			continue;
		if (i)
			join_main(self, variant->joins);
		back_main(self);
	}
}

FIXTURE_TEARDOWN(hugetlb_pmd_mremap_back)
{
	const char *why = crew_end(&self->crew, self->fd, STUCK_MS);

	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
}

TEST_F_TIMEOUT(hugetlb_pmd_mremap_back, moves_nothing, 120)
{
	struct back *back = self->back;
	uint64_t start = cycles_clock();
	bool gone, enough, died = false;
	long lost = 0;
	int mapped = 0;

	do {
		usleep(10 * 1000);
		died = crew_ended(&self->crew);
		enough = counted(&back->later) >= BACK_FEW &&
			 (counted(&back->joined) >= BACK_FEW ||
			  !variant->joins);
	} while (!died &&
		 ms_since(start) < (enough ? BACK_MS : BACK_MAX_MS));
	__atomic_store_n(&back->stop, 1, __ATOMIC_RELEASE);
	gone = crew_wait(&self->crew, STUCK_MS);
	if (gone) {
		mapped = still_mapped(back);
		if (mapped)
			keep_open(self->fd);
		close(self->fd);
		self->fd = -1;
		if (!mapped)
			lost = pages_lost(self->used, self->pool_was_shared);
	}

	/* A call that moves entries back, over those of others, leaves pages mapped. */
	ksft_print_msg("hugetlb_pmd_mremap: control=%s",
		       variant->joins ? "no" : "yes");
	printf(" calls=%lu failed_calls=%lu migrations=%lu lost_migrations=%ld",
	       back->calls, back->refused, back->refused, mapped + lost);
	printf(" later=%lu joined=%lu unmapped=%lu mapped=%d lost_pages=%ld\n",
	       back->later, back->joined, back->unmapped, mapped, lost);
	ASSERT_EQ(0, back->error)
		TH_LOG("a call failed: %s", strerror(back->error));
	ASSERT_TRUE(gone)
		TH_LOG("a process does not end");
	ASSERT_FALSE(died || crew_failed(&self->crew))
		TH_LOG("a process died");
	EXPECT_EQ(0, mapped)
		TH_LOG("%d pages count as mapped, by nobody: a process keeps their file for good",
		       mapped);
	EXPECT_EQ(0, lost)
		TH_LOG("%ld huge pages are in use for good", lost);
	EXPECT_EQ(0, back->moved)
		TH_LOG("%lu pages were not in their place after a call that failed",
		       back->moved);
	EXPECT_EQ(0, back->unmapped)
		TH_LOG("%lu pages were unmapped by a call that failed",
		       back->unmapped);
	EXPECT_EQ(0, back->lost)
		TH_LOG("%lu pages of another process were not there after the call",
		       back->lost);
	EXPECT_EQ(0, back->bad)
		TH_LOG("%lu words were not there after the call", back->bad);
	/* Not after a failure: a skip would take its place. */
	if (!enough && __test_passed(_metadata))
		SKIP(return,
		     "inconclusive: of %lu calls %lu failed at a later allocation than the first; %lu times another one shared the old table",
		     back->calls, back->later, back->joined);
}

TEST_HARNESS_MAIN
