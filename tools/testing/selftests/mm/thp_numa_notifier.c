// SPDX-License-Identifier: GPL-2.0
/*
 * Is a device that shares the page tables told in time when NUMA balancing
 * migrates a transparent huge page?
 *
 * NUMA balancing goes through the page tables and takes the access away, so
 * that the next access tells by a page fault which node it comes from. For huge
 * pages that is done PMD by PMD, each under its lock; the CPUs' TLBs and the
 * MMU notifiers' ->invalidate_range() are seen to at the end, for all of them:
 *
 *	thread 1             thread 2             device
 *	PMD 0: no access                          writes to pages 0 to 63
 *	PMD 1: no access
 *	  :                  touches page 0:
 *	  :                   migrates it
 *	  :                    flushes the CPUs   writes to the old page 0,
 *	  :                    copies it           by its own TLB
 *	  :                    maps the copy
 *	PMD 63: no access                             (lost)
 *	flush, ->invalidate_range()
 *
 * For the CPUs the fault in thread 2 sees that a flush is still to come, and
 * flushes. If it does not call ->invalidate_range() as well, then all that the
 * device writes after the copy is lost.
 *
 * The device is that of lib/test_mmu_notifier.c, which must be in the kernel.
 * It writes numbered words through all entries of its TLB, and knows the number
 * of the last when an entry is taken away. Each thread has some of the pages,
 * touches them in turn, and if an entry has gone
 *
 *	looks	   where the page is, and how the entry went
 *	compares   the journal in it with the number of the device's last write
 *	shows	   the page to the device again
 *
 * When most pages have come to the threads' node the threads go to the other,
 * and the pages follow. What counts as a migration is a page that has moved and
 * whose entry was taken away by an invalidation for this one page: the device
 * could write to it until then. An invalidation of more than a page is the end
 * of the walk, and a page that is migrated after that is no evidence.
 *
 * Variants: as it is; with another device that takes its time at the end of the
 * walk, when the first one is still to be told; and with move_pages(2), which
 * tells the device before it copies in every kernel.
 *
 * Environment:
 *	THP_NUMA_NOTIFIER_SECONDS=n	how long a variant may run
 */
#include "kselftest_harness.h"

#include <fcntl.h>
#include <numa.h>
#include <numaif.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <lib/test_mmu_notifier_uapi.h>
#include "migrate_guard.h"
#include "migrate_memory.h"
#include "migrate_page.h"
#include "migrate_thp.h"
#include "migrate_util.h"
#include "vm_util.h"

#define DEVICE		"/dev/test_mmu_notifier"
#define NR_PAGES	64	/* huge ones, under one PUD */
#define NR_THREADS	4
#define MAX_CPUS	4	/* of a node */
#define SECONDS		15
#define MAX_SECONDS	90	/* the harness has 120 for all */
#define WANT		20	/* migrations are enough */
#define MIN_MIGRATIONS	3	/* fewer are no evidence */
#define EXAMPLES	3
#define TICK_MS		10
#define PHASE_MS	2000
#define SLOW_END_US	20000
#define SCAN_MIB	192	/* all that the test has, in one walk */

enum trigger { NUMA_BALANCING, MOVE_PAGES };

static const char * const trigger_name[] = { "numa_balancing", "move_pages" };

/* A huge page. One thread has it, the node is for all to read. */
struct page {
	char *addr;		/* the journal is at its beginning */
	bool shown;
	int node;
	int64_t pfn;		/* when it was shown */
	uint64_t nr;		/* of the device's last write then */
};

struct counts {
	long shows;
	long failed_shows;
	long moved;
	long migrations;	/* of those, what the device could write to */
	long lost_migrations;
	long lost_writes;	/* at least */
	long stale;		/* entries whose page had another owner */
	uint64_t writes;
};

struct example {
	int page;
	size_t word;
	uint64_t wrote;
	uint64_t found;
	int nodes[2];
	int64_t pfns[2];
	double ms;
};

struct toucher {
	FIXTURE_DATA(thp_numa_notifier) * self;
	pthread_t thread;
	int nr;
	struct counts counts;
};

