// SPDX-License-Identifier: GPL-2.0
/*
 * Is a page that NUMA balancing has taken the access to migrated with all that
 * is written to it, if several walks of NUMA balancing go on at a time?
 *
 * A walk takes the access away first, and flushes the TLBs at its end. In the
 * meantime threads go on writing through their TLBs. A migration of such a page
 * has to flush, and the mm tells it so. If the mm only says yes or no, the
 * first of two walks to end says no for both:
 *
 *	walk			another walk		migration
 *	a flush is pending
 *	page: no access
 *				a flush is pending
 *				nothing to do here
 *				no flush is pending
 *							does not flush
 *							copies the page
 *							maps the copy
 *	flushes
 *
 * What a thread wrote to the old page after it was copied is lost.
 *
 * Here one thread writes to a page. The kernel makes some other threads walk,
 * which do nothing else. They walk the VMA of the page only: all others have a
 * memory policy. move_pages(2) moves the page to and fro. From time to time the
 * thread that writes also looks for what it wrote. Nobody else may touch the
 * page, as that would give the access back to all.
 *
 * Variants: as it is, and with no walks.
 */
#include "kselftest_harness.h"

#include <numa.h>
#include <numaif.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "migrate_guard.h"
#include "migrate_journal.h"
#include "migrate_memory.h"
#include "migrate_page.h"
#include "migrate_util.h"
#include "vm_util.h"

#define MAX_CPUS	4
#define WALKERS		12	/* who has walked must work before the next time */
#define STACK_BYTES	(64 << 10)
#define SCAN_MIB	16
#define SECONDS		8
#define CONTROL_SECONDS	3	/* nothing can be lost there */
#define WANT		3	/* lost writes are enough */
#define MIN_MOVES	10	/* fewer are no evidence */
#define MIN_WALKS	5
#define MIN_LOOKS	10	/* that the writer has taken at what it wrote */
#define MOVE_EVERY_US	50000
#define CHECK_EVERY	8192	/* writes, a power of 2 */
#define NOTE_EVERY	16	/* writes, of which the test is told the number */
#define EXAMPLES	3
#define CATCH_PAGES	2	/* a call */
#define MAX_CATCH	(2 * CATCH_PAGES * SECONDS * 1000000 / MOVE_EVERY_US)

struct example {
	struct journal_loss loss;
	uint64_t last;
	size_t words;
};

FIXTURE(migrate_flush_pending)
{
	char *page;
	char *catch[2];			/* pages of each node */
	size_t caught[2];
	int nodes[2];
	int cpus[MAX_CPUS];
	int nr_cpus;
	bool stop;
	pthread_t threads[WALKERS + 1];	/* the first one writes */
	int nr_threads;
	uint64_t now;			/* number of a late write */
	uint64_t writes;
	long lost;			/* times that some were lost */
	uint64_t first_ms;
	uint64_t began;
	struct example examples[EXAMPLES];
};

FIXTURE_VARIANT(migrate_flush_pending)
{
	bool walks;
};

FIXTURE_VARIANT_ADD(migrate_flush_pending, walks) { .walks = true };
FIXTURE_VARIANT_ADD(migrate_flush_pending, no_walks) { .walks = false };

static bool stopped(FIXTURE_DATA(migrate_flush_pending) * self)
{
	return __atomic_load_n(&self->stop, __ATOMIC_ACQUIRE);
}

static void keep_loss(const struct journal_loss *loss, void *arg)
{
	struct example *example = arg;

	if (loss->write >= example->loss.write)
		example->loss = *loss;
}

/* Looks for write @n and those before. Returns whether all are there. */
static bool look(FIXTURE_DATA(migrate_flush_pending) * self, uint64_t n)
{
	struct example example = { .last = n };

	example.words = journal_check((uint64_t *)self->page, 0, n, keep_loss,
				      &example);
	if (!example.words)
		return true;
	if (!self->lost)
		self->first_ms = ms_since(self->began);
	if (self->lost < EXAMPLES)
		self->examples[self->lost] = example;
	__atomic_store_n(&self->lost, self->lost + 1, __ATOMIC_RELEASE);
	return false;
}

