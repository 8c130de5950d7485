// SPDX-License-Identifier: GPL-2.0
/*
 * Does mremap(2) move each page of a hugetlb mapping to where it belongs?
 *
 * Where the old mapping has no page table for a PUD, or one that others share,
 * there is nothing to move, and the kernel goes on with the next PUD. The new
 * address has to go on by the same number of bytes. If it goes to the next PUD
 * as well, it is right only where both have the same offset in their PUD:
 *
 *	old	|   o==========|==p...	|	p: a page, behind a PUD with none
 *	new	| n============|====p.	|	where it belongs
 *	new	| n============|======p.|	where it is, if n goes to the next PUD
 *
 * With n < o a page comes too far up, and may be beyond the end of the new
 * mapping. With n > o it comes too far down, and is at another offset of the
 * file.
 *
 *			what is in the PUD before the pages
 *	*_shared	nothing, in a shared mapping
 *	*_private	nothing, in a private one
 *	*_hole		nothing, and there are pages before it, too
 *	*_table		pages, in a table that another mapping shares
 *	same_*		controls: both have the same offset
 *
 * There is a mapping of another file on each side of the new one, with pages of
 * known content, and none where a page would come to be that goes astray. So
 * nothing is overwritten, and to unmap it gives all back, on any kernel.
 *
 * No page is touched between mremap() and the look at where the pages are: a
 * shared mapping would find them in the file. Of those in a shared table none is
 * moved: they are there once they are touched. No new mapping covers a PUD that
 * a page is moved into, so that this can share no table: see hugetlb_pmd_mremap.
 */
#include "kselftest_harness.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_page.h"
#include "migrate_util.h"
#include "vm_util.h"

#define NR_PAGES	4
#define NR_JOINED	2	/* pages in the table that is shared */
#define TAIL		8	/* of the mapping, in its last PUD */
#define GUARD		8	/* pages of the mapping above the new one */
#define MOUNT_PAGES	16	/* more than all of these, and copies */
#define NR_PUDS		10
#define NEW_PUD		4	/* of the area; the old one is in the first */
#define VIEW_PUD	8	/* of who shares the table */
#define PROBE_PUD	9
#define FREE_MS		2000	/* for pages that are freed later */

FIXTURE(hugetlb_mremap_astray)
{
	char *area;
	int dir, fd, guard_fd;
};

FIXTURE_VARIANT(hugetlb_mremap_astray)
{
	size_t old;	/* huge pages that it is off, in its PUD */
	size_t new;
	bool private;
	bool hole;
	bool table;
};

FIXTURE_VARIANT_ADD(hugetlb_mremap_astray, same_shared) {
	.old = 3, .new = 3 };
FIXTURE_VARIANT_ADD(hugetlb_mremap_astray, same_private) {
	.old = 3, .new = 3, .private = true };
FIXTURE_VARIANT_ADD(hugetlb_mremap_astray, same_hole) {
	.old = 3, .new = 3, .private = true, .hole = true };
FIXTURE_VARIANT_ADD(hugetlb_mremap_astray, same_table) {
	.table = true };
FIXTURE_VARIANT_ADD(hugetlb_mremap_astray, down_shared) {
	.old = 0, .new = 2 };
FIXTURE_VARIANT_ADD(hugetlb_mremap_astray, down_private) {
	.old = 0, .new = 2, .private = true };
FIXTURE_VARIANT_ADD(hugetlb_mremap_astray, down_hole) {
	.old = 0, .new = 2, .private = true, .hole = true };
FIXTURE_VARIANT_ADD(hugetlb_mremap_astray, down_table) {
	.old = 0, .new = 2, .table = true };
FIXTURE_VARIANT_ADD(hugetlb_mremap_astray, up_shared) {
	.old = 3, .new = 1 };
FIXTURE_VARIANT_ADD(hugetlb_mremap_astray, up_private) {
	.old = 3, .new = 1, .private = true };
FIXTURE_VARIANT_ADD(hugetlb_mremap_astray, up_hole) {
	.old = 3, .new = 1, .private = true, .hole = true };

static size_t per_pud(void)
{
	return pud_size() / pmd_size();
}

/* Huge pages of the mapping before its last PUD. */
static size_t head_of(const FIXTURE_VARIANT(hugetlb_mremap_astray) * variant)
{
	return (variant->hole ? 2 : 1) * per_pud() - variant->old;
}

/* Which of the mapping page @i of NR_PAGES is. */
static size_t index_of(const FIXTURE_VARIANT(hugetlb_mremap_astray) * variant,
		       int i)
{
	static const size_t tail[NR_PAGES] = { 0, 1, TAIL - 2, TAIL - 1 };

	if (variant->hole && i < 2)
		return i;
	return head_of(variant) + tail[i];
}

