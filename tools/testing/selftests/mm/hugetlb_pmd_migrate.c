// SPDX-License-Identifier: GPL-2.0
/*
 * Does migration of a hugetlb page stop every process from writing to the old
 * page, when those processes share the PMD page table that maps it?
 *
 * Processes that map the same, suitably aligned 1 GiB (x86-64) of a hugetlb
 * file share one page of PMD entries:
 *
 *	sharer 0 (migrates)   sharer 1 (writes)     sharer 2 (writes)
 *	     PUD entry             PUD entry             PUD entry
 *	         \                     |                     /
 *	          +------------> PMD page table <-----------+
 *	                         | entry 0 | -> huge page 0 (map count 1)
 *	                         | entry 1 | -> huge page 1 (map count 1)
 *	                             ...
 *
 * Each huge page is mapped once, by the table, so its map count is 1. The
 * reverse map walk of a kernel that trusts the map count clears the entry,
 * flushes the TLB of the first mm that it comes to and stops: all the others
 * go on writing to the old page through what their TLBs still hold, while its
 * contents are copied and after. Those writes are lost.
 *
 * The page tables alone do not show it: the entry, which everybody shares, is
 * right. So every other sharer writes all the time, on a CPU of its own, to a
 * journal inside each page (see migrate_writers.h), which tells what each slot
 * must hold. What is done in a round is in migrate_round.h.
 *
 * Some tests also print one of their migrations as a timeline: the first that
 * lost writes, or else the first of all. What the journals hold of it is enough
 * to say of some writes when they were made, and whether they are there.
 *
 * If writers have to rest for a page to be moved, rounds go on for some time, so
 * that one may move that is written to all the time. Where none does, that is no
 * failure of what is tested here (see hugetlb_pmd_busy.c), and the test says so.
 *
 * A run with too few migrations, or with too few that all wrote in, proves
 * nothing and is skipped as inconclusive.
 *
 * Environment:
 *	HUGETLB_PMD_MIGRATE_OFFLINE=1	also run the tests that take memory
 *					offline; not for machines that do work
 *	HUGETLB_PMD_MIGRATE_CALLS=n	rounds a test
 *	HUGETLB_PMD_MIGRATE_SEED=n	for the random delays
 */
#include "kselftest_harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "migrate_round.h"
#include "migrate_timeline.h"
#include "migrate_util.h"

#define EXAMPLES		3	/* lost writes told in full, a test */
#define TEST_MS			80000	/* no more rounds: 120 s are all there is */
#define HOT_MS			40000	/* nor in wait for a hot move */
#define QUICK_MS		5000	/* no end before that for many calls alone */

/* What a test has. */
struct state {
	struct rounds rounds;
	unsigned int seed;
};

/* Tables that are shared, and so must be unshared. */
FIXTURE(hugetlb_pmd_migrate)
{
	struct state state;
};

