// SPDX-License-Identifier: GPL-2.0
/*
 * Is a write to a huge page lost if somebody wants the memory that it lies in?
 *
 * A CMA area is memory that is lent to movable pages. Whoever wants it back
 * calls alloc_contig_range(), which migrates all that is in the way, huge pages
 * in use among them (since 5.13):
 *
 *	before	| page 0 | page 1 | page 2 | page 3 |    free    |	the area
 *	after	|       allocated: not for anybody else          |
 *		pages 0 to 3 are elsewhere, and are in use all the time
 *
 * So does a virtual machine that gives back memory which it got by virtio-mem.
 *
 * No process asks for that, and no other node is needed. If processes share the
 * PMD table that maps the pages, all of them have to be flushed before the pages
 * are copied (see hugetlb_pmd_migrate.c), or they go on writing to memory that
 * belongs to somebody else.
 *
 * Movable pages come from a CMA area if most of the free memory of a zone is in it,
 * and from a zone with an area after ZONE_MOVABLE. So the test has the pool of
 * huge pages grow until some lie in the area, has its file take these, and lets
 * the others go: they are where the pages can go. One round is
 *
 *	place	all pages of the file in the area; they keep what is in them
 *	write	writers map the file anew, and store to all pages all the time. One
 *		page fault each says that the table is shared
 *	take	all of the area: by its file in debugfs, or by QEMU, which is told that
 *		the machine is to have less
 *	stop	the writers, somewhat later
 *	compare	journals (see migrate_writers.h), through a view that no TLB has seen,
 *		with the number of the last write
 *	unmap	then give the area back
 *
 * A page has moved if it was in the area and is in another page frame. That the
 * area could be had is not asked for: kernels that have no
 * replace_free_hugepage_folios() leave the old pages in the pool, so that it
 * cannot. A call counts if pages moved, and if each writer wrote to all of them
 * meanwhile.
 *
 * Removal of memory by ACPI calls the same offline_pages() that the tests of
 * hugetlb_pmd_migrate which take blocks offline call. The way there was not tried.
 *
 * Environment:
 *	HUGETLB_PMD_CONTIG_CALLS=n	rounds a test
 *	HUGETLB_PMD_CONTIG_SEED=n	for the random delays
 *	VIRTIO_MEM_QMP, VIRTIO_MEM_ID	see migrate_virtio_mem.h
 */
#include "kselftest_harness.h"

#include <dirent.h>
#include <fcntl.h>
#include <numa.h>
#include <numaif.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_memory.h"
#include "migrate_page.h"
#include "migrate_util.h"
#include "migrate_virtio_mem.h"
#include "migrate_writers.h"
#include "vm_util.h"

#define CMA		"/sys/kernel/debug/cma"
#define NAME_BYTES	64	/* of an area, at most */
#define NR_PAGES	4	/* of the file */
#define SPARE		6	/* free huge pages, for them to go to */
#define GROW		32	/* huge pages, at a time */
#define MAX_GROW	2048	/* to lie in the area, with all that goes before */
#define CALLS		10
#define MIN_MOVES	3	/* fewer are no evidence */
#define TEST_MS		12000	/* no call begins later */
#define EXAMPLES	3
#define VIRTIO_CALLS	5	/* each takes longer */
#define VIRTIO_TEST_MS	60000
#define VIRTIO_BYTES	(256ul << 20)
#define PLUG_SECONDS	20
#define UNPLUG_SECONDS	5
#define AUTO_ONLINE	"/sys/devices/system/memory/auto_online_blocks"
#define IS_HUGE_HEAD	0x28000	/* in /proc/kpageflags */

enum owner { CMA_AREA, VIRTIO_MEM };

static const char * const owner_name[] = { "cma", "virtio_mem" };

struct area {
	enum owner owner;
	char alloc[112], free[112];	/* files of a CMA area */
	char all[24];		/* pages, as these are told */
	struct virtio_mem vm;
	uint64_t first, end;	/* page frames */
	int node;
};

struct state {
	struct memory memory;	/* first: see map_file() */
	struct writers writers;
	struct area area;
	bool shared;
	int fd;			/* of the file */
	int aside;		/* of one for pages that are not in the area */
	char *own;		/* the mapping of who places pages */
	char *kept;		/* what was in them */
	char pool[112];		/* nr_hugepages of the node */
	long pool_was;
	int flags;		/* /proc/kpageflags */
	unsigned int seed;
};

