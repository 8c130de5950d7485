// SPDX-License-Identifier: GPL-2.0
/*
 * If a process joins a shared PMD page table while one of its pages is being
 * migrated, are those flushed who had the table before?
 *
 * Processes that map the same PUD of a hugetlb file share a page table (see
 * hugetlb_pmd_migrate.c). A kernel that leaves it shared when it migrates a page
 * takes one entry out, and flushes all who share the table. It has to know who
 * that is, and to call their MMU notifiers before, which may sleep. So others may
 * join in between:
 *
 *	migration			joiner			writer
 *	comes to the joiner: it maps				has the table,
 *	nothing							and writes
 *	calls its notifiers		touches another page,
 *					and joins the table
 *	finds the page in it,
 *	flushes the joiner alone				writes on to
 *	copies the page						the old page
 *
 * The joiner has many notifiers (see lib/test_mmu_notifier.c), so that the call of
 * all takes a while. When the record of the one that is called first has the
 * start of a range, the joiner touches another page, and writes to the one that
 * is on its way. It has met the migration if the record has no end after that
 * start yet. From then on it writes, as the writer does.
 *
 * A walk of a file's mappings comes first to those that begin first in the file.
 * In variant @walk_meets, that is the joiner. In @walk_returns, that is the
 * writer, who shares the table with another process from the beginning: the
 * notifiers of all who may share it are called for that, the joiner's among them.
 * A walk that finds out before these calls who is to be flushed would leave the
 * joiner out. The other process is the test itself, which writes before its call
 * and after it.
 *
 * A kernel that takes the table away from each process lets nobody join meanwhile,
 * and says nothing here: inconclusive.
 */
#include "kselftest_harness.h"

#include <fcntl.h>
#include <numa.h>
#include <numaif.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <lib/test_mmu_notifier_uapi.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_journal.h"
#include "migrate_page.h"
#include "migrate_util.h"

#define DEVICE		"/dev/test_mmu_notifier"
#define NR_PAGES	4	/* more than one, or a fault proves nothing */
#define SPARE		2	/* free pages of a node, above what is needed */
#define ROUNDS		40
#define MAX_ROUNDS	600	/* until enough have met a join */
#define ENOUGH		5	/* fewer moves that met a join are no evidence */
#define DEVICES		200	/* each is one notifier more to be called */
#define EVENTS		65536	/* of all rounds, in the record that is read */
#define FEW_EVENTS	256	/* in each of the others */
#define WRITES		2000	/* before the call, and after it */
#define NO_EVENT	0	/* of this kind there is none */
#define STEP_MS		20000
#define EXIT_MS		60000	/* each device waits for those who call it */

/* Who writes to the page, and the place of its journal there. */
enum { WRITER, JOINER, SHARER, NR_WRITERS };

static const char * const writer_name[] = { "writer", "joiner", "sharer" };

struct control {
	uint32_t round;		/* that the others are to begin */
	uint32_t armed;		/* the joiner has mapped the file in this one */
	uint32_t over;		/* the call of this one has returned */
	uint32_t joined;	/* the joiner has joined in this one, or did not */
	uint32_t writing;	/* the writer is in this one */
	uint32_t hold;		/* both are to end this one */
	uint32_t held;		/* and the writer has */
	uint32_t left;		/* and the joiner */
	uint64_t last[NR_WRITERS];	/* number of the last write */
	bool met;
	int error;
};

FIXTURE(hugetlb_pmd_join)
{
	struct control *control;
	struct crew crew;
	pid_t writer;
	char *area;
	char *page;		/* in the writer */
	int fd;
	int nodes[2];
	int cpus[CPU_SETSIZE];
};

FIXTURE_VARIANT(hugetlb_pmd_join)
{
	bool joiner_first;	/* in the walk; or the writer is */
	bool sharer;		/* another process has the table, too */
	bool control;		/* the joiner has joined before the call */
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_join, walk_meets) {
	.joiner_first = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_join, walk_meets_of_three) {
	.joiner_first = true, .sharer = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_join, walk_returns) {
	.sharer = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_join, control_joined_before) {
	.joiner_first = true, .control = true };

/* Address space, in PUDs. The one that matters is the second of the file. */
#define WRITER_AT	0
#define JOINER_AT	2
#define SHARER_AT	4
#define VIEW_AT		5
#define AREA_PUDS	6

static struct control *shared;

