// SPDX-License-Identifier: GPL-2.0
/*
 * When a hugetlb mapping is split and there is no memory for the lock of the new
 * VMA, is it left with page tables that it shares?
 *
 * Code that uses a table that may be shared holds the hugetlb VMA lock, so that
 * nobody takes the table away meanwhile. A VMA without a lock must have no such
 * table. It cannot join one later. But a half of a VMA that is split has its
 * tables from before:
 *
 *	PUD		0		1		2
 *	process A	touched		touched		touched
 *	process B	shared		shared		not touched
 *	  splits here		   |
 *	  new VMA			shared?		joins?
 *
 * B has the kernel fail one allocation of the call that splits, the first, then
 * the second and so on, each time in a new process. Where the call succeeds
 * nevertheless, two things are looked at. Is the table of PUD 1 still shared? Then
 * what A adds to it is there for B without a page fault. And does the new VMA have
 * a lock? Then it joins the table that A has for PUD 2, and that takes one fault
 * for all pages; else one for each page. Shared and no lock is the defect.
 *
 *	split_madvise	the flags of the part below change
 *	split_mprotect	its protection does
 *	split_munmap	it is unmapped
 *	control		the same as split_madvise, and no allocation fails: the
 *			table is shared, and the lock is there
 *
 * What fails is an allocation of this process alone (fail-nth, see
 * Documentation/fault-injection/fault-injection.rst).
 */
#include "kselftest_harness.h"

#include <errno.h>
#include <fcntl.h>
#include <numa.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_page.h"
#include "migrate_util.h"
#include "vm_util.h"

#define NR_PUDS		3
#define NR_PAGES	4	/* that are touched in each PUD */
#define NR_MORE		16	/* that A adds to PUD 1, one each time */
#define NR_FAILING	200	/* no call makes as many allocations */
#define STUCK_MS	20000

#define FAILSLAB_GFP	"/sys/kernel/debug/failslab/ignore-gfp-wait"

/*
 * One fault for all pages of a PUD: its table is shared. More of them count now
 * and then, that have nothing to do with these pages.
 */
static bool is_shared(long faults)
{
	return faults < NR_PAGES;
}

/* What B says of one call. */
struct result {
	int error;		/* of anything but the call */
	int call_error;		/* of the call: 0, or an error number */
	bool injected;		/* an allocation did fail */
	long faults;		/* to touch PUD 1 at first: 1 if it is shared */
	uint32_t split;		/* done, A is to add a page */
	uint32_t added;		/* it has */
	long later;		/* faults to touch that page: 0 if still shared */
	long joined;		/* faults to touch PUD 2: 1 if there is a lock */
};

FIXTURE(hugetlb_pmd_nolock)
{
	struct result *result;
	struct crew crew;
	char *area;
	int fd;
};

enum how { MADVISE, MPROTECT, MUNMAP };

FIXTURE_VARIANT(hugetlb_pmd_nolock)
{
	enum how how;
	bool control;
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_nolock, split_madvise) {
	.how = MADVISE };
FIXTURE_VARIANT_ADD(hugetlb_pmd_nolock, split_mprotect) {
	.how = MPROTECT };
FIXTURE_VARIANT_ADD(hugetlb_pmd_nolock, split_munmap) {
	.how = MUNMAP };
FIXTURE_VARIANT_ADD(hugetlb_pmd_nolock, control) {
	.how = MADVISE, .control = true };

static int map_all(int fd, char *area)
{
	if (mmap(area, NR_PUDS * pud_size(), PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, 0) == MAP_FAILED)
		return errno;
	return 0;
}

/* One system call that splits the mapping after its first PUD. */
static int split(char *area, enum how how)
{
	switch (how) {
	case MADVISE:
		return madvise(area, pud_size(), MADV_DONTDUMP);
	case MPROTECT:
		return mprotect(area, pud_size(), PROT_READ);
	default:
		return munmap(area, pud_size());
	}
}

/*
 * Split with allocation number @nth failing, or none for 0. The file takes the
 * number, and says 0 when it has come to that allocation.
 */
static void split_and_fail(struct result *result, char *area, enum how how,
			   int nth)
{
	char text[16];
	int fd = open("/proc/thread-self/fail-nth", O_RDWR);
	int len = snprintf(text, sizeof(text), "%d", nth);

	if (fd < 0 || write(fd, text, len) != len)
		crew_give_up(&result->error, errno);
	result->call_error = split(area, how) ? errno : 0;
	len = pread(fd, text, sizeof(text) - 1, 0);
	if (len <= 0 || pwrite(fd, "0", 1, 0) != 1)
		crew_give_up(&result->error, errno);
	text[len] = '\0';
	result->injected = nth && !strtol(text, NULL, 10);
	close(fd);
}

static __noreturn void sharer_main(struct result *result, int fd, char *area,
				   enum how how, int nth, int more)
{
	char *pud1 = area + pud_size(), *pud2 = pud1 + pud_size();
	int error = map_all(fd, area);