FIXTURE(hugetlb_pmd_contig)
{
	struct state state;
};

FIXTURE_VARIANT(hugetlb_pmd_contig)
{
	int sharers;		/* who places pages, and does not write, included */
	bool shared;
	enum owner owner;	/* of the area */
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_contig, shared_2) {
	.sharers = 2, .shared = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_contig, shared_4) {
	.sharers = 4, .shared = true };
/* No whole PUD in a mapping: this passes on every kernel. */
FIXTURE_VARIANT_ADD(hugetlb_pmd_contig, not_shared) { .sharers = 2 };
FIXTURE_VARIANT_ADD(hugetlb_pmd_contig, virtio_mem_shared_2) {
	.sharers = 2, .shared = true, .owner = VIRTIO_MEM };
FIXTURE_VARIANT_ADD(hugetlb_pmd_contig, virtio_mem_shared_4) {
	.sharers = 4, .shared = true, .owner = VIRTIO_MEM };
FIXTURE_VARIANT_ADD(hugetlb_pmd_contig, virtio_mem_not_shared) {
	.sharers = 2, .owner = VIRTIO_MEM };

/* The file. */

static int map_file(const struct memory *mem, char *addr)
{
	return map_pud(((const struct state *)mem)->fd, addr);
}

static void unmap_file(const struct memory *mem, char *addr)
{
	unmap_pud(addr);
}

static int punch(int fd, int page, int nr)
{
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			 page * pmd_size(), nr * pmd_size());
}

static int64_t pfn_of(const struct state *st, int page)
{
	char *addr = st->own + page * pmd_size();

	/* Migration may have taken the table away: fault it in again. */
	__atomic_load_n(addr, __ATOMIC_RELAXED);
	return page_pfn(0, addr);
}

static bool in_area(const struct state *st, int64_t pfn)
{
	return pfn > 0 && (uint64_t)pfn >= st->area.first &&
	       (uint64_t)pfn < st->area.end;
}

/* The area. */

static long area_number(const char *name, const char *file)
{
	char path[320];

	snprintf(path, sizeof(path), CMA "/%s/%s", name, file);
	return file_read_long(path);
}

/* -1 where that cannot be told. */
static int node_of(uint64_t pfn)
{
	long block = block_of_pfn(pfn);
	char path[96];
	int node;

	for (node = 0; block >= 0 && node <= numa_max_node(); node++) {
		snprintf(path, sizeof(path),
			 "/sys/devices/system/node/node%d/memory%ld", node,
			 block);
		if (!access(path, F_OK))
			return node;
	}
	return -1;
}

/*
 * The largest CMA area that nobody uses. Returns NULL, or a line that says what
 * lacks.
 */
static const char *cma_lacks(struct area *area)
{
	long base, count, best = NR_PAGES * (pmd_size() / psize()) - 1;
	struct dirent *entry;
	char part[320];
	const char *name;
	DIR *dir;

	dir = opendir(CMA);
	if (!dir)
		return "needs CONFIG_CMA_DEBUGFS, and debugfs";
	while ((entry = readdir(dir))) {
		name = entry->d_name;
		/* One that is in several pieces is of no use here. */
		snprintf(part, sizeof(part), CMA "/%s/ranges/1", name);
		base = area_number(name, "base_pfn");
		count = area_number(name, "count");
		if (strlen(name) > NAME_BYTES || base < 0 || count <= best ||
		    area_number(name, "used") || !access(part, F_OK))
			continue;
		best = count;
		area->first = base;
		area->end = base + count;
		snprintf(area->all, sizeof(area->all), "%ld", count);
		snprintf(area->alloc, sizeof(area->alloc), CMA "/%.*s/alloc",
			 NAME_BYTES, name);
		snprintf(area->free, sizeof(area->free), CMA "/%.*s/free",
			 NAME_BYTES, name);
	}
	closedir(dir);
	if (!area->end)
		return "needs a CMA area that nobody uses: boot with cma=128M";
	area->node = node_of(area->first);
	if (area->node < 0)
		return "needs memory blocks: CONFIG_MEMORY_HOTREMOVE";
	/* It does nothing if there is nothing to be given back. */
	return guard_undo(area->free, area->all) ?
	       "the name of the area is too long" : NULL;
}

