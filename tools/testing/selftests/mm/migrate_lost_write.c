// SPDX-License-Identifier: GPL-2.0
/*
 * Is any write lost while memory of any kind is migrated?
 *
 * Migration takes away every mapping of a page, copies the page, and maps the
 * copy. A CPU that still has the old mapping in its TLB, because nobody flushed
 * it in time, goes on writing to what was copied already:
 *
 *	CPU 0				CPU 1
 *	replace the mapping		writes 1 to the page
 *	(flush all TLBs)		writes 2
 *	copy the page			writes 3: to the old page, if not flushed
 *	map the copy			reads 2, some time later
 *
 * Since 6.3 the kernel takes away the mappings of many pages first, and flushes
 * once for all of them, so there is more than one place where that can be
 * forgotten. Here writers, one on each other CPU, store to pages all the time,
 * and from a journal in each page (see migrate_writers.h) it can be told of each
 * slot what it must hold. One round of the test is
 *
 *	write	until all are at it
 *	move	all pages to the other node, with one call
 *	stop	the writers, somewhat later
 *	compare	journals with the number of the last write, through a view that
 *		no TLB has seen
 *
 * Kinds of memory:	anon, shmem, a file, hugetlb; base pages and huge ones.
 *			See migrate_kinds.h.
 * Triggers:		system calls, cpuset, DAMON, demotion, NUMA balancing,
 *			promotion, compaction, memory offline, soft offline, a
 *			DIMM that is ejected. See migrate_triggers.h.
 *
 * Each kind is a variant, and each trigger a test:
 *
 *	kind ---> range (its pages) ---> writers (who write to them)
 *			|			     |
 *	trigger ---> mover (between two nodes) --> run(): rounds, and a verdict
 *
 * For most triggers a page has moved if it is on another node. Nobody says where to
 * if memory is compacted, taken offline by the block, ejected, or soft-offlined by
 * the page. There a page has moved if it is in another frame.
 *
 * alloc_contig_range() (CMA, virtio-mem, gigantic pages) and long-term pins, which
 * take pages out of ZONE_MOVABLE and CMA, call the same migrate_pages(). The way
 * there was not tried with these kinds of memory: hugetlb_pmd_contig tries the
 * first with hugetlb pages. Of compaction, only what /sys asks for was tried, and
 * not that of page faults and of kcompactd, which do not wait for pages as it does.
 *
 * The parts of huge pages that no journal lies in have contents of their own,
 * which nobody writes to: they must still be there.
 *
 * A call counts if it moved pages, and if each writer wrote to all of its pages
 * at least once meanwhile.
 *
 * Environment:
 *	MIGRATE_LOST_WRITE_CALLS=n	rounds a test
 *	MIGRATE_LOST_WRITE_SEED=n	for the random delays
 *	HUGETLB_PMD_MIGRATE_OFFLINE=1	also take memory offline, and soft-offline
 *					pages, whose poison is taken back
 *	MIGRATE_EJECT=, MIGRATE_EJECT_QMP=	a DIMM to be ejected: see migrate_eject.h
 */
#include "kselftest_harness.h"

#include <fcntl.h>
#include <numa.h>
#include <numaif.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "migrate_cgroup.h"
#include "migrate_compaction.h"
#include "migrate_damon.h"
#include "migrate_eject.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_journal.h"
#include "migrate_kinds.h"
#include "migrate_memory.h"
#include "migrate_page.h"
#include "migrate_tiers.h"
#include "migrate_triggers.h"
#include "migrate_util.h"
#include "migrate_writers.h"

#define CALLS		3
#define MIN_MOVES	3	/* fewer are no evidence */
#define TEST_MS		20000	/* no call begins later */
#define EXAMPLES	3

struct state {
	struct range range;
	struct writers writers;
	struct mover mover;
	int self;		/* /proc/self/mem, for private memory */
	unsigned int seed;
};

FIXTURE(migrate_lost_write)
{
	struct state state;
};

FIXTURE_VARIANT(migrate_lost_write)
{
	const struct kind *kind;
};

FIXTURE_VARIANT_ADD(migrate_lost_write, anon) { .kind = &kind_anon };
FIXTURE_VARIANT_ADD(migrate_lost_write, anon_mthp) { .kind = &kind_anon_mthp };
FIXTURE_VARIANT_ADD(migrate_lost_write, anon_thp) { .kind = &kind_anon_thp };
FIXTURE_VARIANT_ADD(migrate_lost_write, shmem) { .kind = &kind_shmem };
FIXTURE_VARIANT_ADD(migrate_lost_write, shmem_mthp) {
	.kind = &kind_shmem_mthp };