	if (error)
		crew_give_up(&result->error, error);
	/* Not to count the faults of the call itself. */
	touch_pages(pud1, 0);
	result->faults = touch_pages(pud1, NR_PAGES);
	split_and_fail(result, area, how, nth);
	set_and_wake(&result->split, 1);
	if (!result->call_error) {
		wait_for_change(&result->added, 0);
		result->later = touch_pages(pud1 + more * pmd_size(), 1);
		result->joined = touch_pages(pud2, NR_PAGES);
	}
	_exit(0);
}

FIXTURE_SETUP(hugetlb_pmd_nolock)
{
	const char *why;
	int i, fd, nodes[2];

	self->fd = -1;
	if (geteuid())
		SKIP(return, "needs root, to have allocations fail");
	if (access("/proc/thread-self/fail-nth", W_OK))
		SKIP(return, "no /proc/thread-self/fail-nth: needs %s",
		     "CONFIG_FAILSLAB");
	/* A kernel that is locked down has the file, and nobody can open it. */
	fd = open(FAILSLAB_GFP, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		SKIP(return, "cannot open %s: %s: needs debugfs (lockdown=none) and %s",
		     FAILSLAB_GFP, strerror(errno),
		     "CONFIG_FAULT_INJECTION_DEBUG_FS");
	close(fd);
	why = nodes_lack(nodes, 1, sched_getcpu()) ?:
	      guard_lacks() ?:
	      pool_lacks(nodes, 1, NR_PUDS * NR_PAGES + NR_MORE);
	if (why)
		SKIP(return, "%s", why);
	/* Allocations that may sleep are left alone otherwise. */
	ASSERT_EQ(0, guard_undo(FAILSLAB_GFP, "Y"));
	ASSERT_EQ(0, file_write(FAILSLAB_GFP, "N"));

	why = file_lacks(&self->fd, NR_PUDS * pud_size()) ?:
	      area_lacks(&self->area, NR_PUDS);
	if (why)
		SKIP(return, "%s", why);
	self->result = share_memory(sizeof(*self->result));
	ASSERT_NE(NULL, self->result);

	ASSERT_EQ(0, map_all(self->fd, self->area));
	for (i = 0; i < NR_PUDS; i++)
		touch_pages(self->area + i * pud_size(), NR_PAGES);
}

FIXTURE_TEARDOWN(hugetlb_pmd_nolock)
{
	const char *why = crew_end(&self->crew, self->fd, STUCK_MS);

	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
}

TEST_F_TIMEOUT(hugetlb_pmd_nolock, has_a_lock, 120)
{
	struct result *result = self->result;
	int nth, calls = 0, refused = 0, bad = 0, more = 0;
	bool shared, all = false;	/* allocations were tried */
	char *page;
	pid_t pid;

	for (nth = !variant->control; nth < NR_FAILING && more < NR_MORE; nth++) {
		memset(result, 0, sizeof(*result));
		self->crew.nr = 0;
		page = self->area + pud_size() + (NR_PAGES + more) * pmd_size();
		pid = crew_fork(&self->crew);
		ASSERT_GE(pid, 0);
		if (!pid)
			sharer_main(result, self->fd, self->area, variant->how,
				    nth, NR_PAGES + more);
		ASSERT_TRUE(wait_a_while(&result->split, 0, STUCK_MS))
			TH_LOG("a call failed: %s", strerror(result->error));
		if (!result->call_error) {
			touch_pages(page, 1);
			more++;
			set_and_wake(&result->added, 1);
		}
		ASSERT_TRUE(crew_wait(&self->crew, STUCK_MS));
		ASSERT_EQ(0, self->crew.status[0])
			TH_LOG("allocation %d failed, and a process died", nth);
		/* Not after a failure: a skip would take its place. */
		if (!is_shared(result->faults) && !bad)
			SKIP(return, "%s", not_shared(result->faults, NR_PAGES));
		/* The call made fewer allocations than that: all were tried. */
		all = !variant->control && !result->injected;
		if (all || !is_shared(result->faults))
			break;
		calls++;
		if (result->call_error) {
			refused++;
			continue;
		}
		shared = !result->later;
		if (shared && !is_shared(result->joined)) {
			bad++;
			ksft_print_msg("allocation %d failed: shared, no lock\n",
				       nth);
		}
		if (variant->control)
			break;
	}

	ksft_print_msg("hugetlb_pmd_nolock: control=%s",
		       variant->control ? "yes" : "no");
	printf(" calls=%d failed_calls=%d migrations=%d lost_migrations=%d",
	       calls, refused, calls, bad);
	printf(" later=%ld joined=%ld\n", result->later, result->joined);
	EXPECT_EQ(0, bad)
		TH_LOG("after %d of %d splits a VMA shared a table and had no lock",
		       bad, calls);
	if (variant->control) {
		EXPECT_EQ(0, result->later)
			TH_LOG("the split took the shared table away");
		EXPECT_TRUE(is_shared(result->joined))
			TH_LOG("%ld faults for %d pages: the new VMA joins no table",
			       result->joined, NR_PAGES);
		return;
	}
	if (bad)
		return;
	if (!calls)
		SKIP(return, "inconclusive: no allocation failed");
	if (!all)
		SKIP(return, "inconclusive: %d allocations failed, and there may be more of them",
		     calls);
}

TEST_HARNESS_MAIN