FIXTURE(thp_numa_notifier)
{
	int device;
	int memory;		/* /proc/self/mem */
	char *area;
	struct page pages[NR_PAGES];
	int nodes[2];
	int cpus[2][MAX_CPUS];
	int nr_cpus[2];
	uint32_t stop;
	uint32_t phase;		/* its lowest bit: on which node they run */
	bool writing;		/* the device is */
	uint64_t began;		/* in ns */
	pthread_mutex_t lock;	/* what follows */
	struct example examples[EXAMPLES];
	int nr_examples;
	uint64_t first_ms;	/* from then to the first lost write */
	struct toucher touchers[NR_THREADS];
	int nr_touchers;
};

FIXTURE_VARIANT(thp_numa_notifier)
{
	enum trigger trigger;
	int slow_end_us;
};

FIXTURE_VARIANT_ADD(thp_numa_notifier, numa_balancing) {
	.trigger = NUMA_BALANCING };
FIXTURE_VARIANT_ADD(thp_numa_notifier, slow_end) {
	.trigger = NUMA_BALANCING, .slow_end_us = SLOW_END_US };
/* All of the test but the defect, so this passes on every kernel. */
FIXTURE_VARIANT_ADD(thp_numa_notifier, move_pages) {
	.trigger = MOVE_PAGES };

/* Two nodes with memory and CPUs that this process may use. */
static bool find_nodes(FIXTURE_DATA(thp_numa_notifier) * self)
{
	int cpus[CPU_SETSIZE], nr_cpus = cpu_list(cpus, ARRAY_SIZE(cpus));
	int k, node, i, nr = 0;

	for (k = 0; k < nr_cpus; k++) {
		node = numa_node_of_cpu(cpus[k]);
		if (node < 0 || numa_node_size64(node, NULL) <= 0)
			continue;
		for (i = 0; i < nr && self->nodes[i] != node; i++)
			;
		if (i == nr && nr < 2)
			self->nodes[nr++] = node;
		if (i < 2 && self->nr_cpus[i] < MAX_CPUS)
			self->cpus[i][self->nr_cpus[i]++] = cpus[k];
	}
	return nr == 2;
}

#ifndef IN_TREE
/*
 * New pages wait on a list of their CPU until there are some, and cannot be
 * migrated as long as they do: up to 4.7 huge ones as well. This empties that
 * list, and does not exclude anything from the memory map, as munmap() does.
 */