FIXTURE_VARIANT_ADD(migrate_lost_write, shmem_thp) { .kind = &kind_shmem_thp };
FIXTURE_VARIANT_ADD(migrate_lost_write, file) { .kind = &kind_file };
FIXTURE_VARIANT_ADD(migrate_lost_write, file_thp) { .kind = &kind_file_thp };
FIXTURE_VARIANT_ADD(migrate_lost_write, hugetlb) { .kind = &kind_hugetlb };

static void report_loss(const struct lost_write *lost, void *arg)
{
	int *examples = arg;

	if (!*examples)
		return;
	(*examples)--;
	ksft_print_msg("lost: writer %d page %d offset 0x%zx wrote 0x%llx found 0x%llx\n",
		       lost->writer + 1, lost->page, lost->offset,
		       (unsigned long long)lost->wrote,
		       (unsigned long long)lost->found);
}

/*
 * Words that nobody writes to, and that are not what they were: their number, or
 * -errno. They are made good.
 */
static long compare_rest(const struct state *st, char *view, int *examples)
{
	const struct range *r = &st->range;
	uint64_t words[JOURNAL_WORDS], first;
	size_t block;
	long lost = 0;
	bool bad;
	int i;

	for (block = 0; block < r->size; block += sizeof(words)) {
		if (r->journals[block / sizeof(words)])
			continue;
		if (r->kind->file)
			memcpy(words, view + block, sizeof(words));
		else if (pread(st->self, words, sizeof(words),
			       (off_t)(view + block)) != sizeof(words))
			return -errno;
		first = range_first_word(r, block);
		for (bad = false, i = 0; i < JOURNAL_WORDS; i++) {
			if (words[i] == first + i)
				continue;
			if (*examples) {
				(*examples)--;
				ksft_print_msg("changed: offset 0x%zx had 0x%llx found 0x%llx\n",
					       block + i * sizeof(*words),
					       (unsigned long long)(first + i),
					       (unsigned long long)words[i]);
			}
			words[i] = first + i;
			bad = true;
			lost++;
		}
		if (!bad)
			continue;
		if (r->kind->file)
			memcpy(view + block, words, sizeof(words));
		else if (pwrite(st->self, words, sizeof(words),
				(off_t)(view + block)) != sizeof(words))
			return -errno;
	}
	return lost;
}

static long compare(const struct state *st, int *examples)
{
	const struct range *r = &st->range;
	char *view = r->kind->file ? writers_view_addr(&st->writers) : r->own;
	long lost_in[MAX_PAGES] = {}, lost, rest;
	int error;

	error = r->kind->file ? range_map(r, view) : 0;
	if (error)
		return -error;
	lost = writers_check(&st->writers, view, r->kind->file ? -1 : st->self,
			     report_loss, examples, lost_in);
	rest = lost < 0 ? 0 : compare_rest(st, view, examples);
	if (r->kind->file)
		range_unmap(r, view);
	return rest < 0 ? rest : lost + rest;
}

/*
 * What a writer's mapping took in faults, if it shares no table but should: one is
 * enough for all of the pages then, which are there. 0 if all is well.
 */
static long faults_too_many(const struct state *st)
{
	int i;

	for (i = 0; st->range.memory.shares_table && i < st->writers.nr; i++)
		if (st->writers.each[i].faults != 1)
			return st->writers.each[i].faults;
	return 0;
}