/* The same of what the device has, which is to be for movable pages. */
static const char *virtio_mem_area_lacks(struct area *area)
{
	const char *why = virtio_mem_lacks(&area->vm);
	char old[32];

	if (why)
		return why;
	area->node = area->vm.node;
	area->first = area->vm.first_pfn;
	area->end = area->vm.last_pfn + 1;
	if (file_read(AUTO_ONLINE, old, sizeof(old)) ||
	    guard_undo(AUTO_ONLINE, old) ||
	    file_write(AUTO_ONLINE, "online_movable"))
		return "needs " AUTO_ONLINE;
	return virtio_mem_plug(&area->vm, VIRTIO_BYTES, PLUG_SECONDS) ?
	       NULL : "memory could not be plugged";
}

/* Take all of it, from whoever uses it. Returns 0, or -errno. */
static int area_take(const struct area *area)
{
	if (area->owner == CMA_AREA)
		return file_write(area->alloc, area->all);
	return virtio_mem_request(&area->vm, 0, UNPLUG_SECONDS) ? 0 : -EBUSY;
}

/* And give it back. What could be taken of a device's memory is gone. */
static bool area_give(const struct area *area, bool taken)
{
	if (area->owner == VIRTIO_MEM)
		return virtio_mem_plug(&area->vm, VIRTIO_BYTES, PLUG_SECONDS);
	return !taken || !file_write(area->free, area->all);
}

/* Huge pages in it, in use or not. */
static int area_pages(const struct state *st)
{
	uint64_t step = pmd_size() / psize(), flags;
	uint64_t pfn = (st->area.first + step - 1) / step * step;
	int nr = 0;

	for (; pfn + step <= st->area.end; pfn += step)
		nr += pread(st->flags, &flags, sizeof(flags),
			    pfn * sizeof(flags)) == sizeof(flags) &&
		      (flags & IS_HUGE_HEAD) == IS_HUGE_HEAD;
	return nr;
}

/* Pages in the area. */

/* Whether there are more huge pages now. */
static bool grow(const struct state *st)
{
	long nr_free = pool_fill(st->area.node, 0);

	if (file_read_long(st->pool) - st->pool_was >= MAX_GROW)
		return false;
	return pool_fill(st->area.node, nr_free + GROW) > nr_free;
}

/* Leave some free huge pages, and memory for those that others want. */
static void shrink(const struct state *st)
{
	long want = file_read_long(st->pool) - pool_fill(st->area.node, 0) +
		    SPARE;
	char value[24];

	snprintf(value, sizeof(value), "%ld",
		 want > st->pool_was ? want : st->pool_was);
	file_write(st->pool, value);
}

/*
 * Have @page of the file in the area. Of the free pages of a node the one that
 * became free last is the first to be taken: a page that is not in the area is
 * the first that the other file takes, and stays there.
 */
static bool place_page(const struct state *st, int page, int *aside)
{
	off_t at = page * pmd_size();

	for (;;) {
		if (fallocate(st->fd, 0, at, pmd_size())) {
			if (errno != ENOSPC || !grow(st))
				return false;
			continue;
		}
		if (in_area(st, pfn_of(st, page)))
			return true;
		if (punch(st->fd, page, 1) ||
		    *aside == (int)(pud_size() / pmd_size()) ||
		    fallocate(st->aside, 0, *aside * pmd_size(), pmd_size()))
			return false;
		(*aside)++;
	}
}

/* All of them, with what is in them. */
static bool place(const struct state *st)
{
	bool there[NR_PAGES], done = true;
	int i, aside = 0;

	for (i = 0; i < NR_PAGES; i++) {
		there[i] = in_area(st, pfn_of(st, i));
		memcpy(st->kept + i * pmd_size(), st->own + i * pmd_size(),
		       pmd_size());
		if (!there[i])
			punch(st->fd, i, 1);
	}
	while (area_pages(st) < NR_PAGES && grow(st))
		;
	for (i = 0; done && i < NR_PAGES; i++)
		done = place_page(st, i, &aside);
	punch(st->aside, 0, aside);
	shrink(st);
	for (i = 0; done && i < NR_PAGES; i++)
		if (!there[i])
			memcpy(st->own + i * pmd_size(),
			       st->kept + i * pmd_size(), pmd_size());
	return done;
}

/* The test. */

static void report_loss(const struct lost_write *lost, void *arg)
{
	int *examples = arg;

	if (!*examples)
		return;
	(*examples)--;
	ksft_print_msg("lost: writer %d page %d offset 0x%zx wrote 0x%llx found 0x%llx\n",
		       lost->writer + 1, lost->page, lost->offset % pmd_size(),
		       (unsigned long long)lost->wrote,
		       (unsigned long long)lost->found);
}