FIXTURE_VARIANT(hugetlb_pmd_migrate)
{
	struct round_setup setup;
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, hugetlbfs_2) {
	.setup = { .backing = HUGETLBFS, .sharers = 2 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, hugetlbfs_4) {
	.setup = { .backing = HUGETLBFS, .sharers = 4 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, memfd_2) {
	.setup = { .backing = MEMFD, .sharers = 2 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, memfd_4) {
	.setup = { .backing = MEMFD, .sharers = 4 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, sysv_2) {
	.setup = { .backing = SYSV, .sharers = 2 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_migrate, sysv_4) {
	.setup = { .backing = SYSV, .sharers = 4 } };

/* The same in other ways, and where no table is shared. */
FIXTURE(hugetlb_pmd_others)
{
	struct state state;
};

FIXTURE_VARIANT(hugetlb_pmd_others)
{
	struct round_setup setup;
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_others, contended_2) {
	.setup = { .sharers = 2, .contended = true,
		   .trigger = MIGRATE_PAGES } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_others, contended_4) {
	.setup = { .backing = SYSV, .sharers = 4, .contended = true,
		   .trigger = MOVE_PAGES } };
/* The page leaves for who writes, at the request of who does not. */
FIXTURE_VARIANT_ADD(hugetlb_pmd_others, another_2) {
	.setup = { .sharers = 2, .of_another = true,
		   .trigger = MIGRATE_PAGES } };
/* These pass on every kernel. */
FIXTURE_VARIANT_ADD(hugetlb_pmd_others, not_shared_unaligned) {
	.setup = { .layout = UNALIGNED, .sharers = 2 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_others, not_shared_private) {
	.setup = { .layout = PRIVATE, .sharers = 2 } };
FIXTURE_VARIANT_ADD(hugetlb_pmd_others, not_shared_alone) {
	.setup = { .layout = ALONE, .sharers = 2 } };

static bool may_offline(void)
{
	return env_long("HUGETLB_PMD_MIGRATE_OFFLINE", 0);
}

/* Those of a few tests say it all. */
static bool keeps_timeline(const struct round_setup *setup)
{
	return setup->backing == HUGETLBFS && setup->layout == SHARED &&
	       !setup->contended && (setup->trigger == MIGRATE_PAGES ||
				     setup->trigger == SOFT_OFFLINE);
}

static void note_timeline(const struct rounds *st, const struct call *call,
			  int page, const struct place *from,
			  const struct place *to, const char *view)
{
	if (keeps_timeline(&st->setup))
		timeline_note(&st->writers, call, page, from, to, view);
}

static void tell(const char *line)
{
	ksft_print_msg("%s\n", line);
}

/* Returns NULL, or a line that says what is missing. */
static const char *set_up(struct state *st, const struct round_setup *setup)
{
	struct round_setup own = *setup;

	own.may_offline = may_offline();
	st->seed = env_long("HUGETLB_PMD_MIGRATE_SEED", time(NULL));
	srandom(st->seed);
	rounds_init(&st->rounds);
	st->rounds.tell = tell;
	st->rounds.moved = note_timeline;
	return rounds_begin(&st->rounds, &own);
}

static long calls_wanted(const struct round_setup *setup)
{
	static const long calls[] = {
		[MIGRATE_PAGES] = 10, [MOVE_PAGES] = 10, [MBIND] = 10,
		[SOFT_OFFLINE] = 4, [BLOCK_OFFLINE] = 2,
	};

	if (setup->contended)
		return 5;
	/* One of them for longer: what is rare shows there. */
	if (setup->backing == HUGETLBFS && setup->layout == SHARED &&
	    setup->sharers == 2 && setup->trigger == MIGRATE_PAGES)
		return 40;
	return calls[setup->trigger];
}

static void verdict(struct __test_metadata *_metadata, const struct state *state,
		    const struct round_result *r, long want)
{
	const struct rounds *st = &state->rounds;
	const struct round_setup *setup = &st->setup;

	timeline_print(&st->writers);
	ksft_print_msg("hugetlb_pmd_migrate: backing=%s trigger=%s sharers=%d control=%s",
		       backing_name[setup->backing],
		       trigger_name[setup->trigger],
		       setup->layout == ALONE ? 1 : setup->sharers,
		       setup->layout == SHARED ? "no" : "yes");
	printf(" calls=%ld failed_calls=%ld errno=%d moved_calls=%ld migrations=%ld",
	       r->calls, r->failed_calls, r->error, r->moved_calls, r->moves);
	printf(" lost_migrations=%ld lost_writes=%ld hot_calls=%ld hot_moved=%ld",
	       r->lost_moves, r->lost, r->hot_calls, r->hot_moved);
	if (st->share.fd >= 0 && st->unshare.fd >= 0)
		printf(" shares=%ld unshares=%ld", tracepoint_count(&st->share),
		       r->unshares);
	printf(" idle_calls=%ld seed=%u\n", r->idle_calls, state->seed);

	EXPECT_EQ(0, r->lost)
		TH_LOG("%ld writes lost in %ld of %ld migrations", r->lost,
		       r->lost_moves, r->moves);
	if (r->lost)
		return;
	if (!r->moves && r->error)
		SKIP(return, "%s does not work here: %s",
		     trigger_name[setup->trigger], strerror(r->error));
	if (setup->layout == SHARED && r->moves && !r->hot_moved)
		ksft_print_msg("pages moved only with writers that rest: %ld others stayed\n",
			       r->hot_calls);
	if (r->moved_calls < ROUND_MIN_MOVES && r->moved_calls < want)
		SKIP(return, "inconclusive: only %ld of %ld calls moved a page, with all writing",
		     r->moved_calls, r->calls);
}

/* Whether there is to be one more round. */
static bool goes_on(const struct rounds *st, const struct round_result *r,
		    long want, long ms)
{
	/*
	 * A call may be over before each of those who write had a CPU. Then many
	 * of them take less time than a few that wait for locks.
	 */
	if ((r->calls >= 4 * want + 4 && ms >= QUICK_MS) || ms >= TEST_MS)
		return false;
	if (r->moved_calls < want)
		return true;
	return st->setup.layout == SHARED && !r->hot_moved && !r->lost &&
	       ms < HOT_MS;
}

static void run(struct __test_metadata *_metadata, struct state *st,
		enum trigger trigger)
{
	struct round_result r = { .examples = EXAMPLES };
	const char *why = trigger_lacks(&st->rounds, trigger);
	uint64_t start = cycles_clock();
	enum round_end end;
	long want;

	if (why)
		SKIP(return, "%s", why);
	st->rounds.setup.trigger = trigger;
	want = env_count("HUGETLB_PMD_MIGRATE_CALLS",
			 calls_wanted(&st->rounds.setup));
	while (goes_on(&st->rounds, &r, want, ms_since(start))) {
		end = round_run(&st->rounds, &r, &why);
		/* Nor after a loss: a skip would take its place. */
		if (end == ROUND_STARVED && r.lost)
			break;
		if (end == ROUND_NOT_SHARED || end == ROUND_STARVED)
			SKIP(return, "%s", why);
		ASSERT_EQ(ROUND_DONE, end)
			TH_LOG("%s", why);
		/* The call is not there: no use in asking again. */
		if (r.error == EOPNOTSUPP ||
		    (r.error == EINVAL && trigger != BLOCK_OFFLINE))
			break;
	}
	verdict(_metadata, st, &r, want);
}

FIXTURE_SETUP(hugetlb_pmd_migrate)
{
	const char *why = set_up(&self->state, &variant->setup);

	if (why)
		SKIP(return, "%s", why);
}

FIXTURE_TEARDOWN(hugetlb_pmd_migrate)
{
	rounds_end(&self->state.rounds);
}

TEST_F_TIMEOUT(hugetlb_pmd_migrate, migrate_pages, 120)
{
	run(_metadata, &self->state, MIGRATE_PAGES);
}

TEST_F_TIMEOUT(hugetlb_pmd_migrate, move_pages, 120)
{
	run(_metadata, &self->state, MOVE_PAGES);
}

TEST_F_TIMEOUT(hugetlb_pmd_migrate, mbind, 120)
{
	run(_metadata, &self->state, MBIND);
}

TEST_F_TIMEOUT(hugetlb_pmd_migrate, soft_offline, 120)
{
	run(_metadata, &self->state, SOFT_OFFLINE);
}

TEST_F_TIMEOUT(hugetlb_pmd_migrate, block_offline, 120)
{
	run(_metadata, &self->state, BLOCK_OFFLINE);
}

FIXTURE_SETUP(hugetlb_pmd_others)
{
	const char *why = set_up(&self->state, &variant->setup);

	if (why)
		SKIP(return, "%s", why);
}

FIXTURE_TEARDOWN(hugetlb_pmd_others)
{
	rounds_end(&self->state.rounds);
}

TEST_F_TIMEOUT(hugetlb_pmd_others, lost_write, 120)
{
	run(_metadata, &self->state, variant->setup.trigger);
}

TEST_HARNESS_MAIN
