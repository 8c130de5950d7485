// SPDX-License-Identifier: GPL-2.0
/*
 * Does a hugetlbfs mount with a size have all its pages again when files are
 * removed whose pages were migrated?
 *
 * Such a mount counts its pages in a subpool, and every huge page knows the one
 * that it is given back to when it is freed. Of a mount of eight pages,
 *
 *				pages of the file	free, says statfs(2)
 *	map, and write		A  B  C  D		4
 *	migrate			A' B' C' D'		4
 *	remove			-			8
 *
 * A, B, C and D are freed in the second step. They must not be given back then,
 * as A' to D' are there in their place, and it is these that must be in the
 * third. A kernel that forgets to tell them leaves the mount with four pages.
 * After as many migrations as it has pages, it has none.
 *
 * Pages of a private mapping are counted as well. There are kernels that refuse to
 * migrate these, as upstream does since 5.0: nothing could be lost, and the test is
 * skipped. The lab does not take that for a pass: if a kernel without the fix loses
 * such pages, one with it has to move them.
 */
#include "kselftest_harness.h"

#include <numa.h>
#include <numaif.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_page.h"
#include "vm_util.h"

#define MOUNT_PAGES	8
/* No more than half: there are kernels that count a page twice on its way. */
#define NR_PAGES	(MOUNT_PAGES / 2)
#define ROUNDS		5	/* files made and removed */
#define CALLS		3	/* for each, to and fro */

enum trigger { MOVE_PAGES, MBIND };

static const char * const trigger_name[] = { "move_pages", "mbind" };

FIXTURE(hugetlb_subpool)
{
	int dir;		/* of the mount */
	int nodes[2];
};

FIXTURE_VARIANT(hugetlb_subpool)
{
	enum trigger trigger;
	int map;		/* MAP_SHARED or MAP_PRIVATE */
};

FIXTURE_VARIANT_ADD(hugetlb_subpool, move_pages_shared) {
	MOVE_PAGES, MAP_SHARED };
FIXTURE_VARIANT_ADD(hugetlb_subpool, move_pages_private) {
	MOVE_PAGES, MAP_PRIVATE };
FIXTURE_VARIANT_ADD(hugetlb_subpool, mbind_shared) {
	MBIND, MAP_SHARED };
FIXTURE_VARIANT_ADD(hugetlb_subpool, mbind_private) {
	MBIND, MAP_PRIVATE };

static char *map_file(int fd, int nr, int flags)
{
	return mmap(NULL, nr * pmd_size(), PROT_READ | PROT_WRITE, flags, fd,
		    0);
}

/* Write to every page, or a private mapping would not have its own. */
static void fill(char *addr, int nr)
{
	int i;

	for (i = 0; i < nr; i++)
		__atomic_store_n(addr + i * pmd_size(), i + 1,
				 __ATOMIC_RELAXED);
}

static int pages_on(char *addr, int node)
{
	int i, count = 0;

	for (i = 0; i < NR_PAGES; i++)
		count += page_node(0, addr + i * pmd_size()) == node;
	return count;
}

static int bind_to(char *addr, int node, unsigned int flags)
{
	return bind_range(addr, NR_PAGES * pmd_size(), node, flags) < 0 ?
	       -errno : 0;
}

/* Have all pages moved to @node. Returns -errno or 0, moved or not. */
static int ask(enum trigger trigger, char *addr, int node)
{
	void *pages[NR_PAGES];
	int nodes[NR_PAGES], status[NR_PAGES];
	int i;

	if (trigger == MBIND)
		return bind_to(addr, node, MPOL_MF_MOVE);
	for (i = 0; i < NR_PAGES; i++) {
		pages[i] = addr + i * pmd_size();
		nodes[i] = node;
	}
	/* Above 0: pages that stayed. */
	return move_pages(0, NR_PAGES, pages, nodes, status, MPOL_MF_MOVE) < 0 ?
	       -errno : 0;
}