static uint64_t *word_at(char *addr, size_t index)
{
	return (uint64_t *)(addr + index * pmd_size());
}

static uint64_t load(char *addr, size_t index)
{
	return __atomic_load_n(word_at(addr, index), __ATOMIC_RELAXED);
}

static void store(char *addr, size_t index, uint64_t val)
{
	__atomic_store_n(word_at(addr, index), val, __ATOMIC_RELAXED);
}

/* What a file has at a page. No page table has anything to do with that. */
static uint64_t in_file(int fd, size_t index)
{
	uint64_t val = 0;

	if (pread(fd, &val, sizeof(val), index * pmd_size()) != sizeof(val))
		return -1;
	return val;
}

static bool map_at(char *addr, size_t pages, int fd, size_t offset,
		   bool private)
{
	return mmap(addr, pages * pmd_size(), PROT_READ | PROT_WRITE,
		    (private ? MAP_PRIVATE : MAP_SHARED) | MAP_FIXED |
		    MAP_NORESERVE, fd, offset * pmd_size()) == addr;
}

/* KiB of page tables; without malloc(), which may take one. */
static long table_kib(void)
{
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	char text[4096] = "", *line;
	long kib = -1;

	if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0) {
		line = strstr(text, "VmPTE:");
		if (line)
			sscanf(line, "VmPTE: %ld", &kib);
	}
	if (fd >= 0)
		close(fd);
	return kib;
}

/* Store to a page. Returns whether that took a page table. */
static bool store_new(char *addr, size_t index, uint64_t val)
{
	long before = table_kib();

	store(addr, index, val);
	return table_kib() > before;
}

/* Whether this kernel moves huge pages, and says where they are. */
static const char *can_move_lacks(char *addr, int fd)
{
	const char *why;

	if (!map_at(addr, 1, fd, 0, false))
		return "cannot map the file";
	touch_pages(addr, 1);
	why = mremap_lacks(addr, addr + pmd_size());
	unmap_pud(addr);
	return why;
}

FIXTURE_SETUP(hugetlb_mremap_astray)
{
	const char *why;
	int nodes[2];

	self->dir = -1;
	self->fd = -1;
	self->guard_fd = -1;
	if (geteuid())
		SKIP(return, "needs root, for the huge page pool");
	why = nodes_lack(nodes, 1, sched_getcpu()) ?:
	      guard_lacks() ?:
	      pool_lacks(nodes, 1, MOUNT_PAGES) ?:
	      area_lacks(&self->area, NR_PUDS) ?:
	      mount_lacks(&self->dir, MOUNT_PAGES);
	if (why)
		SKIP(return, "%s", why);
	ASSERT_EQ(MOUNT_PAGES, hugetlbfs_free(self->dir));
	self->fd = hugetlbfs_file(self->dir,
				  (head_of(variant) + TAIL) * pmd_size());
	ASSERT_GE(self->fd, 0);
	self->guard_fd = hugetlbfs_file(self->dir,
					(variant->new + GUARD) * pmd_size());
	ASSERT_GE(self->guard_fd, 0);
	why = can_move_lacks(self->area + PROBE_PUD * pud_size(),
			     self->guard_fd);
	if (why)
		SKIP(return, "%s", why);
}

FIXTURE_TEARDOWN(hugetlb_mremap_astray)
{
	const char *why;

	if (self->area)
		munmap(self->area, NR_PUDS * pud_size());
	if (self->fd >= 0)
		close(self->fd);
	if (self->guard_fd >= 0)
		close(self->guard_fd);
	if (self->dir >= 0)
		close(self->dir);
	why = guard_end(true);
	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
}