static void drain(void)
{
	static __thread char *page;

	if (!page) {
		page = mmap(NULL, psize(), PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (page == MAP_FAILED)
			page = NULL;
	}
	if (page) {
		*page = 1;
		madvise(page, psize(), MADV_DONTNEED);
	}
}
#endif

static uint64_t last_word(uint64_t nr, size_t slot)
{
	uint64_t back = (nr - slot) % TEST_MMU_NOTIFIER_SLOTS;

	return back < nr ? nr - back : 0;
}

/*
 * Compare the journal with what it has to be after write @nr. By the kernel's
 * own look at the memory, which is none of an access that NUMA balancing would
 * learn from. Returns the number of lost writes, or -1, and the last of them.
 */
static long compare(FIXTURE_DATA(thp_numa_notifier) * self,
		    const struct page *page, uint64_t nr,
		    struct example *example)
{
	uint64_t journal[TEST_MMU_NOTIFIER_SLOTS];
	long lost = 0;
	size_t slot;

	if (pread(self->memory, journal, sizeof(journal),
		  (uintptr_t)page->addr) != sizeof(journal))
		return -1;
	for (slot = 0; slot < TEST_MMU_NOTIFIER_SLOTS; slot++) {
		uint64_t want = last_word(nr, slot);

		if (journal[slot] == want)
			continue;
		if (!lost++ || want > example->wrote) {
			example->word = slot;
			example->wrote = want;
			example->found = journal[slot];
		}
	}
	return lost;
}

static void keep_example(FIXTURE_DATA(thp_numa_notifier) * self,
			 const struct example *example)
{
	pthread_mutex_lock(&self->lock);
	if (!self->nr_examples)
		self->first_ms = (cycles_clock() - self->began) / 1000000;
	if (self->nr_examples < EXAMPLES)
		self->examples[self->nr_examples++] = *example;
	pthread_mutex_unlock(&self->lock);
}

/* Show the page to the device, which counts on from write @nr. */
static void show(FIXTURE_DATA(thp_numa_notifier) * self, int i, uint64_t nr,
		 struct counts *counts)
{
	struct page *page = &self->pages[i];
	struct test_mmu_notifier_show arg = {
		.address = (uintptr_t)page->addr,
		.nr = nr,
		.entry = i,
	};

	page->nr = nr;
	page->shown = !ioctl(self->device, TEST_MMU_NOTIFIER_SHOW, &arg);
	counts->shows++;
	counts->failed_shows += !page->shown;
	if (page->shown && page->pfn != (int64_t)arg.pfn) {
		/* That the device asked for it made it move. */
		counts->moved++;
		page->pfn = arg.pfn;
		__atomic_store_n(&page->node, page_node(0, page->addr),
				 __ATOMIC_RELAXED);
	}
}

/*
 * The entry of a page is gone: was anything lost? @began is when the page was
 * touched, in cycles. Returns the number to count on from.
 */
static uint64_t settle(FIXTURE_DATA(thp_numa_notifier) * self, int i,
		       const struct test_mmu_notifier_state *state,
		       uint64_t began, struct counts *counts)
{
	struct page *page = &self->pages[i];
	struct example example = { .page = i };
	int64_t pfn = page_pfn(0, page->addr);
	int node = page_node(0, page->addr);
	bool moved = page->pfn >= 0 && pfn != page->pfn;
	long lost;

	lost = compare(self, page, state->nr, &example);
	if (lost < 0 || pfn < 0) {
		/* Nothing can be said of it. Begin anew. */
		counts->failed_shows++;
		lost = 0;
		moved = false;
	}
	counts->writes += state->nr - page->nr;
	counts->moved += moved;
	counts->lost_writes += lost;
	counts->lost_migrations += !!lost;
	/* A device that wrote nothing meanwhile could not lose anything. */
	if (lost || (moved && state->nr > page->nr &&
		     state->end - state->start <= pmd_size()))
		__atomic_fetch_add(&counts->migrations, 1, __ATOMIC_RELAXED);
	if (lost) {
		example.nodes[0] = page->node;
		example.nodes[1] = node;
		example.pfns[0] = page->pfn;
		example.pfns[1] = pfn;
		example.ms = cycles_to_us(cycles() - began) / 1000;
		keep_example(self, &example);
	}
	page->pfn = pfn;
	__atomic_store_n(&page->node, node, __ATOMIC_RELAXED);
	if (!lost)
		return state->nr;
	/* A new journal, or it would be seen again the next time. */
	memset(page->addr, 0, TEST_MMU_NOTIFIER_BYTES);
	return 0;
}

/* @final: the device has stopped, so a valid entry can be looked at, too. */
static void look_at(FIXTURE_DATA(thp_numa_notifier) * self, int i, bool final,
		    struct counts *counts)
{
	struct page *page = &self->pages[i];
	struct test_mmu_notifier_state state = { .entry = i };
	uint64_t began = cycles();

	__atomic_load_n(page->addr, __ATOMIC_RELAXED);
	if (!page->shown) {
		if (!final)
			show(self, i, page->nr, counts);
		return;
	}
	if (ioctl(self->device, TEST_MMU_NOTIFIER_READ, &state))
		return;
	if (state.valid && !final)
		return;
	page->shown = false;
	page->nr = settle(self, i, &state, began, counts);
	if (!final)
		show(self, i, page->nr, counts);
}

static void touch_in_turn(FIXTURE_DATA(thp_numa_notifier) * self,
			  struct toucher *toucher)
{
	uint32_t phase = -1, now;
	int i, on;

	while (!__atomic_load_n(&self->stop, __ATOMIC_ACQUIRE)) {
		now = __atomic_load_n(&self->phase, __ATOMIC_ACQUIRE);
		if (now != phase) {
#ifndef IN_TREE
			/* What waits on the CPU that is left. */
			drain();
#endif
			on = now & 1;
			pin_to_cpu(self->cpus[on][toucher->nr %
						  self->nr_cpus[on]]);
			phase = now;
		}
		for (i = toucher->nr; i < NR_PAGES; i += NR_THREADS)
			look_at(self, i, false, &toucher->counts);
	}
}

static void *toucher_main(void *arg)
{
	struct toucher *toucher = arg;

	touch_in_turn(toucher->self, toucher);
	return NULL;
}

static bool device_write(FIXTURE_DATA(thp_numa_notifier) * self, int cpu)
{
	if (self->writing)
		ioctl(self->device, TEST_MMU_NOTIFIER_STOP);
	self->writing = cpu >= 0 &&
			!ioctl(self->device, TEST_MMU_NOTIFIER_START, &cpu);
	return self->writing;
}

/*
 * The threads to one node, and to the other the device: it must not wait for
 * them, or they for it.
 */
static bool start_phase(FIXTURE_DATA(thp_numa_notifier) * self, uint32_t phase)
{
	int other = !(phase & 1);

	pin_to_cpu(self->cpus[other][self->nr_cpus[other] - 1]);
	__atomic_store_n(&self->phase, phase, __ATOMIC_RELEASE);
	return device_write(self, self->cpus[other][0]);
}

static int pages_on(FIXTURE_DATA(thp_numa_notifier) * self, int node)
{
	int i, nr = 0;

	for (i = 0; i < NR_PAGES; i++)
		nr += __atomic_load_n(&self->pages[i].node,
				      __ATOMIC_RELAXED) == node;
	return nr;
}

static void add(struct counts *sum, const struct counts *counts)
{
	sum->shows += counts->shows;
	sum->failed_shows += counts->failed_shows;
	sum->moved += counts->moved;
	sum->migrations += counts->migrations;
	sum->lost_migrations += counts->lost_migrations;
	sum->lost_writes += counts->lost_writes;
	sum->writes += counts->writes;
}

static long migrations_so_far(FIXTURE_DATA(thp_numa_notifier) * self)
{
	long nr = 0;
	int i;

	for (i = 0; i < NR_THREADS; i++) {
		struct counts *counts = &self->touchers[i].counts;

		nr += __atomic_load_n(&counts->migrations, __ATOMIC_RELAXED);
	}
	return nr;
}

/* Returns how many times the threads changed nodes. */
static long balance(struct __test_metadata *_metadata,
		    FIXTURE_DATA(thp_numa_notifier) * self, uint64_t limit,
		    struct counts *sum)
{
	uint64_t phase_limit;
	int i;

	/* The pages are on the first node. */
	ASSERT_TRUE(start_phase(self, 1));
	for (i = 0; i < NR_THREADS; i++) {
		struct toucher *toucher = &self->touchers[i];

		toucher->self = self;
		toucher->nr = i;
		ASSERT_EQ(0, pthread_create(&toucher->thread, NULL,
					    toucher_main, toucher));
		self->nr_touchers++;
	}
	phase_limit = cycles_clock() + PHASE_MS * 1000000ull;
	do {
		usleep(TICK_MS * 1000);
		if (cycles_clock() > phase_limit ||
		    pages_on(self, self->nodes[self->phase & 1]) >
		    NR_PAGES - NR_PAGES / 8) {
			ASSERT_TRUE(start_phase(self, self->phase + 1));
			phase_limit = cycles_clock() + PHASE_MS * 1000000ull;
		}
	} while (cycles_clock() < limit && migrations_so_far(self) < WANT);

	__atomic_store_n(&self->stop, 1, __ATOMIC_RELEASE);
	for (i = 0; i < NR_THREADS; i++) {
		pthread_join(self->touchers[i].thread, NULL);
		self->nr_touchers--;
		add(sum, &self->touchers[i].counts);
	}
	return self->phase - 1;
}

/* Returns the number of calls. */
static long move(struct __test_metadata *_metadata,
		 FIXTURE_DATA(thp_numa_notifier) * self, uint64_t limit,
		 struct counts *sum)
{
	int nodes[NR_PAGES], status[NR_PAGES], i;
	void *addrs[NR_PAGES];
	long calls = 0;

	ASSERT_TRUE(start_phase(self, 0));
	do {
		for (i = 0; i < NR_PAGES; i++) {
			addrs[i] = self->pages[i].addr;
			nodes[i] = self->nodes[!(calls & 1)];
		}
		move_pages(0, NR_PAGES, addrs, nodes, status, MPOL_MF_MOVE);
		calls++;
		for (i = 0; i < NR_PAGES; i++)
			look_at(self, i, false, sum);
	} while (cycles_clock() < limit && sum->migrations < WANT);
	return calls;
}

/* Huge pages that NUMA balancing migrated since the kernel started. */
static long numa_migrated(void)
{
	long nr = vm_event("numa_pages_migrated");

	return nr < 0 ? 0 : nr / (long)(pmd_size() / psize());
}

FIXTURE_SETUP(thp_numa_notifier)
{
	uint32_t nr = NR_PAGES;
	long long nr_free;
	const char *why;
	int i;

	self->device = -1;
	self->memory = -1;
	pthread_mutex_init(&self->lock, NULL);
	if (geteuid())
		SKIP(return, "needs root, for the settings of NUMA balancing");
	if (access(DEVICE, F_OK))
		SKIP(return, "needs lib/test_mmu_notifier.c in the kernel");
	if (numa_available() < 0 || !find_nodes(self))
		SKIP(return, "needs two NUMA nodes with memory and CPUs");
	for (i = 0; i < 2; i++) {
		numa_node_size64(self->nodes[i], &nr_free);
		nr_free /= pmd_size();
		if (nr_free < NR_PAGES + NR_PAGES / 2)
			SKIP(return, "%lld huge pages of memory free on node %d: needs %d",
			     nr_free, self->nodes[i], NR_PAGES + NR_PAGES / 2);
	}

	/* First, or the guardian would have the device open. */
	why = guard_lacks();
	if (why)
		SKIP(return, "%s", why);
	if (!thp_allow())
		SKIP(return, "needs CONFIG_TRANSPARENT_HUGEPAGE");
	if (!numa_balancing(variant->trigger == NUMA_BALANCING ? SCAN_MIB : 0))
		SKIP(return, "needs CONFIG_NUMA_BALANCING and, up to 6.14, CONFIG_SCHED_DEBUG");

	self->memory = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	ASSERT_GE(self->memory, 0);
	self->device = open(DEVICE, O_RDWR | O_CLOEXEC);
	ASSERT_GE(self->device, 0);

	/*
	 * Where they are first touched, and without a policy: memory that has
	 * one of its own is not balanced.
	 */
	pin_to_cpu(self->cpus[0][0]);
	why = area_lacks(&self->area, 1);
	if (why)
		SKIP(return, "%s", why);
	ASSERT_EQ(self->area, mmap(self->area, NR_PAGES * pmd_size(),
				   PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
				   -1, 0));
	ASSERT_EQ(0, madvise(self->area, NR_PAGES * pmd_size(),
			     MADV_HUGEPAGE));
	for (i = 0; i < NR_PAGES; i++) {
		struct page *page = &self->pages[i];

		page->addr = self->area + i * pmd_size();
		memset(page->addr, 0, TEST_MMU_NOTIFIER_BYTES);
	}
#ifndef IN_TREE
	drain();
#endif
	if (huge_anon_pages(self->area) != NR_PAGES)
		SKIP(return, "no %d transparent huge pages to be had",
		     NR_PAGES);

	ASSERT_EQ(0, ioctl(self->device, TEST_MMU_NOTIFIER_ATTACH, &nr));
	if (variant->slow_end_us) {
		struct test_mmu_notifier_slow_end slow = {
			.usecs = variant->slow_end_us,
			/* The end of a walk, and not that of a migration. */
			.bytes = 2 * pmd_size(),
		};

		ASSERT_EQ(0, ioctl(self->device, TEST_MMU_NOTIFIER_SLOW_END,
				   &slow));
	}
	for (i = 0; i < NR_PAGES; i++) {
		struct counts none = { };

		self->pages[i].node = page_node(0, self->pages[i].addr);
		self->pages[i].pfn = page_pfn(0, self->pages[i].addr);
		show(self, i, 0, &none);
		ASSERT_TRUE(self->pages[i].shown)
			TH_LOG("the device cannot have page %d", i);
	}
}

FIXTURE_TEARDOWN(thp_numa_notifier)
{
	__atomic_store_n(&self->stop, 1, __ATOMIC_RELEASE);
	while (self->nr_touchers)
		pthread_join(self->touchers[--self->nr_touchers].thread, NULL);
	if (self->device >= 0)
		close(self->device);
	if (self->memory >= 0)
		close(self->memory);
	if (self->area)
		munmap(self->area, pud_size());
	guard_stop();
}

TEST_F_TIMEOUT(thp_numa_notifier, lost_write, 120)
{
	long seconds = env_count("THP_NUMA_NOTIFIER_SECONDS", SECONDS);
	struct test_mmu_notifier_state state;
	struct counts sum = { };
	long calls, migrated = numa_migrated();
	uint64_t limit;
	bool huge;
	int i;

	cycles_start();
	self->began = cycles_clock();
	seconds = seconds < MAX_SECONDS ? seconds : MAX_SECONDS;
	limit = self->began + seconds * 1000000000ull;
	if (variant->trigger == NUMA_BALANCING)
		calls = balance(_metadata, self, limit, &sum);
	else
		calls = move(_metadata, self, limit, &sum);
	device_write(self, -1);
	for (i = 0; i < NR_PAGES; i++) {
		look_at(self, i, true, &sum);
		state.entry = i;
		if (!ioctl(self->device, TEST_MMU_NOTIFIER_READ, &state))
			sum.stale += state.stale;
	}
	huge = huge_anon_pages(self->area) == NR_PAGES;
	for (i = 0; i < self->nr_examples; i++) {
		const struct example *e = &self->examples[i];

		ksft_print_msg("lost: page %d offset 0x%zx wrote 0x%llx found 0x%llx",
			       e->page, e->word * sizeof(uint64_t),
			       (unsigned long long)e->wrote,
			       (unsigned long long)e->found);
		printf(" node %d->%d pfn 0x%llx->0x%llx %.1f ms after the call that touched it\n",
		       e->nodes[0], e->nodes[1], (unsigned long long)e->pfns[0],
		       (unsigned long long)e->pfns[1], e->ms);
	}

	ksft_print_msg("thp_numa_notifier: backing=thp trigger=%s sharers=1 control=%s",
		       trigger_name[variant->trigger],
		       variant->trigger == MOVE_PAGES ? "yes" : "no");
	printf(" slow_end_us=%d calls=%ld failed_calls=%ld moved=%ld",
	       variant->slow_end_us, calls, sum.failed_shows, sum.moved);
	printf(" migrations=%ld lost_migrations=%ld lost_writes=%ld stale=%ld",
	       sum.migrations, sum.lost_migrations, sum.lost_writes, sum.stale);
	printf(" shows=%ld device_writes=%llu numa_migrated=%ld split=%s",
	       sum.shows, (unsigned long long)sum.writes,
	       numa_migrated() - migrated, huge ? "no" : "yes");
	printf(" first_ms=%llu seconds=%.1f\n",
	       (unsigned long long)self->first_ms,
	       (cycles_clock() - self->began) / 1e9);

	EXPECT_EQ(0, sum.lost_migrations)
		TH_LOG("writes lost in %ld of %ld migrations",
		       sum.lost_migrations, sum.migrations);
	EXPECT_EQ(0, sum.stale)
		TH_LOG("%ld times the device could write to the page of another",
		       sum.stale);
	if (!sum.lost_migrations && !sum.stale &&
	    sum.migrations < MIN_MIGRATIONS)
		SKIP(return, "inconclusive: the device could write to %ld of %ld pages that moved",
		     sum.migrations, sum.moved);
}

TEST_HARNESS_MAIN
