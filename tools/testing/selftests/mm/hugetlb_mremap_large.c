// SPDX-License-Identifier: GPL-2.0
/*
 * Does mremap(2) move a hugetlb mapping of 4 GiB and more?
 *
 * The kernel counts the bytes that it has moved. If an int takes that number on
 * its way, 4 GiB are 0: mremap(2) believes that it has moved nothing, and unmaps
 * the new mapping with all pages. Then it fails. Of 5 GiB, it believes that it
 * has moved the first, and moves that one back. 2, 3, 6 and 7 GiB are negative,
 * and pass for more than there is.
 *
 *			how long the mapping is
 *	private_*	anonymous, with a page at each GiB, and the last one
 *	shared_*	of a file, with two pages at each end
 *	*_4g, *_5g	what an int takes for less
 *	the others	controls: what it takes right, or for more
 *
 * What was in a private mapping is lost then. Pages of a shared one are in the
 * file, but the call fails. Here all is unmapped at the end, so a kernel with the
 * bug loses nothing else.
 *
 * No page is touched between mremap(2) and the look at where the pages are. The
 * old and the new mapping have the same offset in their PUD, so that none goes
 * astray: see hugetlb_mremap_astray. Shared pages are in PUDs of which the
 * mapping has a part, for it can share no table there: see hugetlb_pmd_mremap.
 *
 * The mapping goes to the new place, and back.
 */
#include "kselftest_harness.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_page.h"
#include "vm_util.h"

#ifndef MAP_HUGE_SHIFT
#define MAP_HUGE_SHIFT	26
#endif

#define GIB		(1024UL << 20)
#define MAX_GIB		6
#define MAX_PAGES	(MAX_GIB + 1)
#define SHARED_PAGES	4
#define CALLS		2
#define FREE_PAGES	(2 * MAX_PAGES)	/* these, and those of who has lost some */

/* Huge pages that both mappings are off in their PUD: so many in the last one. */
#define OFF		2

FIXTURE(hugetlb_mremap_large)
{
	char *area;
	int puds;	/* of each mapping; they are side by side */
	int fd;
};

FIXTURE_VARIANT(hugetlb_mremap_large)
{
	int gib;
	bool shared;
	bool control;
};

FIXTURE_VARIANT_ADD(hugetlb_mremap_large, private_1g) {
	.gib = 1, .control = true };
FIXTURE_VARIANT_ADD(hugetlb_mremap_large, private_2g) {
	.gib = 2, .control = true };
FIXTURE_VARIANT_ADD(hugetlb_mremap_large, private_3g) {
	.gib = 3, .control = true };
FIXTURE_VARIANT_ADD(hugetlb_mremap_large, private_4g) {
	.gib = 4 };
FIXTURE_VARIANT_ADD(hugetlb_mremap_large, private_5g) {
	.gib = 5 };
FIXTURE_VARIANT_ADD(hugetlb_mremap_large, private_6g) {
	.gib = 6, .control = true };
FIXTURE_VARIANT_ADD(hugetlb_mremap_large, shared_1g) {
	.gib = 1, .shared = true, .control = true };
FIXTURE_VARIANT_ADD(hugetlb_mremap_large, shared_3g) {
	.gib = 3, .shared = true, .control = true };
FIXTURE_VARIANT_ADD(hugetlb_mremap_large, shared_4g) {
	.gib = 4, .shared = true };
FIXTURE_VARIANT_ADD(hugetlb_mremap_large, shared_5g) {
	.gib = 5, .shared = true };

static int nr_pages(const FIXTURE_VARIANT(hugetlb_mremap_large) * variant)
{
	return variant->shared ? SHARED_PAGES : variant->gib + 1;
}

/* Where page @i of nr_pages() is in the mapping. */
static size_t offset_of(const FIXTURE_VARIANT(hugetlb_mremap_large) * variant,
			int i)
{
	int behind = nr_pages(variant) - i;	/* 1 for the last one */
	size_t len = variant->gib * GIB;

	if (variant->shared)
		return i < 2 ? i * pmd_size() : len - behind * pmd_size();
	return behind == 1 ? len - pmd_size() : i * GIB;
}

static uint64_t load(char *addr)
{
	return __atomic_load_n((uint64_t *)addr, __ATOMIC_RELAXED);
}

static void store(char *addr, uint64_t val)
{
	__atomic_store_n((uint64_t *)addr, val, __ATOMIC_RELAXED);
}

/* What the file has at a page. No page table has anything to do with that. */
static uint64_t in_file(int fd, size_t offset)
{
	uint64_t val = 0;

	if (pread(fd, &val, sizeof(val), offset) != sizeof(val))
		return -1;
	return val;
}