FIXTURE_SETUP(hugetlb_subpool)
{
	const char *why;

	self->dir = -1;
	if (geteuid())
		SKIP(return, "needs root, to mount hugetlbfs");
	why = nodes_lack(self->nodes, 2, sched_getcpu()) ?:
	      guard_lacks() ?:
	      pool_lacks(self->nodes, 2, MOUNT_PAGES) ?:
	      mount_lacks(&self->dir, MOUNT_PAGES);
	if (why)
		SKIP(return, "%s", why);
	ASSERT_EQ(MOUNT_PAGES, hugetlbfs_free(self->dir))
		TH_LOG("a mount of %d pages has another number", MOUNT_PAGES);
}

FIXTURE_TEARDOWN(hugetlb_subpool)
{
	if (self->dir >= 0)
		close(self->dir);
	guard_stop();
}

TEST_F(hugetlb_subpool, all_come_back)
{
	const char *name = trigger_name[variant->trigger];
	bool is_private = variant->map == MAP_PRIVATE;
	long calls = 0, moved = 0, now = MOUNT_PAGES, last = -1;
	int round, call, ret, fd, count;
	char *addr;

	for (round = 0; round < ROUNDS && now == MOUNT_PAGES; round++) {
		fd = hugetlbfs_file(self->dir, NR_PAGES * pmd_size());
		ASSERT_GE(fd, 0);
		addr = map_file(fd, NR_PAGES, variant->map);
		ASSERT_NE(MAP_FAILED, addr);
		ASSERT_EQ(0, bind_to(addr, self->nodes[0], 0));
		fill(addr, NR_PAGES);
		ASSERT_EQ(NR_PAGES, pages_on(addr, self->nodes[0]))
			TH_LOG("not all pages are on node %d", self->nodes[0]);
		ASSERT_EQ(MOUNT_PAGES - NR_PAGES,
			  hugetlbfs_free(self->dir));

		for (call = 1; call <= CALLS; call++) {
			int node = self->nodes[call % 2];

			ret = ask(variant->trigger, addr, node);
			if (ret && !moved)
				SKIP(return, "%s() does not work here: %s",
				     name, strerror(-ret));
			ASSERT_EQ(0, ret);
			calls++;
			count = pages_on(addr, node);
			moved += count;
			if (is_private && !count)
				break;
			ASSERT_EQ(NR_PAGES, count)
				TH_LOG("%s() does not move all pages to node %d",
				       name, node);
			now = hugetlbfs_free(self->dir);
			EXPECT_EQ(MOUNT_PAGES - NR_PAGES, now)
				TH_LOG("%ld of %d pages free after %s(), with %d in use",
				       now, MOUNT_PAGES, name, NR_PAGES);
			/* The mount may have none left to go on with. */
			if (now != MOUNT_PAGES - NR_PAGES)
				break;
		}

		ASSERT_EQ(0, munmap(addr, NR_PAGES * pmd_size()));
		close(fd);
		now = hugetlbfs_free(self->dir);
	}

	ksft_print_msg("hugetlb_subpool: trigger=%s private=%s control=no",
		       name, is_private ? "yes" : "no");
	printf(" calls=%ld failed_calls=0 migrations=%ld lost_migrations=%ld\n",
	       calls, moved, now < MOUNT_PAGES ? MOUNT_PAGES - now : 0);
	EXPECT_EQ(MOUNT_PAGES, now)
		TH_LOG("%ld of %d pages free with no file left, after %ld migrations",
		       now, MOUNT_PAGES, moved);

	/* It is no matter of figures alone. */
	fd = hugetlbfs_file(self->dir, MOUNT_PAGES * pmd_size());
	ASSERT_GE(fd, 0);
	addr = map_file(fd, MOUNT_PAGES, MAP_SHARED);
	EXPECT_NE(MAP_FAILED, addr)
		TH_LOG("no file can have all pages of the mount any more: %s",
		       strerror(errno));
	if (addr != MAP_FAILED) {
		fill(addr, MOUNT_PAGES);
		last = hugetlbfs_free(self->dir);
		EXPECT_EQ(0, last);
		munmap(addr, MOUNT_PAGES * pmd_size());
	}
	close(fd);
	/* Not after a failure: a skip would take its place. */
	if (!moved && now == MOUNT_PAGES && !last)
		SKIP(return, "this kernel moves no private pages of such a mount");
}

TEST_HARNESS_MAIN