static uint32_t now(uint32_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/* Whether @word becomes @round. */
static bool wait_for(uint32_t *word, uint32_t round)
{
	uint64_t start = cycles_clock();
	uint32_t val;

	while ((val = now(word)) != round) {
		if (ms_since(start) > STEP_MS || shared->error)
			return false;
		wait_a_while(word, val, 100);
	}
	return true;
}

/* The second PUD of the file at @addr, and if @wide the first before it. */
static int map_file(int fd, char *addr, bool wide)
{
	size_t from = wide ? 0 : pud_size();

	addr -= wide ? pud_size() : 0;
	return mmap(addr, 2 * pud_size() - from, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, from) ==
	       MAP_FAILED ? errno : 0;
}

static void unmap_file(char *addr, bool wide)
{
	if (wide)
		unmap_pud(addr - pud_size());
	unmap_pud(addr);
}

static uint64_t *journal_of(char *page, int who)
{
	return (uint64_t *)(page + who * JOURNAL_BYTES);
}

/* Each goes on with its numbers from round to round: the page stays the same. */
static void write_next(char *page, int who)
{
	uint64_t n = shared->last[who] + 1;

	journal_write(journal_of(page, who), who, n);
	__atomic_store_n(&shared->last[who], n, __ATOMIC_RELEASE);
}

/* The writer. */

static __noreturn void writer_main(int fd, char *addr, bool wide, int cpu)
{
	uint32_t round = 0;
	int error;

	pin_to_cpu(cpu);
	error = map_file(fd, addr, wide);
	if (error)
		crew_give_up(&shared->error, error);
	touch_pages(addr, NR_PAGES);
	for (;;) {
		round = wait_for_change(&shared->round, round);
		set_and_wake(&shared->writing, round);
		while (now(&shared->hold) != round)
			write_next(addr, WRITER);
		set_and_wake(&shared->held, round);
	}
}

/* The joiner. */

static int record(char *addr, int nr_events)
{
	struct test_mmu_notifier_record how = {
		.address = (uintptr_t)addr,
		.bytes = pud_size(),
		.nr_events = nr_events,
	};
	int device = open(DEVICE, O_RDWR | O_CLOEXEC);

	if (device < 0 || ioctl(device, TEST_MMU_NOTIFIER_RECORD, &how))
		crew_give_up(&shared->error, errno);
	return device;
}

/*
 * Reads the record up to the first event of @kind that was not read yet, and
 * returns whether there is one. What comes after it is left to the next call.
 */
static bool happened(int device, uint32_t kind)
{
	struct test_mmu_notifier_event event;
	ssize_t got;

	while ((got = read(device, &event, sizeof(event))) == sizeof(event))
		if (event.kind == kind)
			return true;
	if (got < 0)
		crew_give_up(&shared->error, errno);
	return false;
}

static __noreturn void joiner_main(int fd, char *addr, bool wide, int cpu,
				   bool before)
{
	long i, devices = env_count("HUGETLB_PMD_JOIN_DEVICES", DEVICES);
	uint32_t round = 0;
	int device, error;
	bool started;

	pin_to_cpu(cpu);
	for (i = 1; i < devices; i++)
		record(addr, FEW_EVENTS);
	/* The last that was registered is the first that is called. */
	device = record(addr, EVENTS);
	for (;;) {
		round = wait_for_change(&shared->round, round);
		unmap_file(addr, wide);
		error = map_file(fd, addr, wide);
		if (error)
			crew_give_up(&shared->error, error);
		if (before)
			touch_pages(addr, NR_PAGES);
		happened(device, NO_EVENT);
		set_and_wake(&shared->armed, round);
		started = false;
		while (!started && now(&shared->over) != round)
			started = happened(device,
					   TEST_MMU_NOTIFIER_RANGE_START);
		shared->met = false;
		if (started) {
			/*
			 * A fault on the page that is on its way could wait.
			 * The table has it already, and the write needs none.
			 */
			if (!before)
				touch_pages(addr + pmd_size(), 1);
			write_next(addr, JOINER);
			shared->met = !happened(device,
						TEST_MMU_NOTIFIER_RANGE_END);
		}
		set_and_wake(&shared->joined, round);
		while (now(&shared->hold) != round)
			if (started)
				write_next(addr, JOINER);
			else
				wait_a_while(&shared->hold, round - 1, 100);
		set_and_wake(&shared->left, round);
	}
}

/* The test. */

static void keep_loss(const struct journal_loss *loss, void *arg)
{
	struct journal_loss *last = arg;

	*last = *loss;
}

/* Whether a process goes on writing for a while. */
static bool writes_more(int who)
{
	uint64_t from, start = cycles_clock(), *last = &shared->last[who];

	from = __atomic_load_n(last, __ATOMIC_ACQUIRE);
	while (__atomic_load_n(last, __ATOMIC_ACQUIRE) - from < WRITES)
		if (ms_since(start) > STEP_MS)
			return false;
	return true;
}

/* The test's own writes, if it has the table. */
static void write_some(char *page)
{
	int i;

	for (i = 0; i < WRITES; i++)
		write_next(page, SHARER);
}

FIXTURE_SETUP(hugetlb_pmd_join)
{
	char *writer, *joiner, *sharer;
	const char *why;
	long faults;
	pid_t pid;

	self->fd = -1;
	if (geteuid())
		SKIP(return, "needs root, for MPOL_MF_MOVE_ALL");
	if (access(DEVICE, F_OK))
		SKIP(return, "needs lib/test_mmu_notifier.c in the kernel");
	if (cpu_list(self->cpus, ARRAY_SIZE(self->cpus)) < 3)
		SKIP(return, "needs 3 CPUs: who loses one, loses its TLB");
	why = nodes_lack(self->nodes, 2, self->cpus[2]) ?:
	      guard_lacks() ?:
	      pool_lacks(self->nodes, 2, 2 * NR_PAGES + SPARE) ?:
	      file_lacks(&self->fd, 2 * pud_size()) ?:
	      area_lacks(&self->area, AREA_PUDS);
	if (why)
		SKIP(return, "%s", why);
	faults = faults_to_share(self->fd, self->area,
				 PROT_READ | PROT_WRITE, 0, NR_PAGES);
	if (faults != 1)
		SKIP(return, "%s", not_shared(faults, NR_PAGES));
	shared = share_memory(sizeof(*shared));
	ASSERT_NE(NULL, shared);
	self->control = shared;

	writer = self->area + (WRITER_AT + 1) * pud_size();
	joiner = self->area + (JOINER_AT + 1) * pud_size();
	sharer = self->area + SHARER_AT * pud_size();
	self->page = writer;
	pid = crew_fork(&self->crew);
	ASSERT_GE(pid, 0);
	if (!pid)
		writer_main(self->fd, writer, !variant->joiner_first,
			    self->cpus[0]);
	self->writer = pid;
	pid = crew_fork(&self->crew);
	ASSERT_GE(pid, 0);
	if (!pid)
		joiner_main(self->fd, joiner, variant->joiner_first,
			    self->cpus[1], variant->control);
	pin_to_cpu(self->cpus[2]);
	if (variant->sharer)
		ASSERT_EQ(0, map_file(self->fd, sharer, false));
}

FIXTURE_TEARDOWN(hugetlb_pmd_join)
{
	const char *why = crew_end(&self->crew, self->fd, EXIT_MS);

	if (self->area)
		munmap(self->area, AREA_PUDS * pud_size());
	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
}

TEST_F_TIMEOUT(hugetlb_pmd_join, flushed, 500)
{
	char *view = self->area + VIEW_AT * pud_size();
	char *sharer = self->area + SHARER_AT * pud_size();
	long moved = 0, met = 0, failed = 0, lost = 0, rc;
	struct control *control = self->control;
	struct journal_loss loss = {};
	int from, to, status, who, loser = 0;
	void *page = self->page;
	uint32_t round;

	for (round = 1; !lost && round <= MAX_ROUNDS &&
	     (round <= ROUNDS || (!variant->control && met < ENOUGH)); round++) {
		set_and_wake(&control->round, round);
		ASSERT_TRUE(wait_for(&control->armed, round))
			TH_LOG("no joiner: %s",
			       strerror(control->error ?: ETIMEDOUT));
		ASSERT_TRUE(wait_for(&control->writing, round));
		if (variant->sharer) {
			touch_pages(sharer, NR_PAGES);
			write_some(sharer);
		}
		ASSERT_TRUE(writes_more(WRITER));

		from = page_node(self->writer, page);
		to = self->nodes[from == self->nodes[0]];
		status = -EBUSY;
		rc = move_pages(self->writer, 1, &page, &to, &status,
				MPOL_MF_MOVE_ALL);
		failed += rc || status < 0;
		if (variant->sharer)
			write_some(sharer);
		set_and_wake(&control->over, round);
		ASSERT_TRUE(wait_for(&control->joined, round));

		/* By now who was not flushed has lost writes. */
		ASSERT_TRUE(writes_more(WRITER));
		if (control->met)
			ASSERT_TRUE(writes_more(JOINER));
		set_and_wake(&control->hold, round);
		ASSERT_TRUE(wait_for(&control->held, round));
		ASSERT_TRUE(wait_for(&control->left, round));
		/* A TLB has nothing yet of a mapping that is new. */
		ASSERT_EQ(0, map_file(self->fd, view, false));
		touch_pages(view, 1);
		if (from >= 0 && page_node(0, view) == to) {
			moved++;
			met += control->met;
		}
		for (who = 0; who < NR_WRITERS && !lost; who++) {
			lost = !!journal_check(journal_of(view, who), who,
					       control->last[who], keep_loss,
					       &loss);
			loser = who;
		}
		unmap_file(view, false);
	}

	ksft_print_msg("hugetlb_pmd_join: sharers=%d control=%s calls=%u",
		       2 + variant->sharer, variant->control ? "yes" : "no",
		       round - 1);
	printf(" failed_calls=%ld migrations=%ld lost_migrations=%ld met=%ld\n",
	       failed, moved, lost, met);
	EXPECT_EQ(0, lost)
		TH_LOG("write %llu of the %s was lost when a process joined the table",
		       (unsigned long long)loss.write, writer_name[loser]);
	/* Not after a loss: a skip would take its place. */
	if (!lost && (variant->control ? moved : met) < ENOUGH)
		SKIP(return, "inconclusive: the page was moved %ld times, a join was met %ld times",
		     moved, met);
}

TEST_HARNESS_MAIN