/* A mapping of @len bytes: of @fd, or, if that is -1, anonymous. */
static bool map_at(char *addr, size_t len, int fd)
{
	int size = __builtin_ctzl(pmd_size()) << MAP_HUGE_SHIFT;
	int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | size :
			     MAP_SHARED;

	return mmap(addr, len, PROT_READ | PROT_WRITE,
		    flags | MAP_FIXED | MAP_NORESERVE, fd, 0) == addr;
}

/* Keep addresses that nothing is mapped at from being used. */
static bool block(char *addr, size_t len)
{
	return mmap(addr, len, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
		    0) == addr;
}

/* Whether this kernel moves huge pages, and says where they are. */
static const char *can_move_lacks(char *addr)
{
	const char *why;

	if (!map_at(addr, pmd_size(), -1))
		return "cannot map huge pages";
	store(addr, 1);
	why = mremap_lacks(addr, addr + pmd_size());
	block(addr, 2 * pmd_size());
	return why;
}

FIXTURE_SETUP(hugetlb_mremap_large)
{
	size_t len = variant->gib * GIB;
	const char *why;
	int nodes[2];

	self->fd = -1;
	if (geteuid())
		SKIP(return, "needs root, for the huge page pool");
	why = nodes_lack(nodes, 1, sched_getcpu()) ?:
	      guard_lacks() ?:
	      pool_lacks(nodes, 1, FREE_PAGES);
	if (why)
		SKIP(return, "%s", why);
	if (len < 4 * pmd_size())
		SKIP(return, "huge pages of %zu MiB are too large",
		     pmd_size() >> 20);
	self->puds = (OFF * pmd_size() + len + pud_size() - 1) / pud_size();
	why = area_lacks(&self->area, 2 * self->puds);
	if (!why && variant->shared)
		why = file_lacks(&self->fd, len);
	if (!why)
		why = can_move_lacks(self->area);
	if (why)
		SKIP(return, "%s", why);
}

FIXTURE_TEARDOWN(hugetlb_mremap_large)
{
	const char *why;

	if (self->area)
		munmap(self->area, 2 * self->puds * pud_size());
	if (self->fd >= 0)
		close(self->fd);
	why = guard_end(true);
	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
}

TEST_F_TIMEOUT(hugetlb_mremap_large, all, 120)
{
	char *from = self->area + OFF * pmd_size();
	char *to = from + self->puds * pud_size();
	int call, i, nr = nr_pages(variant), failed = 0;
	int pages = 0, there = 0, stayed = 0, wrong = 0;
	size_t offset, len = variant->gib * GIB;
	int64_t pfns[MAX_PAGES];
	uint64_t val;
	char *moved;

	ASSERT_TRUE(map_at(from, len, self->fd))
		TH_LOG("mmap: %s", strerror(errno));
	for (i = 0; i < nr; i++)
		store(from + offset_of(variant, i), 100 + i);
	for (i = 0; i < nr; i++) {
		pfns[i] = page_pfn(0, from + offset_of(variant, i));
		ASSERT_GE(pfns[i], 0);
		/* Nor may it be there, where it is to come. */
		ASSERT_LT(page_pfn(0, to + offset_of(variant, i)), 0);
	}

	for (call = 0; call < CALLS && !failed; call++) {
		moved = mremap(from, len, len, MREMAP_MAYMOVE | MREMAP_FIXED,
			       to);
		EXPECT_EQ(to, moved) {
			TH_LOG("mremap of %d GiB: %s", variant->gib,
			       strerror(errno));
			failed++;
		}
		/* One that fails has unmapped what was at the new address. */
		ASSERT_TRUE(block(failed ? to : from, len));
		for (i = 0; i < nr; i++) {
			offset = offset_of(variant, i);
			there += page_pfn(0, to + offset) == pfns[i];
			stayed += page_pfn(0, from + offset) == pfns[i];
		}
		pages += nr;
		/* What it has not moved is to be where it was. */
		moved = failed ? from : to;
		for (i = 0; i < nr; i++) {
			offset = offset_of(variant, i);
			val = 100 + i;
			wrong += load(moved + offset) != val;
			wrong += variant->shared &&
				 in_file(self->fd, offset) != val;
		}
		to = from;
		from = moved;
	}

	ksft_print_msg("hugetlb_mremap_large: control=%s",
		       variant->control ? "yes" : "no");
	printf(" calls=%d failed_calls=%d migrations=%d lost_migrations=%d",
	       call, failed, pages, pages - there);
	printf(" stayed=%d gone=%d wrong=%d\n", stayed,
	       pages - there - stayed, wrong);
	EXPECT_EQ(pages, there)
		TH_LOG("of %d pages, %d were moved, %d stayed", pages, there,
		       stayed);
	EXPECT_EQ(0, wrong)
		TH_LOG("%d words are not what was written", wrong);
}

TEST_HARNESS_MAIN