TEST_F_TIMEOUT(hugetlb_mremap_astray, in_place, 120)
{
	size_t pages = head_of(variant) + TAIL, below = variant->new;
	char *old = self->area + variant->old * pmd_size();
	char *start = self->area + NEW_PUD * pud_size();
	char *new = start + variant->new * pmd_size();
	char *view = self->area + VIEW_PUD * pud_size();
	char *end = new + pages * pmd_size();
	int in_place = 0, inside = 0, outside = 0, wrong = 0, stale = 0;
	int i, tables = 0, want = variant->hole ? 2 : 1;
	unsigned long begun;
	int64_t pfns[NR_PAGES];
	uint64_t found;
	size_t index;
	long faults;

	/* The pages of others, on both sides. The others there are missing. */
	ASSERT_TRUE(map_at(end, GUARD, self->guard_fd, below, false));
	store(end, GUARD / 2, 301);
	store(end, GUARD - 1, 302);
	if (below) {
		ASSERT_TRUE(map_at(start, below, self->guard_fd, 0, false));
		store(start, below - 1, 300);
	}

	ASSERT_TRUE(map_at(old, pages, self->fd, 0, variant->private));
	if (variant->table) {
		ASSERT_TRUE(map_at(view, per_pud(), self->fd, 0, false));
		for (i = 0; i < NR_JOINED; i++)
			store(view, i, 50 + i);
		faults = touch_pages(old, NR_JOINED);
		if (faults != 1)
			SKIP(return, "%s", not_shared(faults, NR_JOINED));
	}
	/*
	 * A PUD that takes a table when it is touched had none before. All are in
	 * the same area, so nor has the one that is not touched.
	 */
	for (i = 0; i < NR_PAGES; i++)
		tables += store_new(old, index_of(variant, i), 100 + i);
	for (i = 0; i < NR_PAGES; i++) {
		pfns[i] = page_pfn(0, word_at(old, index_of(variant, i)));
		ASSERT_GE(pfns[i], 0);
	}
	if (tables != want)
		SKIP(return, "inconclusive: %d PUDs took %d page tables", want,
		     tables);

	ASSERT_EQ(new, mremap(old, pages * pmd_size(), pages * pmd_size(),
			      MREMAP_MAYMOVE | MREMAP_FIXED, new))
		TH_LOG("mremap: %s", strerror(errno));

	for (i = 0; i < NR_PAGES; i++) {
		index = index_of(variant, i);
		in_place += page_pfn(0, word_at(new, index)) == pfns[i];
		stale += page_pfn(0, word_at(old, index)) >= 0;
	}
	/* Nothing else may come to be there: all is unmapped at the end. */
	ASSERT_EQ(old, mmap(old, pages * pmd_size(), PROT_NONE,
			    MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS |
			    MAP_NORESERVE, -1, 0));
	for (index = 0; index < pages; index++) {
		for (i = 0; i < NR_PAGES; i++)
			if (index == index_of(variant, i))
				break;
		if (i < NR_PAGES || page_pfn(0, word_at(new, index)) < 0)
			continue;
		/* What a process reads there, and what the file has. */
		inside++;
		wrong += load(new, index) != in_file(self->fd, index);
	}
	for (index = 0; index < below; index++)
		outside += index != below - 1 &&
			   page_pfn(0, word_at(start, index)) >= 0;
	for (index = 0; index < GUARD; index++)
		outside += index != GUARD / 2 && index != GUARD - 1 &&
			   page_pfn(0, word_at(end, index)) >= 0;

	ksft_print_msg("hugetlb_mremap_astray: control=%s",
		       variant->old == variant->new ? "yes" : "no");
	printf(" calls=1 failed_calls=0 migrations=%d lost_migrations=%d",
	       NR_PAGES, NR_PAGES - in_place);
	printf(" tables=%d inside=%d outside=%d wrong=%d\n", tables, inside,
	       outside, wrong);
	EXPECT_EQ(NR_PAGES, in_place)
		TH_LOG("only %d of %d pages are where they were moved to",
		       in_place, NR_PAGES);
	EXPECT_EQ(0, stale)
		TH_LOG("%d pages are at the old address", stale);
	EXPECT_EQ(0, inside)
		TH_LOG("%d pages are at other offsets, %d unlike the file",
		       inside, wrong);
	EXPECT_EQ(0, outside)
		TH_LOG("%d pages are in the mapping of another file", outside);

	/* What is there has to be seen by others, if it is not private. */
	for (i = 0; i < NR_PAGES; i++) {
		index = index_of(variant, i);
		found = load(new, index);
		EXPECT_EQ(100 + i, found);
		store(new, index, 200 + i);
		EXPECT_EQ(variant->private ? 0 : 200 + i,
			  in_file(self->fd, index));
	}
	for (i = 0; variant->table && i < NR_JOINED; i++) {
		EXPECT_EQ(50 + i, load(new, i));
		EXPECT_EQ(50 + i, load(view, i));
		store(new, i, 60 + i);
		EXPECT_EQ(60 + i, load(view, i));
	}
	EXPECT_EQ(301, load(end, GUARD / 2));
	EXPECT_EQ(302, load(end, GUARD - 1));
	EXPECT_EQ(301, in_file(self->guard_fd, below + GUARD / 2));
	EXPECT_EQ(302, in_file(self->guard_fd, below + GUARD - 1));
	EXPECT_TRUE(!below || load(start, below - 1) == 300);

	/* The mount has all pages again: none stays mapped, by nobody. */
	ASSERT_EQ(0, munmap(self->area, NR_PUDS * pud_size()));
	self->area = NULL;
	close(self->fd);
	close(self->guard_fd);
	self->fd = -1;
	self->guard_fd = -1;
	begun = cycles_clock();
	while (hugetlbfs_free(self->dir) != MOUNT_PAGES &&
	       ms_since(begun) < FREE_MS)
		usleep(10 * 1000);
	EXPECT_EQ(MOUNT_PAGES, hugetlbfs_free(self->dir));
}

TEST_HARNESS_MAIN