static long compare(const struct state *st, int *examples, long *lost_in)
{
	char *view = writers_view_addr(&st->writers);
	int error = map_file(&st->memory, view);
	long lost;

	if (error)
		return -error;
	lost = writers_check(&st->writers, view, -1, report_loss, examples,
			     lost_in);
	unmap_file(&st->memory, view);
	return lost;
}

/*
 * Whether the table is shared as it should be. Four pages are there already: one
 * fault if it is, and one for each of them if not.
 */
static bool sharing_is_right(const struct state *st)
{
	long faults;
	int i;

	for (i = 0; i < st->writers.nr; i++) {
		faults = st->writers.each[i].faults;
		if (st->shared ? faults != 1 : faults < NR_PAGES)
			return false;
	}
	return true;
}

FIXTURE_SETUP(hugetlb_pmd_contig)
{
	struct state *st = &self->state;
	int i, nr_cpus, cpus[CPU_SETSIZE], nodes[2];
	struct bitmask *mask;
	const char *why;

	st->fd = -1;
	st->aside = -1;
	st->flags = -1;
	st->shared = variant->shared;
	if (geteuid())
		SKIP(return, "needs root, for debugfs and page frame numbers");
	nr_cpus = cpu_list(cpus, ARRAY_SIZE(cpus));
	if (nr_cpus < 2)
		SKIP(return, "needs two CPUs");
	why = nodes_lack(nodes, 1, cpus[0]);
	if (why)
		SKIP(return, "%s", why);
	st->flags = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	if (st->flags < 0)
		SKIP(return, "needs CONFIG_PROC_PAGE_MONITOR");
	why = guard_lacks();
	if (why)
		SKIP(return, "%s", why);
	st->area.owner = variant->owner;
	why = variant->owner == VIRTIO_MEM ? virtio_mem_area_lacks(&st->area) :
					     cma_lacks(&st->area);
	if (why)
		SKIP(return, "%s", why);
	snprintf(st->pool, sizeof(st->pool),
		 "/sys/devices/system/node/node%d/hugepages/hugepages-%zukB/nr_hugepages",
		 st->area.node, pmd_size() >> 10);
	st->pool_was = file_read_long(st->pool);
	nodes[0] = st->area.node;
	why = pool_lacks(nodes, 1, NR_PAGES + SPARE);
	if (why)
		SKIP(return, "%s", why);
	st->seed = env_long("HUGETLB_PMD_CONTIG_SEED", time(NULL));
	srandom(st->seed);

	st->memory = (struct memory){
		.map = map_file, .unmap = unmap_file, .page = pmd_size(),
		.nr_pages = NR_PAGES, .shares_table = st->shared,
	};
	st->writers.mem = &st->memory;
	st->kept = malloc(NR_PAGES * pmd_size());
	if (!st->kept || !writers_reserve(&st->writers, variant->sharers - 1))
		SKIP(return, "needs more memory, or address space: PUDs of %zu MiB",
		     pud_size() >> 20);
	st->fd = hugetlbfs_open(pud_size());
	st->aside = hugetlbfs_open(pud_size());
	if (st->fd < 0 || st->aside < 0)
		SKIP(return, "no files: %s",
		     strerror(st->fd < 0 ? -st->fd : -st->aside));
	pin_to_cpu(cpus[0]);
	/* They are not to inherit the mapping. */
	ASSERT_EQ(0, writers_fork(&st->writers, cpus, nr_cpus));
	mask = numa_allocate_nodemask();
	numa_bitmask_setbit(mask, st->area.node);
	ASSERT_EQ(0, set_mempolicy(MPOL_BIND, mask->maskp, mask->size + 1));
	numa_free_nodemask(mask);
	why = populate_lacks(st->fd, NULL, NR_PAGES);
	if (why)
		SKIP(return, "%s", why);
	st->own = writers_own_addr(&st->writers) + (st->shared ? 0 : pmd_size());
	ASSERT_EQ(0, map_file(&st->memory, st->own));
	for (i = 0; i < NR_PAGES; i++)
		__atomic_store_n(st->own + i * pmd_size(), 0, __ATOMIC_RELAXED);
}

FIXTURE_TEARDOWN(hugetlb_pmd_contig)
{
	struct state *st = &self->state;

	writers_kill(&st->writers);
	/* Huge pages in use would stay in the pool. */
	if (st->fd >= 0)
		close(st->fd);
	if (st->aside >= 0)
		close(st->aside);
	if (st->flags >= 0)
		close(st->flags);
	free(st->kept);
	virtio_mem_close(&st->area.vm, UNPLUG_SECONDS);
	guard_stop();
}

