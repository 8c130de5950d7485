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

#include <numaif.h>
#include <sched.h>
#include <strings.h>
#include <sys/ipc.h>
#include <sys/shm.h>

#include "lapi/memfd.h"
#include "lapi/syscalls.h"
#include "migrate_util.h"
#include "migrate_writers.h"
#include "vm_util.h"

#define MNTPOINT	"hugetlbfs"
#define HUGE_SHIFT	26	/* of MFD_HUGETLB and SHM_HUGETLB */
#define NR_PAGES	4	/* of the file that are populated */
#define CALLS		10
#define MIN_MOVES	3	/* fewer are no evidence */
/* Free huge pages, a node. */
#define SPARE		(2 * NR_PAGES + 2)

enum backing { HUGETLBFS, MEMFD, SYSV };
enum trigger { MIGRATE_PAGES, MOVE_PAGES, MBIND };

static const struct tcase {
	const char *name;
	enum backing backing;
	enum trigger trigger;
	int sharers;	/* the test itself is one of them, and does not write */
	bool unaligned;	/* no whole table in the mapping: not shared */
} tcases[] = {
	{"hugetlbfs.migrate_pages", HUGETLBFS, MIGRATE_PAGES, 2, false},
	{"hugetlbfs.move_pages", HUGETLBFS, MOVE_PAGES, 4, false},
	{"hugetlbfs.mbind", HUGETLBFS, MBIND, 2, false},
	{"memfd.migrate_pages", MEMFD, MIGRATE_PAGES, 4, false},
	{"memfd.move_pages", MEMFD, MOVE_PAGES, 2, false},
	{"sysv.migrate_pages", SYSV, MIGRATE_PAGES, 2, false},
	{"sysv.mbind", SYSV, MBIND, 4, false},
	{"not_shared.migrate_pages", HUGETLBFS, MIGRATE_PAGES, 2, true},
};

struct place {
	int node;
	int64_t pfn;
};

struct result {
	long calls, failed_calls, moved_calls, moves, lost_moves, lost;
	int error, rests;
	bool told;
	/* Of the call under way. */
	struct place from[NR_PAGES], to[NR_PAGES];
	uint64_t began;
};

static char *str_calls, *str_seed;
static int calls_wanted = CALLS, seed;
static int cpus[CPU_SETSIZE], nr_cpus, nodes[2];

static const struct tcase *tc;
static struct memory memory;
static struct writers writers;
static int fd = -1, shmid = -1;

static int map_file(const struct memory *mem, char *addr)
{
	if (tc->backing == SYSV)
		return shmat(shmid, addr, SHM_REMAP) == (void *)-1 ? errno : 0;
	return map_pud(fd, addr);
}

static void unmap_file(const struct memory *mem, char *addr)
{
	if (tc->backing == SYSV)
		shmdt(addr);
	unmap_pud(addr);
}

static char *own_addr(void)
{
	return writers_own_addr(&writers) + (tc->unaligned ? pmd_size() : 0);
}

/*
 * The segment goes with its last user. It is attached to the view, where no
 * child gets it, until the test has mapped it where it is to be.
 */
static int attach_segment(void)
{
	unsigned int flags = SHM_HUGETLB | SHM_NORESERVE | IPC_CREAT | 0600;
	char *view = writers_view_addr(&writers);
	int error;

	shmid = shmget(IPC_PRIVATE, pud_size(),
		       flags | (ffsl(pmd_size()) - 1) << HUGE_SHIFT);
	if (shmid < 0)
		return errno;
	error = map_file(&memory, view);
	shmctl(shmid, IPC_RMID, NULL);
	if (!error && madvise(view, pud_size(), MADV_DONTFORK))
		error = errno;
	return error;
}

/* Up to 5.17, shmat() reserves huge pages for all of a segment. */
static int open_segment(void)
{
	int i, error = attach_segment();

	if (error != ENOMEM)
		return error;
	for (i = 0; i < 2; i++)
		pool_fill(nodes[i], SPARE + pud_size() / pmd_size() / 2);
	return attach_segment();
}

/* Returns 0 or an error number. */
static int open_backing(void)
{
	switch (tc->backing) {
	case HUGETLBFS:
		fd = SAFE_OPEN(MNTPOINT "/file", O_RDWR | O_CREAT, 0600);
		SAFE_UNLINK(MNTPOINT "/file");
		break;
	case MEMFD:
		fd = syscall(__NR_memfd_create, "hugemigrate01", MFD_HUGETLB |
			     (ffsl(pmd_size()) - 1) << HUGE_SHIFT);
		if (fd < 0)
			return errno;
		break;
	case SYSV:
		return open_segment();
	}
	SAFE_FTRUNCATE(fd, pud_size());
	return 0;
}

/*
 * Before the writers map the file: @page on the first node, which it is to
 * leave, and all others on the second, where they stay.
 */