static void *writer_main(void *arg)
{
	FIXTURE_DATA(migrate_flush_pending) * self = arg;
	uint64_t n = 0;

	pin_to_cpu(self->cpus[0]);
	/* A walk of this thread finds nothing without a policy. */
	numa_set_preferred(self->nodes[0]);
	while (!stopped(self)) {
		do {
			journal_write((uint64_t *)self->page, 0, ++n);
			if (!(n % NOTE_EVERY))
				__atomic_store_n(&self->now, n, __ATOMIC_RELEASE);
		} while (n & (CHECK_EVERY - 1));
		self->writes += CHECK_EVERY;
		if (look(self, n))
			continue;
		/* A new journal, or it would be seen again the next time. */
		memset(self->page, 0, JOURNAL_BYTES);
		n = 0;
	}
	/* Until the end, or a page that has just been moved is not looked at. */
	look(self, n);
	return NULL;
}

/* To be interrupted by the clock, and made to walk. */
static void *walker_main(void *arg)
{
	FIXTURE_DATA(migrate_flush_pending) * self = arg;

	while (!stopped(self))
		;
	return NULL;
}

static int start_thread(FIXTURE_DATA(migrate_flush_pending) * self,
			void *(*thread_main)(void *arg))
{
	pthread_attr_t attr;
	int ret;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	ret = pthread_create(&self->threads[self->nr_threads], &attr,
			     thread_main, self);
	pthread_attr_destroy(&attr);
	self->nr_threads += !ret;
	return ret;
}

/*
 * NUMA balancing leaves alone what has a policy. Memory of the file that this
 * is run from is left alone as long as it cannot be written to.
 */
static int exclude_others(FIXTURE_DATA(migrate_flush_pending) * self)
{
	unsigned long start, end;
	char line[512], writable;
	struct bitmask *mask;
	FILE *maps;

	maps = fopen("/proc/self/maps", "re");
	if (!maps)
		return -errno;
	mask = numa_allocate_nodemask();
	numa_bitmask_setbit(mask, self->nodes[0]);
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx %*c%c", &start, &end, &writable) != 3)
			continue;
		if (start != (unsigned long)self->page)
			mbind((void *)start, end - start, MPOL_PREFERRED,
			      mask->maskp, mask->size + 1, 0);
	}
	numa_free_nodemask(mask);
	fclose(maps);
	return 0;
}

/* Entries that walks have taken the access to since the kernel started. */
static long taken_away(void)
{
	long nr = vm_event("numa_pte_updates");

	return nr < 0 ? 0 : nr;
}

/*
 * Where writes are lost they go to memory that has been given back. The next
 * page that is wanted here is that page: have it, and keep it.
 */