static void run(struct __test_metadata *_metadata, struct state *st,
		const struct trigger *trigger)
{
	long want = env_count("MIGRATE_LOST_WRITE_CALLS", CALLS), got;
	long calls = 0, failed = 0, moved_calls = 0, moves = 0, lost_calls = 0;
	int i, nr, rests = 0, examples = EXAMPLES, error = 0, target;
	struct mover *m = &st->mover;
	struct range *r = &st->range;
	struct places from, to;
	uint64_t then[MAX_WRITERS];
	uint64_t start = cycles_clock();
	long lost = 0, left = 0, hot_calls = 0, hot_moved = 0, faults;
	const char *why;
	bool wrote;

	why = trigger->lacks ? trigger->lacks(m) : NULL;
	if (why)
		SKIP(return, "%s", why);
	/* All on one node, to begin with. */
	range_locate(r, from.nodes);
	range_move(r, m->nodes[0]);
	while (moved_calls < want && calls < 4 * want &&
	       ms_since(start) < TEST_MS) {
		calls++;
		target = m->nodes[trigger->one_way || calls % 2];
		if (r->kind->pages == SMALL_HUGE && !range_is_huge(r)) {
			range_renew(r);
			target = m->nodes[page_node(0, r->own) == m->nodes[0]];
		}
		if (r->kind->pages && !range_is_huge(r))
			break;
		if (trigger->some)
			range_move(r, m->nodes[target == m->nodes[0]]);
		if (trigger->prepare) {
			trigger->prepare(m);
			/* Some were split on the way, for want of room. */
			if (r->kind->pages && !range_is_huge(r))
				continue;
		}
		ASSERT_TRUE(writers_order(&st->writers, WRITE, rests));
		for (i = 0; i < st->writers.nr; i++)
			ASSERT_EQ(0, st->writers.each[i].error);
		faults = faults_too_many(st);
		if (faults && !lost)
			SKIP(return, "%s", not_shared(faults, r->nr_pages));
		places_look(r, &from);
		writers_note(&st->writers, then);
		i = trigger->move(m, target);
		wrote = writers_wrote(&st->writers, then) == st->writers.nr;
		if (i) {
			failed++;
			error = -i;
		}
		ASSERT_TRUE(writers_order(&st->writers, STOP, 0));
		places_look(r, &to);
		got = compare(st, &examples);
		ASSERT_GE(got, 0)
			TH_LOG("cannot look at the pages: %s", strerror(-got));
		/* What is still there has moved nothing out of it. */
		nr = i && trigger->holds ? 0 :
		     places_moved(r, trigger, &from, &to);
		if (!i)
			left += places_held(r, trigger, &to);
		lost += got;
		lost_calls += got > 0;
		moves += nr;
		moved_calls += nr && wrote;
		hot_calls += !rests;
		hot_moved += !rests && nr;
		/* Who rests is not looked at by NUMA balancing, but by reclaim. */
		rests = nr || trigger->awake ? 0 :
			rests < MAX_RESTS ? rests + 1 : MAX_RESTS;
		/* No stale entry reaches the next round. */
		ASSERT_TRUE(writers_order(&st->writers, UNMAP, 0));
	}

	ksft_print_msg("migrate_lost_write: backing=%s trigger=%s sharers=%d control=no",
		       r->kind->name, trigger->name, st->writers.nr);
	printf(" calls=%ld failed_calls=%ld errno=%d moved_calls=%ld migrations=%ld",
	       calls, failed, error, moved_calls, moves);
	printf(" lost_migrations=%ld lost_writes=%ld hot_calls=%ld hot_moved=%ld",
	       lost_calls, lost, hot_calls, hot_moved);
	printf(" seed=%u\n", st->seed);

	EXPECT_EQ(0, lost)
		TH_LOG("%ld writes lost in %ld of %ld calls", lost, lost_calls,
		       calls);
	EXPECT_EQ(0, left)
		TH_LOG("%ld pages are in memory that is gone", left);
	if (lost || left)
		return;
	if (!moves && error)
		SKIP(return, "%s does not work here: %s", trigger->name,
		     strerror(error));
	if (moves && !hot_moved)
		ksft_print_msg("pages moved only with writers that rest: %ld others stayed\n",
			       hot_calls);
	if (trigger->tell && moved_calls < want)
		trigger->tell(m);
	if (moved_calls < MIN_MOVES && moved_calls < want)
		SKIP(return, "inconclusive: only %ld of %ld calls moved pages, with all writing",
		     moved_calls, calls);
}