static void place_pages(int page)
{
	char *view = writers_view_addr(&writers);
	int to[NR_PAGES], status[NR_PAGES], i;
	void *pages[NR_PAGES];

	if (map_file(&memory, view))
		tst_brk(TBROK | TERRNO, "cannot map the file");
	touch_pages(view, NR_PAGES);
	for (i = 0; i < NR_PAGES; i++) {
		pages[i] = view + i * pmd_size();
		to[i] = nodes[i != page];
	}
	/* What did not go there is seen by locate(). */
	move_pages(0, NR_PAGES, pages, to, status, MPOL_MF_MOVE_ALL);
	unmap_file(&memory, view);
}

static void locate(struct place *places)
{
	int i;

	/* Migration may have taken the table away: fault it in again. */
	touch_pages(own_addr(), NR_PAGES);
	for (i = 0; i < NR_PAGES; i++) {
		places[i].node = page_node(0, own_addr() + i * pmd_size());
		places[i].pfn = page_pfn(0, own_addr() + i * pmd_size());
	}
}

static bool page_moved(const struct place *from, const struct place *to)
{
	return from->node >= 0 && to->node >= 0 && from->node != to->node &&
	       from->pfn > 0 && to->pfn > 0 && from->pfn != to->pfn;
}

/* Returns 0 or an error number. */
static int migrate(int from, int target)
{
	int to[NR_PAGES], status[NR_PAGES], i;
	void *pages[NR_PAGES];
	long ret = 0;

	switch (tc->trigger) {
	case MIGRATE_PAGES:
		ret = migrate_node(0, from, target);
		break;
	case MOVE_PAGES:
		for (i = 0; i < NR_PAGES; i++) {
			pages[i] = own_addr() + i * pmd_size();
			to[i] = target;
		}
		ret = move_pages(0, NR_PAGES, pages, to, status,
				 MPOL_MF_MOVE_ALL);
		break;
	case MBIND:
		/* All of the mapping, as a part would be split off. */
		ret = bind_range(own_addr(), pud_size(), target,
				 MPOL_MF_MOVE_ALL);
		break;
	}
	/* What is above 0 is the number of pages that stayed. */
	return ret < 0 ? errno : 0;
}

static void tell_loss(const struct lost_write *lost, void *arg)
{
	struct result *r = arg;
	const struct place *from = &r->from[lost->page], *to = &r->to[lost->page];

	if (r->told)
		return;
	r->told = true;
	tst_res(TINFO, "lost: page %d offset 0x%zx wrote 0x%llx found 0x%llx node %d->%d pfn 0x%llx->0x%llx %.1f ms after the call began",
		lost->page, lost->offset % pmd_size(),
		(unsigned long long)lost->wrote,
		(unsigned long long)lost->found, from->node, to->node,
		(unsigned long long)from->pfn, (unsigned long long)to->pfn,
		cycles_to_us(lost->stamp > r->began ? lost->stamp - r->began :
			     0) / 1000);
}

/* Through a mapping that no TLB has seen. Returns how many writes are lost. */
static long compare(struct result *r, long *lost_in)
{
	char *view = writers_view_addr(&writers);
	long lost;

	memset(lost_in, 0, NR_PAGES * sizeof(*lost_in));
	if (map_file(&memory, view))
		tst_brk(TBROK | TERRNO, "cannot map the file");
	lost = writers_check(&writers, view, -1, tell_loss, r, lost_in);
	unmap_file(&memory, view);
	return lost;
}

static void order(enum order what, int rests)
{
	if (!writers_order(&writers, what, rests))
		tst_brk(TBROK, "a writer is gone, or does not answer");
}

/* Returns whether it is as the case wants it; it has reported, if not. */
static bool prove_sharing(const struct result *r)
{
	const struct writer *one;
	int i;

	for (i = 0; i < writers.nr; i++) {
		one = &writers.each[i];
		if (one->error) {
			errno = one->error;
			tst_brk(TBROK | TERRNO, "writer %d cannot map the file",
				i + 1);
		}
		if (tc->unaligned && one->faults < NR_PAGES) {
			tst_res(TFAIL, "%s: a table is shared that must not be",
				tc->name);
			return false;
		}
		/* Not after a loss, which counts for more. */
		if (!tc->unaligned && one->faults != 1 && !r->lost) {
			tst_res(TCONF, "%s: table not shared (%ld faults for %d pages)",
				tc->name, one->faults, NR_PAGES);
			return false;
		}
	}
	return true;
}

