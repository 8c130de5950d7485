// SPDX-License-Identifier: GPL-2.0-or-later
/*\
 * Check that a transparent huge page can be moved out of the way when parts of
 * it are mapped by PTEs.
 *
 * An anonymous page that has more references than mappings is pinned, so it is
 * left alone by who needs much contiguous memory. A THP of which a part was
 * written to after fork(), or had its protection changed, is mapped by PTEs in
 * one process. Each of them is a reference: there are 511 after a write to one
 * of 512 sub-pages. A kernel that counts the mappings of the head page alone
 * takes such a THP for pinned, for good.
 *
 * [Algorithm]
 *
 * - Fill memory that hugetlb_cma= has set apart with THPs: it is lent to movable
 *   pages until a gigantic page is asked for.
 * - Split their mappings, in one of several ways.
 * - Ask for a gigantic page. The kernel has to move the THPs.
 * - If there is none, unmap the THPs and ask again: that it works then shows that
 *   nothing but the THPs was in the way.
 *
 * In the first case no mapping is split. It passes on all kernels.
 *
 * Needs root for the pool of gigantic pages and for the numbers of page frames,
 * and a kernel that was booted with hugetlb_cma=2G, or TCONF is reported.
 */

#define _GNU_SOURCE
#include "config.h"
#include "tst_test.h"

#ifdef HAVE_NUMA_V2

#include <numa.h>
#include <stdio.h>
#include <stdlib.h>

#include "migrate_page.h"

#define NODES		"/sys/devices/system/node"
#define GIGANTIC	"hugepages-1048576kB"
#define GIGANTIC_KIB	1048576
#define POOL		"/sys/kernel/mm/hugepages/" GIGANTIC "/nr_hugepages"
#define THP_ENABLED	"/sys/kernel/mm/transparent_hugepage/enabled"
#define MAX_THPS	640
#define WANTED_KIB	65536	/* of what is lent, to be in use by the THPs */
#define SUBPAGE		16	/* nobody writes to it, so it stays in the THP */

enum cause {
	CHILD_WAITS, CHILD_WRITES, CHILD_WRITES_SUBPAGE, PARENT_WRITES, MPROTECT,
};

static const char *const cause_name[] = {
	"child_waits", "child_writes", "child_writes_subpage", "parent_writes",
	"mprotect",
};

static char pool[PATH_MAX];
static int node = -1;
static size_t page_bytes;

static char *area;
static int nr_thps;
static int64_t pfns[MAX_THPS];
static pid_t child;

static char *thp(int nr)
{
	return area + nr * pmd_size();
}

/* What is to stay in each THP, and to be there after it was moved. */
static uint64_t *word(int nr)
{
	return (uint64_t *)(thp(nr) + SUBPAGE * page_bytes);
}

static bool get_gigantic(void)
{
	int got = 0;

	FILE_PRINTF(pool, "1");
	SAFE_FILE_SCANF(pool, "%d", &got);
	SAFE_FILE_PRINTF(pool, "0");
	return got == 1;
}

static void drop_thps(void)
{
	if (child > 0) {
		SAFE_KILL(child, SIGKILL);
		SAFE_WAITPID(child, NULL, 0);
	}
	child = 0;
	if (area)
		SAFE_MUNMAP(area, MAX_THPS * pmd_size());
	area = NULL;
	nr_thps = 0;
}