TEST_F_TIMEOUT(hugetlb_pmd_contig, lost_write, 120)
{
	long want = env_count("HUGETLB_PMD_CONTIG_CALLS",
			      variant->owner == VIRTIO_MEM ? VIRTIO_CALLS :
							     CALLS), got;
	long calls = 0, failed = 0, moved_calls = 0, moves = 0, lost = 0;
	int i, nr, rests = 0, examples = EXAMPLES, error = 0, ret;
	int64_t from[NR_PAGES], to[NR_PAGES];
	long test_ms = variant->owner == VIRTIO_MEM ? VIRTIO_TEST_MS : TEST_MS;
	struct state *st = &self->state;
	uint64_t start = cycles_clock();
	uint64_t then[MAX_WRITERS];
	long lost_moves = 0, hot_calls = 0, hot_moved = 0;
	bool wrote;

	while (moved_calls < want && calls < 4 * want &&
	       ms_since(start) < test_ms) {
		long lost_in[MAX_PAGES] = {};

		calls++;
		if (!place(st)) {
			if (lost)
				break;
			SKIP(return, "no huge page lies in the %s area: %s",
			     owner_name[st->area.owner],
			     "is most of a zone's free memory in it?");
		}
		ASSERT_TRUE(writers_order(&st->writers, WRITE, rests));
		for (i = 0; i < st->writers.nr; i++)
			ASSERT_EQ(0, st->writers.each[i].error);
		if (!sharing_is_right(st) && !lost) {
			ASSERT_TRUE(st->shared)
				TH_LOG("table shared where it must not be");
			SKIP(return, "table not shared: needs %s",
			     "CONFIG_HUGETLB_PMD_PAGE_TABLE_SHARING");
		}
		for (i = 0; i < NR_PAGES; i++)
			from[i] = pfn_of(st, i);
		writers_note(&st->writers, then);
		ret = area_take(&st->area);
		wrote = writers_wrote(&st->writers, then) == st->writers.nr;
		if (ret) {
			failed++;
			error = -ret;
		}
		ASSERT_TRUE(writers_order(&st->writers, STOP, 0));
		for (i = 0; i < NR_PAGES; i++)
			to[i] = pfn_of(st, i);
		got = compare(st, &examples, lost_in);
		ASSERT_GE(got, 0)
			TH_LOG("cannot look at the pages: %s", strerror(-got));
		/* Nobody writes to the area any more through a stale entry. */
		ASSERT_TRUE(writers_order(&st->writers, UNMAP, 0));
		if (!area_give(&st->area, !ret) && !lost && !got)
			SKIP(return, "the area could not be given back");
		for (nr = 0, i = 0; i < NR_PAGES; i++) {
			if (!in_area(st, from[i]) || to[i] < 0 || from[i] == to[i])
				continue;
			nr++;
			lost_moves += lost_in[i] > 0;
		}
		lost += got;
		moves += nr;
		moved_calls += nr && wrote;
		hot_calls += !rests;
		hot_moved += !rests && nr;
		rests = nr ? 0 : rests < MAX_RESTS ? rests + 1 : MAX_RESTS;
	}

	ksft_print_msg("hugetlb_pmd_contig: backing=hugetlbfs trigger=%s sharers=%d control=%s",
		       owner_name[variant->owner], variant->sharers, st->shared ? "no" : "yes");
	printf(" calls=%ld failed_calls=%ld errno=%d moved_calls=%ld migrations=%ld",
	       calls, failed, error, moved_calls, moves);
	printf(" lost_migrations=%ld lost_writes=%ld hot_calls=%ld hot_moved=%ld",
	       lost_moves, lost, hot_calls, hot_moved);
	printf(" seed=%u\n", st->seed);

	EXPECT_EQ(0, lost)
		TH_LOG("%ld writes lost in %ld of %ld migrations", lost,
		       lost_moves, moves);
	if (lost)
		return;
	if (moves && !hot_moved)
		ksft_print_msg("pages moved only with writers that rest: %ld others stayed\n",
			       hot_calls);
	if (moved_calls < MIN_MOVES && moved_calls < want)
		SKIP(return, "inconclusive: only %ld of %ld calls moved pages, with all writing",
		     moved_calls, calls);
}

TEST_HARNESS_MAIN