FIXTURE_SETUP(migrate_lost_write)
{
	struct state *st = &self->state;
	struct range *r = &st->range;
	int i, nr_cpus, cpus[CPU_SETSIZE], nr;
	const char *why;

	range_init(r, variant->kind);
	st->self = -1;
	st->mover.range = r;
	if (geteuid())
		SKIP(return, "needs root, for MPOL_MF_MOVE_ALL");
	nr_cpus = cpu_list(cpus, ARRAY_SIZE(cpus));
	if (nr_cpus < 2)
		SKIP(return, "needs two CPUs");
	why = nodes_lack(st->mover.nodes, 2, cpus[0]) ?:
	      guard_lacks() ?:
	      range_lacks(r);
	if (why)
		SKIP(return, "%s", why);
	/* NUMA balancing leaves memory alone that is asked for so. */
	ASSERT_EQ(0, set_mempolicy(MPOL_LOCAL, NULL, 0));
	st->seed = env_long("MIGRATE_LOST_WRITE_SEED", time(NULL));
	srandom(st->seed);

	nr = nr_cpus - 1 < MAX_WRITERS ? nr_cpus - 1 : MAX_WRITERS;
	/* A PUD may be as much as 4 TiB: fewer writers need less. */
	while (nr && !writers_reserve(&st->writers, nr))
		nr--;
	if (!nr)
		SKIP(return, "needs more address space: PUDs of %zu MiB",
		     pud_size() >> 20);
	st->writers.mem = &r->memory;
	why = range_open(r, &st->writers, st->mover.nodes);
	if (why)
		SKIP(return, "%s", why);
	if (r->kind->file) {
		pin_to_cpu(cpus[0]);
		ASSERT_EQ(0, writers_fork(&st->writers, cpus, nr_cpus));
	}
	ASSERT_EQ(0, range_map(r, r->own));
	why = range_fill(r);
	if (why)
		SKIP(return, "%s", why);
	/* See migrate_pages_of_another. */
	ASSERT_EQ(0, madvise(r->own, r->mapped, MADV_DONTFORK));
	if (!r->kind->file) {
		st->self = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
		ASSERT_GE(st->self, 0);
		ASSERT_EQ(0, writers_thread(&st->writers, cpus, nr_cpus));
		pin_to_cpu(cpus[0]);
	}
	for (i = 0; i < 2; i++)
		migrate_node(0, st->mover.nodes[i], st->mover.nodes[1]);
}

FIXTURE_TEARDOWN(migrate_lost_write)
{
	struct state *st = &self->state;

	/* Threads end with the process. */
	if (st->range.kind->file)
		writers_kill(&st->writers);
	range_free(&st->range);
	eject_end();
	group_leave();
	guard_stop();
}

TEST_F_TIMEOUT(migrate_lost_write, move_pages, 120)
{
	run(_metadata, &self->state, &trigger_move_pages);
}

TEST_F_TIMEOUT(migrate_lost_write, migrate_pages, 120)
{
	run(_metadata, &self->state, &trigger_migrate_pages);
}

TEST_F_TIMEOUT(migrate_lost_write, migrate_pages_of_another, 120)
{
	run(_metadata, &self->state, &trigger_migrate_pages_of_another);
}

TEST_F_TIMEOUT(migrate_lost_write, cpuset, 120)
{
	run(_metadata, &self->state, &trigger_cpuset);
}

TEST_F_TIMEOUT(migrate_lost_write, cpuset_v1, 120)
{
	run(_metadata, &self->state, &trigger_cpuset_v1);
}

TEST_F_TIMEOUT(migrate_lost_write, demotion, 120)
{
	run(_metadata, &self->state, &trigger_demotion);
}

TEST_F_TIMEOUT(migrate_lost_write, numa_balancing, 120)
{
	run(_metadata, &self->state, &trigger_numa_balancing);
}

TEST_F_TIMEOUT(migrate_lost_write, promotion, 120)
{
	run(_metadata, &self->state, &trigger_promotion);
}

TEST_F_TIMEOUT(migrate_lost_write, damon, 120)
{
	run(_metadata, &self->state, &trigger_damon);
}

TEST_F_TIMEOUT(migrate_lost_write, mbind, 120)
{
	run(_metadata, &self->state, &trigger_mbind);
}

TEST_F_TIMEOUT(migrate_lost_write, compaction, 120)
{
	run(_metadata, &self->state, &trigger_compaction);
}

TEST_F_TIMEOUT(migrate_lost_write, offline, 120)
{
	run(_metadata, &self->state, &trigger_offline);
}

TEST_F_TIMEOUT(migrate_lost_write, soft_offline, 120)
{
	run(_metadata, &self->state, &trigger_soft_offline);
}

TEST_F_TIMEOUT(migrate_lost_write, acpi_eject, 120)
{
	run(_metadata, &self->state, &trigger_acpi_eject);
}

TEST_HARNESS_MAIN