/* Returns NULL, or why no THPs are in the memory that is lent. */
static const char *fill(void)
{
	long before = SAFE_READ_MEMINFO("CmaFree:");
	size_t bytes = MAX_THPS * pmd_size();
	char *at;

	at = SAFE_MMAP(NULL, bytes + pmd_size(), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	area = (char *)LTP_ALIGN((uintptr_t)at, pmd_size());
	if (area > at)
		SAFE_MUNMAP(at, area - at);
	SAFE_MUNMAP(area + bytes, at + pmd_size() - area);
	if (madvise(area, bytes, MADV_HUGEPAGE))
		return "madvise(MADV_HUGEPAGE) failed";
	if (bind_range(area, bytes, node, 0))
		return "mbind() failed";

	while (nr_thps < MAX_THPS) {
		int nr = nr_thps++;
		int64_t head;

		*word(nr) = nr + 1;
		pfns[nr] = page_pfn(0, word(nr));
		head = page_pfn(0, thp(nr));
		if (pfns[nr] < 0)
			return "/proc/self/pagemap shows no page frames";
		if (pfns[nr] - head != SUBPAGE ||
		    head % (int64_t)(pmd_size() / page_bytes))
			return "no THP can be had";
		if (before - SAFE_READ_MEMINFO("CmaFree:") >= WANTED_KIB)
			return NULL;
	}
	return "the THPs are not in the memory that is lent";
}

static void write_to_each(int subpage)
{
	int nr;

	for (nr = 0; nr < nr_thps; nr++)
		*(uint64_t *)(thp(nr) + subpage * page_bytes + 64) = nr;
}

static void split_mappings(enum cause cause)
{
	int nr;

	if (cause == MPROTECT) {
		for (nr = 0; nr < nr_thps; nr++)
			SAFE_MPROTECT(thp(nr) + 8 * page_bytes, page_bytes,
				      PROT_READ);
		return;
	}
	child = SAFE_FORK();
	if (!child) {
		if (cause == CHILD_WRITES)
			write_to_each(0);
		if (cause == CHILD_WRITES_SUBPAGE)
			write_to_each(5);
		TST_CHECKPOINT_WAKE(0);
		for (;;)
			pause();
	}
	TST_CHECKPOINT_WAIT(0);
	if (cause == PARENT_WRITES)
		write_to_each(0);
}

/* How many are no longer where they were. */
static int moved_thps(void)
{
	int nr, moved = 0;
	int64_t pfn;

	for (nr = 0; nr < nr_thps; nr++) {
		pfn = page_pfn(0, word(nr));
		/* Where it is may not be known for a moment. */
		moved += pfn > 0 && pfn != pfns[nr];
	}
	return moved;
}

static void run(unsigned int cause)
{
	const char *name = cause_name[cause], *why;
	int nr, moved, thps;
	bool given;

	why = fill();
	if (why) {
		tst_res(TCONF, "%s: inconclusive: %s", name, why);
		goto out;
	}
	split_mappings(cause);
	if (moved_thps())
		tst_brk(TBROK, "a THP was moved before anybody asked for it");

	given = get_gigantic();
	moved = moved_thps();
	thps = nr_thps;
	for (nr = 0; nr < nr_thps; nr++) {
		if (*word(nr) == (uint64_t)nr + 1)
			continue;
		tst_res(TFAIL, "%s: THP %d has other contents than before", name,
			nr);
		goto out;
	}
	drop_thps();

	if (!given && !get_gigantic()) {
		tst_res(TCONF, "%s: inconclusive: no gigantic page without the THPs, either",
			name);
		goto out;
	}
	tst_res(TINFO, "%s: control=%s calls=1 migrations=1 lost_migrations=%d thps=%d moved=%d",
		name, cause == CHILD_WAITS ? "yes" : "no", !given, thps, moved);
	if (!given)
		tst_res(TFAIL, "%s: no gigantic page until %d THPs were gone", name,
			thps);
	else if (!moved)
		tst_res(TCONF, "%s: inconclusive: no THP was in the way", name);
	else
		tst_res(TPASS, "%s: %d THPs were moved out of the way", name,
			moved);
out:
	drop_thps();
}

/* A node where a gigantic page can be had, while nothing is in the way. */
static int gigantic_node(void)
{
	int nr, used;

	for (nr = numa_max_node(); nr >= 0; nr--) {
		snprintf(pool, sizeof(pool), "%s/node%d/hugepages/%s/nr_hugepages",
			 NODES, nr, GIGANTIC);
		if (access(pool, W_OK))
			continue;
		SAFE_FILE_SCANF(pool, "%d", &used);
		if (!used && get_gigantic())
			return nr;
	}
	return -1;
}

static void setup(void)
{
	char enabled[64] = "";
	long lent = 0;

	page_bytes = getpagesize();
	if (numa_available() < 0)
		tst_brk(TCONF, "needs CONFIG_NUMA");
	if (access(THP_ENABLED, R_OK))
		tst_brk(TCONF, "needs CONFIG_TRANSPARENT_HUGEPAGE");
	SAFE_FILE_SCANF(THP_ENABLED, "%63[^\n]", enabled);
	if (strstr(enabled, "[never]"))
		tst_brk(TCONF, "needs THPs: transparent_hugepage=madvise");
	FILE_LINES_SCANF("/proc/meminfo", "CmaTotal: %ld", &lent);
	if (lent < GIGANTIC_KIB)
		tst_brk(TCONF, "needs memory that is lent: boot with hugetlb_cma=2G");
	node = gigantic_node();
	if (node < 0)
		tst_brk(TCONF, "no gigantic page can be had: boot with hugetlb_cma=2G");
}

static void cleanup(void)
{
	drop_thps();
}

static struct tst_test test = {
	.setup = setup,
	.cleanup = cleanup,
	.test = run,
	.tcnt = ARRAY_SIZE(cause_name),
	.needs_root = 1,
	.forks_child = 1,
	.needs_checkpoints = 1,
	.timeout = 120,
	.save_restore = (const struct tst_path_val[]) {
		{POOL, NULL, TST_SR_TCONF},
		{}
	},
	.tags = (const struct tst_tag[]) {
		{"linux-git", "829ae0f81ce093d674ff2256f66a714753e9ce32"},
		{}
	},
};

#else
TST_TEST_TCONF(NUMA_ERROR_MSG);
#endif