static int prepare_catch(FIXTURE_DATA(migrate_flush_pending) * self, int i)
{
	size_t offset, size = MAX_CATCH * psize();

	self->catch[i] = mmap(NULL, size, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (self->catch[i] == MAP_FAILED ||
	    bind_range(self->catch[i], size, self->nodes[i], 0))
		return -errno;
	madvise(self->catch[i], size, MADV_NOHUGEPAGE);
	/* The page tables are to be there. */
	for (offset = 0; offset < size; offset += 16 * psize())
		self->catch[i][offset] = 1;
	return 0;
}

static void catch_page(FIXTURE_DATA(migrate_flush_pending) * self, int node)
{
	int i = node == self->nodes[1], pages = CATCH_PAGES;

	while (pages && self->caught[i] < MAX_CATCH) {
		/* Every 16th is there. */
		pages -= self->caught[i] % 16 != 0;
		self->catch[i][self->caught[i]++ * psize()] = 1;
	}
}

FIXTURE_SETUP(migrate_flush_pending)
{
	const char *why;
	char *area;
	int i;

	if (geteuid())
		SKIP(return, "needs root, for the settings of NUMA balancing");
	self->nr_cpus = cpu_list(self->cpus, MAX_CPUS);
	if (self->nr_cpus < 3)
		SKIP(return, "needs three CPUs");
	why = nodes_lack(self->nodes, 2, self->cpus[0]) ?:
	      guard_lacks();
	if (why)
		SKIP(return, "%s", why);
	if (!numa_balancing(variant->walks ? SCAN_MIB : 0))
		SKIP(return, "needs CONFIG_NUMA_BALANCING and, up to 6.14, CONFIG_SCHED_DEBUG");

	/* A VMA of its own, and no huge page. */
	area = mmap(NULL, 3 * psize(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
		    -1, 0);
	ASSERT_NE(MAP_FAILED, area);
	self->page = area + psize();
	ASSERT_EQ(0, mprotect(self->page, psize(), PROT_READ | PROT_WRITE));
	memset(self->page, 0, psize());

	pin_to_cpu(self->cpus[self->nr_cpus - 1]);
	self->began = cycles_clock();
	ASSERT_EQ(0, start_thread(self, writer_main));
	for (i = 1; i <= WALKERS; i++)
		ASSERT_EQ(0, start_thread(self, walker_main));
	for (i = 1; i <= WALKERS; i++) {
		cpu_set_t one;

		CPU_ZERO(&one);
		CPU_SET(self->cpus[1 + i % (self->nr_cpus - 1)], &one);
		pthread_setaffinity_np(self->threads[i], sizeof(one), &one);
	}
	ASSERT_EQ(0, exclude_others(self));
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, prepare_catch(self, i));
}

FIXTURE_TEARDOWN(migrate_flush_pending)
{
	__atomic_store_n(&self->stop, true, __ATOMIC_RELEASE);
	while (self->nr_threads)
		pthread_join(self->threads[--self->nr_threads], NULL);
	guard_stop();
}

TEST_F_TIMEOUT(migrate_flush_pending, lost_write, 120)
{
	long calls = 0, failed_calls = 0, moves = 0, walks = taken_away();
	long written = 0;	/* moves with writes meanwhile */
	int seconds = variant->walks ? SECONDS : CONTROL_SECONDS;
	uint64_t start = cycles_clock();
	long i;

	while (__atomic_load_n(&self->lost, __ATOMIC_ACQUIRE) < WANT &&
	       ms_since(start) < seconds * 1000) {
		void *page = self->page;
		int from, to, status = -ENOENT;
		uint64_t then;

		usleep(MOVE_EVERY_US);
		from = page_node(0, page);
		to = self->nodes[from == self->nodes[0]];
		calls++;
		then = __atomic_load_n(&self->now, __ATOMIC_ACQUIRE);
		if (move_pages(0, 1, &page, &to, &status, MPOL_MF_MOVE) < 0)
			failed_calls++;
		/* The first of them may have been made before. */
		written += status == to &&
			   __atomic_load_n(&self->now, __ATOMIC_ACQUIRE) >=
			   then + 2 * NOTE_EVERY;
		catch_page(self, from);
		moves += status == to;
	}
	walks = taken_away() - walks;
	__atomic_store_n(&self->stop, true, __ATOMIC_RELEASE);
	while (self->nr_threads)
		pthread_join(self->threads[--self->nr_threads], NULL);

	for (i = 0; i < self->lost && i < EXAMPLES; i++) {
		const struct example *e = &self->examples[i];

		ksft_print_msg("lost: %zu words of the journal, the last write %llu",
			       e->words, (unsigned long long)e->loss.write);
		printf(" of %llu: offset 0x%zx wrote 0x%llx found 0x%llx\n",
		       (unsigned long long)e->last,
		       e->loss.word * sizeof(uint64_t),
		       (unsigned long long)e->loss.wrote,
		       (unsigned long long)e->loss.found);
	}
	ksft_print_msg("migrate_flush_pending: trigger=move_pages sharers=1 control=%s",
		       variant->walks ? "no" : "yes");
	printf(" calls=%ld failed_calls=%ld migrations=%ld lost_migrations=%ld",
	       calls, failed_calls, moves, self->lost);
	printf(" walks=%ld writes=%llu first_ms=%llu\n", walks,
	       (unsigned long long)self->writes,
	       (unsigned long long)self->first_ms);
	EXPECT_EQ(0, self->lost)
		TH_LOG("writes lost in %ld of %ld migrations, the first after %llu ms",
		       self->lost, moves, (unsigned long long)self->first_ms);
	if (self->lost)
		return;
	if (self->writes < MIN_LOOKS * CHECK_EVERY)
		SKIP(return, "inconclusive: only %llu writes",
		     (unsigned long long)self->writes);
	if (written < MIN_MOVES || (variant->walks && walks < MIN_WALKS))
		SKIP(return,
		     "inconclusive: %ld of %ld calls moved the page while it was written to, and the access to it was taken away %ld times",
		     written, calls, walks);
}

TEST_HARNESS_MAIN