/* Returns false where there is no use in going on, which was reported. */
static bool run_round(struct result *r)
{
	int page = r->calls++ % NR_PAGES, target, error, i;
	struct place *from = r->from, *to = r->to;
	uint64_t then[MAX_WRITERS];
	long lost_in[NR_PAGES];
	bool moved = false, wrote;

	place_pages(page);
	touch_pages(own_addr(), NR_PAGES);
	order(WRITE, r->rests);
	if (!prove_sharing(r))
		return false;
	locate(from);
	if (from[page].node < 0)
		tst_brk(TBROK, "page %d is on no node", page);
	target = nodes[from[page].node == nodes[0]];

	r->began = cycles();
	writers_note(&writers, then);
	error = migrate(from[page].node, target);
	wrote = writers_wrote(&writers, then) == writers.nr;
	if (error) {
		r->failed_calls++;
		r->error = error;
	}

	order(STOP, 0);
	locate(to);
	r->lost += compare(r, lost_in);
	for (i = 0; i < NR_PAGES; i++) {
		if (!page_moved(&from[i], &to[i]))
			continue;
		moved = true;
		r->moves++;
		r->lost_moves += lost_in[i] > 0;
	}
	r->moved_calls += moved && wrote;
	/*
	 * A process that faults on the page holds a reference to it, so a kernel
	 * that unmaps it everywhere may not get it moved: let them rest then.
	 */
	r->rests = moved ? 0 : r->rests < MAX_RESTS ? r->rests + 1 : MAX_RESTS;
	/* No stale TLB entry reaches the next round. */
	order(UNMAP, 0);
	return true;
}

static void report(const struct result *r)
{
	tst_res(TINFO, "%s: control=%s calls=%ld failed_calls=%ld moved_calls=%ld migrations=%ld lost_migrations=%ld lost_writes=%ld",
		tc->name, tc->unaligned ? "yes" : "no", r->calls,
		r->failed_calls, r->moved_calls, r->moves, r->lost_moves,
		r->lost);
	if (r->lost) {
		tst_res(TFAIL, "%s: %ld writes lost in %ld of %ld migrations",
			tc->name, r->lost, r->lost_moves, r->moves);
	} else if (!r->moves && r->error) {
		tst_res(TCONF, "%s: does not work here: %s", tc->name,
			tst_strerrno(r->error));
	} else if (r->moved_calls < MIN_MOVES &&
		   r->moved_calls < calls_wanted) {
		tst_res(TCONF, "%s: inconclusive: only %ld of %ld calls moved a page, with all writing",
			tc->name, r->moved_calls, r->calls);
	} else {
		tst_res(TPASS, "%s: no write lost in %ld migrations", tc->name,
			r->moves);
	}
}

/* Returns whether the case can run; it has reported, if not. */
static bool begin(void)
{
	const char *why;
	int i, error;

	/* It restores the pool of each node, also if this process is killed. */
	why = guard_lacks();
	if (!why)
		why = pool_lacks(nodes, 2, SPARE);
	if (why)
		tst_brk(TCONF, "%s", why);

	memory = (struct memory){
		.map = map_file,
		.unmap = unmap_file,
		.page = pmd_size(),
		.nr_pages = NR_PAGES,
		.shares_table = !tc->unaligned,
	};
	writers.mem = &memory;
	if (!writers_reserve(&writers, tc->sharers - 1))
		tst_brk(TCONF, "needs more address space");
	error = open_backing();
	if (error) {
		tst_res(TCONF, "%s: no such memory of %zu MiB: %s", tc->name,
			pud_size() >> 20, tst_strerrno(error));
		return false;
	}

	pin_to_cpu(cpus[0]);
	/*
	 * Before this process maps the file: they must not inherit it, and the
	 * first mapping that is found has to be that of a process that does not
	 * write.
	 */
	error = writers_fork(&writers, cpus, nr_cpus);
	if (!error)
		error = map_file(&memory, own_addr());
	if (error) {
		errno = error;
		tst_brk(TBROK | TERRNO, "the test itself cannot map the file");
	}
	if (tc->backing == SYSV)
		unmap_file(&memory, writers_view_addr(&writers));
	for (i = 0; i < NR_PAGES; i++)
		__atomic_store_n(own_addr() + i * pmd_size(), 0,
				 __ATOMIC_RELAXED);
	/*
	 * migrate_pages() moves what is shared with a writer, too, and flushes
	 * its TLB then. Move that now, and always in the same direction.
	 */
	migrate_node(0, nodes[0], nodes[1]);
	cycles_start();
	return true;
}

static void end(void)
{
	writers_kill(&writers);
	memset(&writers, 0, sizeof(writers));
	if (fd >= 0)
		SAFE_CLOSE(fd);
	fd = -1;
	guard_stop();
}

static void run(unsigned int n)
{
	struct result r = {};

	tc = &tcases[n];
	srandom(seed);
	if (begin()) {
		while (r.moved_calls < calls_wanted &&
		       r.calls < 4 * calls_wanted && tst_remaining_runtime())
			if (!run_round(&r))
				goto out;
		report(&r);
	}
out:
	end();
}

static void setup(void)
{
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
	nr_cpus = cpu_list(cpus, ARRAY_SIZE(cpus));
	if (nr_cpus < 2)
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
	.hugepages = {2 * SPARE, TST_NEEDS},
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
