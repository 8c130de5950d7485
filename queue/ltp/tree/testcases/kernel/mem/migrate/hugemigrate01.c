// SPDX-License-Identifier: GPL-2.0-or-later
/*\
 * Check that no write is lost when a huge page is migrated which several
 * processes map through one page table.
 *
 * Processes that map the same, suitably aligned GiB (on x86_64) of a hugetlb
 * file share the page table that maps its huge pages, so each of these is mapped
 * once, by the table. A kernel that stops to look for mappings when it has found
 * as many as it counts flushes the TLB of one process. The others go on writing
 * to the old page while it is copied, and after. These writes are lost without
 * an error.
 *
 * [Algorithm]
 *
 * - Let processes map the file anew, and touch pages that are populated: a
 *   process that gets the table of another needs a single page fault for all of
 *   them. This is the proof that the table is shared. Without it, the case ends
 *   with TCONF.
 * - Let each of them write to all pages, without a pause, on another CPU. They
 *   number their writes, so from the number of the last write follows what has
 *   to be in the page (see migrate_writers.h).
 * - Migrate a page to another node.
 * - Stop the writers, and compare.
 *
 * A call counts if it moved a page, and if all were writing meanwhile. Too few of
 * these are no evidence, so the case ends with TCONF. In the last case no table
 * can be shared: it passes on all kernels.
 *
 * Needs root to move pages that several processes map, and for the numbers of
 * page frames.
 */

#define _GNU_SOURCE
#include "config.h"
#include "tst_test.h"

#ifdef HAVE_NUMA_V2

#include "migrate_page.h"
#include "migrate_round.h"
#include "migrate_util.h"

#define MNTPOINT	"hugetlbfs"
#define CALLS		10

static const struct tcase {
	const char *name;
	struct round_setup setup;
} tcases[] = {
	{"hugetlbfs.migrate_pages", {.sharers = 2, .trigger = MIGRATE_PAGES} },
	{"hugetlbfs.move_pages", {.sharers = 4, .trigger = MOVE_PAGES} },
	{"hugetlbfs.mbind", {.sharers = 2, .trigger = MBIND} },
	{"memfd.migrate_pages", {.backing = MEMFD, .sharers = 4, .trigger = MIGRATE_PAGES} },
	{"memfd.move_pages", {.backing = MEMFD, .sharers = 2, .trigger = MOVE_PAGES} },
	{"sysv.migrate_pages", {.backing = SYSV, .sharers = 2, .trigger = MIGRATE_PAGES} },
	{"sysv.mbind", {.backing = SYSV, .sharers = 4, .trigger = MBIND} },
	{"not_shared.migrate_pages", {.sharers = 2, .trigger = MIGRATE_PAGES, .layout = UNALIGNED} },
};

static char *str_calls, *str_seed;
static int calls_wanted = CALLS, seed;

static const struct tcase *tc;
static struct rounds rounds;

static void tell(const char *line)
{
	tst_res(TINFO, "%s", line);
}

static void report(const struct round_result *r)
{
	tst_res(TINFO, "%s: control=%s calls=%ld failed_calls=%ld moved_calls=%ld migrations=%ld lost_migrations=%ld lost_writes=%ld",
		tc->name, tc->setup.layout == SHARED ? "no" : "yes", r->calls,
		r->failed_calls, r->moved_calls, r->moves, r->lost_moves,
		r->lost);
	if (r->lost) {
		tst_res(TFAIL, "%s: %ld writes lost in %ld of %ld migrations",
			tc->name, r->lost, r->lost_moves, r->moves);
	} else if (!r->moves && r->error) {
		tst_res(TCONF, "%s: does not work here: %s", tc->name,
			tst_strerrno(r->error));
	} else if (r->moved_calls < ROUND_MIN_MOVES &&
		   r->moved_calls < calls_wanted) {
		tst_res(TCONF, "%s: inconclusive: only %ld of %ld calls moved a page, with all writing",
			tc->name, r->moved_calls, r->calls);
	} else {
		tst_res(TPASS, "%s: no write lost in %ld migrations", tc->name,
			r->moves);
	}
}

static void end(void)
{
	if (tc)
		rounds_end(&rounds);
	tc = NULL;
}

static void run(unsigned int n)
{
	struct round_result r = { .examples = 1 };
	const char *why;

	srandom(seed);
	rounds_init(&rounds);
	tc = &tcases[n];
	rounds.tell = tell;
	if (tc->setup.backing == HUGETLBFS) {
		rounds.fd = SAFE_OPEN(MNTPOINT "/file", O_RDWR | O_CREAT, 0600);
		SAFE_UNLINK(MNTPOINT "/file");
		SAFE_FTRUNCATE(rounds.fd, pud_size());
	}
	/* The pool of each node is restored, also if this process is killed. */
	why = rounds_begin(&rounds, &tc->setup);
	if (why) {
		tst_res(TCONF, "%s: %s", tc->name, why);
		goto out;
	}
	while (r.moved_calls < calls_wanted &&
	       r.calls < 4 * calls_wanted && tst_remaining_runtime()) {
		switch (round_run(&rounds, &r, &why)) {
		case ROUND_DONE:
			break;
		case ROUND_STARVED:
			if (r.lost)
				goto done;
			/* fallthrough */
		case ROUND_NOT_SHARED:
			tst_res(TCONF, "%s: %s", tc->name, why);
			goto out;
		case ROUND_SHARED:
			tst_res(TFAIL, "%s: %s", tc->name, why);
			goto out;
		case ROUND_BROKEN:
			tst_brk(TBROK, "%s: %s", tc->name, why);
		}
	}
done:
	report(&r);
out:
	end();
}

static void setup(void)
{
	int cpus[CPU_SETSIZE], nodes[2];
	const char *why;

	if (tst_parse_int(str_calls, &calls_wanted, 1, INT_MAX / 4))
		tst_brk(TBROK, "Invalid number of calls '%s'", str_calls);
	seed = getpid();
	if (tst_parse_int(str_seed, &seed, 0, INT_MAX))
		tst_brk(TBROK, "Invalid seed '%s'", str_seed);
	tst_res(TINFO, "Seed for the delays: %d (-s)", seed);

	if (tst_get_hugepage_size() != pmd_size())
		tst_brk(TCONF, "needs huge pages of %zu KiB by default",
			pmd_size() >> 10);
	/* Those that this process may use, which is not to be pinned yet. */
	if (cpu_list(cpus, ARRAY_SIZE(cpus)) < 2)
		tst_brk(TCONF, "needs two CPUs");
	why = nodes_lack(nodes, 2, cpus[0]);
	if (why)
		tst_brk(TCONF, "%s", why);
}

static struct tst_test test = {
	.setup = setup,
	.cleanup = end,
	.test = run,
	.tcnt = ARRAY_SIZE(tcases),
	.options = (struct tst_option[]) {
		{"c:", &str_calls, "Calls that have to move a page, a case (default 10)"},
		{"s:", &str_seed, "Seed for the delays"},
		{}
	},
	.needs_root = 1,
	.forks_child = 1,
	.needs_hugetlbfs = 1,
	.mntpoint = MNTPOINT,
	.hugepages = {2 * ROUND_SPARE, TST_NEEDS},
	.min_cpus = 2,
	.runtime = 60,
	.tags = (const struct tst_tag[]) {
		{"linux-git", "017b1660df89f5fb4bfe66c34e35f7d2031100c7"},
		{"linux-git", "dff11abe280b47c21b804a8ace318e0638bb9a49"},
		{}
	},
};

#else
TST_TEST_TCONF(NUMA_ERROR_MSG);
#endif
