// SPDX-License-Identifier: GPL-2.0
/*
 * Is a write lost, or does anybody wait for ever, if a PMD page table of hugetlb
 * is unshared while its pages are migrated?
 *
 * Processes that map the same PUD of a hugetlb file share a page table (see
 * hugetlb_pmd_migrate.c). Many calls take it away from one of them, or from
 * all: a part of its mapping is unmapped, protected, moved, or registered with
 * userfaultfd; a hole is punched into the file, or the file is truncated. The
 * process keeps what its TLB has of the table until it is flushed. After that
 * it has a table of its own, or shares one again:
 *
 *	process A, in madvise()			process B, in move_pages()
 *	clears its PUD entry: the table
 *	is no longer A's
 *						clears the entry of page 0 in the
 *						table, flushes who has that: not A
 *						copies page 0
 *	writes to the old page 0: lost
 *	(flushes its TLB: too late)
 *
 * Both take locks of the file and of the page, and have to do so in the same
 * order.
 *
 * Here one process migrates pages to and fro all the time, and two unshare the
 * table in the way that is tested, again and again. In between they write to the
 * pages, and so do others all the time. All of them keep journals in each page
 * (see migrate_writers.h). One round is
 *
 *	write	until all writers are at it
 *	go	until pages were migrated some times, and unshared as often
 *	stop	all of them
 *	compare	journals in a new mapping with the numbers of the last writes
 *	unmap	so that the next round begins with a table that all share
 *
 * A round counts if the table was shared when it began, if it moved pages, and if
 * all writers wrote to all of them meanwhile. If one of them does not stop, it is
 * stuck: the test fails, and says where that one waits. After some time no round
 * begins any more.
 *
 * Environment:
 *	HUGETLB_PMD_CHURN=1		run it at all: a kernel that has the
 *					defect may crash or hang; not for machines
 *					that do work
 *	HUGETLB_PMD_UNSHARE_ROUNDS=n	rounds a test
 *	HUGETLB_PMD_UNSHARE_SEED=n	for the random delays
 */
#include "kselftest_harness.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <numaif.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_journal.h"
#include "migrate_page.h"
#include "migrate_util.h"
#include "migrate_writers.h"
#include "vm_util.h"

#define NR_PAGES	4	/* populated pages of the file */
#define SPARE		6	/* free pages beside those, on each node */
#define NR_BUSY		3	/* who migrates, and two who unshare */
#define MAX_CPU_WRITERS	(MAX_WRITERS - NR_BUSY)
#define PUDS_EACH	3	/* of address space, for each of them */
#define ROUNDS		10
#define MIN_MOVES	3	/* fewer are no evidence */
#define EACH		3	/* calls and operations in a round, at least */
#define BURST_SHIFT	13	/* between two operations: less than 2 to the power of it */
#define WROTE_MS	2000	/* for the writers to have written, in a round */
#define TEST_MS		30000	/* no round begins later */
#define SHARE_TRIES	3	/* a fault may be of something else */
#define STUCK_MS	20000
#define EXAMPLES	3
#define HUGE_SHIFT	26	/* SHM_HUGE_SHIFT */
#define NO_EXEC		127	/* exit status of a child that could not exec */
#define NO_MEMORY	126	/* and of one that had not the memory for it */

struct state;
struct busy;

FIXTURE(hugetlb_pmd_unshare)
{
	struct state *st;
};

/* A way to unshare. Its functions return 0 or an error number. */
FIXTURE_VARIANT(hugetlb_pmd_unshare)
{
	const char *name;
	int (*unshare)(struct state *st, struct busy *me);
	int (*try)(struct state *st);	/* the same, once, by the test */
	const char *needs;
	bool segment;		/* of System V, not a file on hugetlbfs */
};

/* Who migrates, the first of them, and those who unshare; in shared memory. */
struct busy {
	int nr;
	int cpu;
	pid_t pid;
	uint32_t ack;		/* the last phase that it came to */
	char *room;		/* PUDS_EACH of address space */
	char *addr;		/* of the mapping */
	uint64_t last;		/* number of the last write to each page */
	unsigned long done;	/* calls or operations */
	unsigned long failed;	/* calls */
	unsigned long no_child;	/* operations, for want of memory */
	unsigned long moves;
	int error;
	const char *doing;
};

struct control {
	uint32_t phase;		/* odd: go */
	struct busy busy[NR_BUSY];
};

struct state {
	struct memory memory;	/* first: see state_of() */

	const FIXTURE_VARIANT(hugetlb_pmd_unshare) * way;
	struct writers writers;
	struct control *control;
	struct crew crew;
	int fd;
	int shmid;
	char *rooms;
	int nodes[2];
	int cpus[CPU_SETSIZE];
	int nr_cpus;
	unsigned int seed;
	long oom_kills;		/* of the kernel, before they began */
	unsigned long shared;	/* rounds that began with a shared table */
	unsigned long wrote;	/* in which all writers wrote */
	unsigned long counting;	/* and pages moved: all that counts */
	unsigned long hot, hot_moved;	/* rounds with writers that did not rest */
	bool disobeyed;		/* by a writer */
	bool stuck;
};

/* The file. */

static struct state *state_of(const struct memory *mem)
{
	return (struct state *)mem;
}

static int map_file(const struct memory *mem, char *addr)
{
	struct state *st = state_of(mem);

	if (st->shmid < 0)
		return map_pud(st->fd, addr);
	return shmat(st->shmid, addr, SHM_REMAP) == (void *)-1 ? errno : 0;
}

static void unmap_file(const struct memory *mem, char *addr)
{
	if (state_of(mem)->shmid >= 0)
		shmdt(addr);
	unmap_pud(addr);
}

/* Where the journal of one who unshares is: behind those of the writers. */
static uint64_t *journal_of(const struct state *st, char *addr, int page,
			    const struct busy *one)
{
	int nr = st->writers.nr + one->nr;

	return (uint64_t *)(addr + writers_offset(&st->writers, page, nr));
}

static void write_some(const struct state *st, struct busy *me, char *addr)
{
	int page, i;

	for (i = 1 << random() % BURST_SHIFT; i; i--) {
		me->last++;
		for (page = 0; page < NR_PAGES; page++)
			journal_write(journal_of(st, addr, page, me),
				      st->writers.nr + me->nr, me->last);
	}
}

/* The ways to unshare. */

static int any_page(void)
{
	return random() % NR_PAGES;
}

static int unmap_all(struct state *st, struct busy *me)
{
	unmap_file(&st->memory, me->addr);
	return map_file(&st->memory, me->addr);
}

static int unmap_part(struct state *st, struct busy *me)
{
	if (munmap(me->addr + any_page() * pmd_size(), pmd_size()))
		return errno;
	return map_file(&st->memory, me->addr);
}

static int forget(struct state *st, struct busy *me)
{
	bool part = random() % 2;

	return madvise(me->addr + (part ? any_page() * pmd_size() : 0),
		       part ? pmd_size() : pud_size(), MADV_DONTNEED) ? errno :
									0;
}

static int protect(struct state *st, struct busy *me)
{
	return mprotect(me->addr, pud_size(), PROT_READ) ||
	       mprotect(me->addr, pud_size(), PROT_READ | PROT_WRITE) ? errno : 0;
}

/*
 * To where it covers no whole PUD, and back by a new mapping: there are kernels
 * that hang where mremap() comes to a PUD that can be shared. See
 * hugetlb_pmd_mremap.c.
 */
static int move_mapping(struct state *st, struct busy *me)
{
	char *to = me->room + pud_size() + pmd_size();

	if (mremap(me->addr, pud_size(), pud_size(),
		   MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED)
		return errno;
	/* What it moved is its own. */
	write_some(st, me, to);
	unmap_pud(to);
	return map_file(&st->memory, me->addr);
}

/* Does the kernel have it, where no table is shared yet? */
static int try_once(struct state *st)
{
	struct busy *one = &st->control->busy[1];
	int error;

	one->addr = one->room;
	error = map_file(&st->memory, one->addr);
	if (!error)
		error = st->way->unshare(st, one);
	/* What it wrote was not in its own journal. */
	one->last = 0;
	unmap_file(&st->memory, one->addr);
	return error;
}

/* Nothing that anybody writes to is cut off. */
static int truncate_file(struct state *st, struct busy *me)
{
	return ftruncate(st->fd, NR_PAGES * pmd_size()) ||
	       ftruncate(st->fd, pud_size()) ? errno : 0;
}

static int punch(struct state *st, off_t start, off_t len)
{
	return fallocate(st->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			 start, len) ? errno : 0;
}

/* There was no memory for it: as if this had not been asked for. */
static int no_child(struct busy *me)
{
	count_up(&me->no_child, 1);
	usleep(1000);
	return 0;
}

/* A page of its own, which it has touched. */
static int punch_page(struct state *st, struct busy *me)
{
	off_t start = (NR_PAGES + me->nr) * pmd_size();

	if (fallocate(st->fd, 0, start, pmd_size()))
		return errno == ENOSPC ? no_child(me) : errno;
	__atomic_store_n(me->addr + start, 1, __ATOMIC_RELAXED);
	return punch(st, start, pmd_size());
}

/* Part of a page, where no journal is: it is filled with zeroes, and stays. */
static int punch_part(struct state *st, struct busy *me)
{
	return punch(st, any_page() * pmd_size() + pmd_size() / 2 + psize(),
		     2 * psize());
}

/* A userfaultfd that is told of writes to protected pages: there are none. */
static int watch(struct state *st, struct busy *me)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
	};
	struct uffdio_register reg = {
		.range = { (uintptr_t)me->addr, pud_size() },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	int error = 0;

	if (fd < 0)
		return errno;
	if (ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &reg))
		error = errno;
	close(fd);
	return error;
}

/* Whether the kernel has killed somebody for want of memory. */
static bool is_oom(const struct state *st)
{
	return vm_event("oom_kill") > st->oom_kills;
}

/* A child has the mapping too, touches it, and is gone, or runs a program. */
static int child_ends(struct state *st, struct busy *me, bool exec)
{
	int status, null, error = 0;
	pid_t pid = fork();

	if (pid < 0)
		return errno == EAGAIN || errno == ENOMEM ? no_child(me) : errno;
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		touch_pages(me->addr, NR_PAGES);
		null = open("/dev/null", O_RDWR);
		if (exec && dup2(null, 1) == 1 && dup2(null, 2) == 2)
			execl("/proc/self/exe", "hugetlb_pmd_unshare", "-h", NULL);
		if (exec && (errno == ENOMEM || errno == EAGAIN))
			_exit(NO_MEMORY);
		_exit(exec ? NO_EXEC : 0);
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return errno;
	if (WIFEXITED(status) && WEXITSTATUS(status) == NO_MEMORY)
		return no_child(me);
	if (WIFEXITED(status) && WEXITSTATUS(status) == NO_EXEC)
		error = ENOEXEC;
	if (!WIFSIGNALED(status))
		return error;
	return WTERMSIG(status) == SIGKILL && is_oom(st) ? no_child(me) : ECHILD;
}

static int child_exits(struct state *st, struct busy *me)
{
	return child_ends(st, me, false);
}

static int child_execs(struct state *st, struct busy *me)
{
	return child_ends(st, me, true);
}

FIXTURE_VARIANT_ADD(hugetlb_pmd_unshare, munmap) {
	.name = "munmap", .unshare = unmap_all,
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_unshare, munmap_part) {
	.name = "munmap_part", .unshare = unmap_part,
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_unshare, dontneed) {
	.name = "dontneed", .unshare = forget,
	.try = try_once,
	.needs = "MADV_DONTNEED of huge pages (since 5.18)",
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_unshare, mprotect) {
	.name = "mprotect", .unshare = protect,
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_unshare, mremap) {
	.name = "mremap", .unshare = move_mapping,
	.try = try_once,
	.needs = "mremap() of huge pages (since 5.16)",
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_unshare, truncate) {
	.name = "truncate", .unshare = truncate_file,
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_unshare, punch) {
	.name = "punch", .unshare = punch_page,
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_unshare, punch_part) {
	.name = "punch_part", .unshare = punch_part,
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_unshare, uffd_wp) {
	.name = "uffd_wp", .unshare = watch,
	.try = try_once,
	.needs = "write protection of huge pages by userfaultfd (since 5.19)",
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_unshare, exit) {
	.name = "exit", .unshare = child_exits,
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_unshare, exec) {
	.name = "exec", .unshare = child_execs,
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_unshare, shmdt) {
	.name = "shmdt", .unshare = unmap_all,
	.segment = true,
#ifndef IN_TREE
	.needs = "as many huge pages as are in a PUD, up to 5.17",
#else
	.needs = "a System V segment of huge pages",
#endif
};

/* Who is busy. */

/* The test looks at it meanwhile. */
static void set_error(struct busy *me, int error)
{
	__atomic_store_n(&me->error, error, __ATOMIC_RELEASE);
}

static int get_error(const struct busy *one)
{
	return __atomic_load_n(&one->error, __ATOMIC_ACQUIRE);
}

static void operate(struct state *st, struct busy *me)
{
	int error;

	me->doing = st->way->name;
	error = st->way->unshare(st, me);
	me->doing = NULL;
	if (!error)
		write_some(st, me, me->addr);
	set_error(me, error);
	count_up(&me->done, 1);
}

/* Where the pages are. Those that are nowhere have an error number. */
static void locate(const struct busy *me, void **pages, int *nodes)
{
	int i;

	for (i = 0; i < NR_PAGES; i++) {
		pages[i] = me->addr + i * pmd_size();
		/* It is there, but maybe not mapped here any more. */
		__atomic_load_n((char *)pages[i], __ATOMIC_RELAXED);
	}
	if (move_pages(0, NR_PAGES, pages, NULL, nodes, 0))
		for (i = 0; i < NR_PAGES; i++)
			nodes[i] = -ENOENT;
}

static void migrate(struct state *st, struct busy *me)
{
	int from[NR_PAGES], to[NR_PAGES], now[NR_PAGES], i;
	void *pages[NR_PAGES];

	me->doing = "move_pages";
	locate(me, pages, from);
	for (i = 0; i < NR_PAGES; i++)
		to[i] = st->nodes[from[i] == st->nodes[0]];
	if (move_pages(0, NR_PAGES, pages, to, now, MPOL_MF_MOVE_ALL) < 0)
		me->failed++;
	locate(me, pages, now);
	for (i = 0; i < NR_PAGES; i++)
		me->moves += from[i] >= 0 && now[i] >= 0 && from[i] != now[i];
	me->doing = NULL;
	count_up(&me->done, 1);
}

static __noreturn void busy_main(struct state *st, struct busy *me)
{
	uint32_t *phase = &st->control->phase, now = 0;

	pin_to_cpu(me->cpu);
	srandom(st->seed + me->nr);
	for (;;) {
		now = wait_for_change(phase, now);
		me->addr = me->room;
		set_error(me, map_file(&st->memory, me->addr));
		while (!get_error(me) &&
		       __atomic_load_n(phase, __ATOMIC_ACQUIRE) == now) {
			if (me->nr)
				operate(st, me);
			else
				migrate(st, me);
		}
		unmap_file(&st->memory, me->addr);
		now = wait_for_change(phase, now);
		set_and_wake(&me->ack, now);
	}
}

/* The test. */

/* Whether all have got there: @acks what they are to acknowledge, or @done. */
static bool all_there(struct state *st, bool stop, const unsigned long *done)
{
	struct control *control = st->control;
	struct wait_limit limit = {};
	struct busy *one;
	bool there;
	int i;

	for (i = 0; i < NR_BUSY; i++) {
		one = &control->busy[i];
		for (;;) {
			there = stop ? __atomic_load_n(&one->ack,
						       __ATOMIC_ACQUIRE) ==
				       control->phase :
				counted(&one->done) >= done[i] + EACH ||
				get_error(one);
			if (there || !within_limit(&limit, st->crew.pids,
						   NR_BUSY, STUCK_MS))
				break;
			usleep(1000);
		}
		if (there)
			continue;
		st->stuck = true;
		ksft_print_msg("process %d is stuck, operation: %s\n", one->pid,
			       one->doing ?: "none");
		tell_where(one->pid);
	}
	return !st->stuck;
}

/* Whether all writers come to write to all pages while the others are busy. */
static bool all_write(const struct state *st, const uint64_t *then)
{
	uint64_t start = cycles_clock();

	while (writers_wrote(&st->writers, then) < st->writers.nr) {
		if (ms_since(start) >= WROTE_MS)
			return false;
		usleep(1000);
	}
	return true;
}

/*
 * Until each has done something, then to the end of it. Sets @wrote if the writers
 * have written since @then, which is when pages began to move, or before.
 */
static bool go(struct state *st, const uint64_t *then, bool *wrote)
{
	unsigned long done[NR_BUSY];
	int i;

	for (i = 0; i < NR_BUSY; i++)
		done[i] = counted(&st->control->busy[i].done);
	set_and_wake(&st->control->phase, st->control->phase + 1);
	if (!all_there(st, false, done))
		return false;
	*wrote = all_write(st, then);
	set_and_wake(&st->control->phase, st->control->phase + 1);
	return all_there(st, true, NULL);
}

static void report_loss(int *examples, const char *who, uint64_t wrote,
			uint64_t found)
{
	if ((*examples)-- > 0)
		ksft_print_msg("lost by a process that %s: wrote 0x%llx found 0x%llx\n",
			       who, (unsigned long long)wrote,
			       (unsigned long long)found);
}

static void report_writer(const struct lost_write *lost, void *arg)
{
	report_loss(arg, "only writes", lost->wrote, lost->found);
}

static void report_busy(const struct journal_loss *lost, void *arg)
{
	report_loss(arg, "unshares", lost->wrote, lost->found);
}

static long compare(const struct state *st, int *examples)
{
	char *view = writers_view_addr(&st->writers);
	long lost_in[MAX_PAGES] = {}, lost;
	const struct busy *one;
	int error, page, i;

	error = map_file(&st->memory, view);
	if (error)
		return -error;
	lost = writers_check(&st->writers, view, -1, report_writer, examples,
			     lost_in);
	for (i = 1; i < NR_BUSY; i++) {
		one = &st->control->busy[i];
		for (page = 0; page < NR_PAGES; page++)
			lost += journal_check(journal_of(st, view, page, one),
					      st->writers.nr + i, one->last,
					      report_busy, examples);
	}
	unmap_file(&st->memory, view);
	return lost;
}

/* Operations that there was not the memory for. */
static unsigned long no_children(const struct state *st)
{
	unsigned long nr = 0;
	int i;

	for (i = 1; i < NR_BUSY; i++)
		nr += counted(&st->control->busy[i].no_child);
	return nr;
}

/*
 * Whether one of them is gone, for want of memory: then nothing more can be
 * concluded from what the others do, or do not.
 */
static bool one_is_gone(struct state *st)
{
	int i, nr;

	nr = crew_ended(&st->crew);
	for (i = 0; i < st->writers.nr; i++)
		nr += !st->writers.each[i].pid;
	return nr && is_oom(st);
}

static void report(struct __test_metadata *_metadata, struct state *st,
		   long rounds, long lost_rounds, long lost, long want)
{
	const struct busy *busy = st->control->busy;
	unsigned long unshares = busy[1].done + busy[2].done - no_children(st);

	ksft_print_msg("hugetlb_pmd_unshare: trigger=%s sharers=%d control=no",
		       st->way->name, st->writers.nr + NR_BUSY);
	printf(" calls=%lu failed_calls=%lu migrations=%lu lost_migrations=%ld",
	       busy[0].done, busy[0].failed, busy[0].moves, lost_rounds);
	printf(" lost_writes=%ld rounds=%ld unshares=%lu seed=%u", lost, rounds,
	       unshares, st->seed);
	printf(" shared=%lu wrote=%lu counting=%lu no_child=%lu", st->shared,
	       st->wrote, st->counting, no_children(st));
	printf(" hot_calls=%lu hot_moved=%lu\n", st->hot, st->hot_moved);

	EXPECT_EQ(0, lost)
		TH_LOG("%ld writes lost in %ld of %ld rounds", lost, lost_rounds,
		       rounds);
	/* Those that are left can be ended. */
	if (!lost && one_is_gone(st))
		SKIP(st->stuck = false; return,
		     "inconclusive: the kernel was short of memory, and killed a process");
	EXPECT_FALSE(st->stuck);
	EXPECT_FALSE(st->disobeyed);
	if (lost || st->stuck || st->disobeyed)
		return;
	if (busy[0].moves && !st->hot_moved)
		ksft_print_msg("pages moved only with writers that rest, in %lu rounds not\n",
			       st->hot);
	if (busy[0].moves < MIN_MOVES)
		SKIP(return, "inconclusive: only %lu moves in %lu calls",
		     busy[0].moves, busy[0].done);
	if (!st->shared)
		SKIP(return, "inconclusive: the writers shared no table");
	if ((long)st->counting < MIN(want, MIN_MOVES))
		SKIP(return,
		     "inconclusive: in %lu of %ld rounds pages moved while all wrote and shared (shared %lu, wrote %lu, no memory %lu)",
		     st->counting, rounds, st->shared, st->wrote,
		     no_children(st));
}

/* Why one of them could not go on. */
static int error_of(const struct state *st)
{
	int i, error = 0;

	for (i = 0; i < NR_BUSY; i++)
		error = error ?: get_error(&st->control->busy[i]);
	return error;
}

/* They are not to inherit a mapping of the file. */
static int fork_busy(struct state *st)
{
	struct busy *one;
	pid_t pid;
	int i;

	for (i = 0; i < NR_BUSY; i++) {
		one = &st->control->busy[i];
		one->nr = i;
		/* Who migrates is where the test is. */
		one->cpu = st->cpus[i % st->nr_cpus];
		pid = crew_fork(&st->crew);
		if (pid < 0)
			return errno;
		if (!pid)
			busy_main(st, one);
		one->pid = pid;
	}
	return 0;
}

/* What the test has of it itself shares no table, and is not for children. */
static int keep(struct state *st, char *addr)
{
	int error = map_file(&st->memory, addr);

	if (!error && madvise(addr, pud_size(), MADV_DONTFORK))
		error = errno;
	return error;
}

/*
 * A segment is there as long as somebody has it, and others can attach to it until
 * then, if it was removed at once. Returns 0 or an error number.
 */
static int open_segment(struct state *st, char *addr)
{
	unsigned int shift = ffsl(pmd_size()) - 1;
	int error;

	st->shmid = shmget(IPC_PRIVATE, pud_size(), IPC_CREAT | 0600 |
			   SHM_HUGETLB | SHM_NORESERVE | shift << HUGE_SHIFT);
	if (st->shmid < 0)
		return errno;
	error = keep(st, addr);
	shmctl(st->shmid, IPC_RMID, NULL);
	return error;
}

/* Pages to write to, and who does. Returns NULL, or a line that says why not. */
static const char *start(struct state *st)
{
	char *own = st->rooms + PUDS_EACH * NR_BUSY * pud_size() + pmd_size();
	static char why[128];
	const char *lack;
	int i, error = 0;
	long faults;

	st->memory.map = map_file;
	st->memory.unmap = unmap_file;
	st->memory.page = pmd_size();
	st->memory.nr_pages = NR_PAGES;
	st->writers.mem = &st->memory;
	st->shmid = -1;
	st->fd = hugetlbfs_open(pud_size());
	if (st->fd < 0) {
		snprintf(why, sizeof(why), "no file: %s", strerror(-st->fd));
		return why;
	}
	lack = populate_lacks(st->fd, NULL, NR_PAGES);
	if (lack)
		return lack;
	faults = faults_to_share(st->fd, st->rooms, PROT_READ | PROT_WRITE, 0,
				 NR_PAGES);
	if (faults != 1) {
		snprintf(why, sizeof(why),
			 "table not shared (%ld faults): needs CONFIG_HUGETLB_PMD_PAGE_TABLE_SHARING",
			 faults);
		return why;
	}
	if (st->way->segment) {
		close(st->fd);
		st->fd = -1;
		error = open_segment(st, own);
	} else if (st->way->try) {
		error = st->way->try(st);
	}
	if (error) {
		/* Of a segment. */
		bool limit = st->way->segment &&
			     (error == EINVAL || error == ENOSPC);

		snprintf(why, sizeof(why), "needs %s: %s",
			 limit ? "more of kernel.shmmax, shmall or shmmni" :
			 st->way->needs, strerror(error));
		return why;
	}
	if (st->way->segment)
		lack = populate_lacks(-1, own, NR_PAGES);
	if (lack)
		return lack;
	error = writers_fork(&st->writers, st->cpus, st->nr_cpus);
	if (!error)
		error = fork_busy(st);
	if (!error && !st->way->segment)
		error = keep(st, own);
	if (error) {
		snprintf(why, sizeof(why), "cannot begin: %s", strerror(error));
		return why;
	}
	for (i = 0; i < NR_PAGES; i++)
		__atomic_store_n(own + i * pmd_size(), 0, __ATOMIC_RELAXED);
	/* If others are stuck, the test is not to wait for the file's lock. */
	if (!st->way->segment)
		unmap_pud(own);
	return NULL;
}

FIXTURE_SETUP(hugetlb_pmd_unshare)
{
	const char *why;
	struct state *st;
	int i;

	st = calloc(1, sizeof(*st));
	ASSERT_NE(NULL, st);
	self->st = st;
	st->way = variant;
	st->fd = -1;
	if (geteuid())
		SKIP(return,
		     "needs root, for MPOL_MF_MOVE_ALL and the huge page pool");
	why = churn_lacks("may crash or hang a kernel that has a defect");
	if (why)
		SKIP(return, "%s", why);
	st->nr_cpus = cpu_list(st->cpus, ARRAY_SIZE(st->cpus));
	if (st->nr_cpus < 2)
		SKIP(return, "needs two CPUs");
	/* Pages go both ways: each node has room for all of them. */
	why = nodes_lack(st->nodes, 2, st->cpus[0]) ?:
	      guard_lacks() ?:
	      pool_lacks(st->nodes, 2, NR_PAGES + SPARE);
	if (why)
		SKIP(return, "%s", why);
	st->seed = env_long("HUGETLB_PMD_UNSHARE_SEED", time(NULL));
	srandom(st->seed);
	st->oom_kills = vm_event("oom_kill");
	st->control = share_memory(sizeof(*st->control));
	ASSERT_NE(NULL, st->control);
	i = st->nr_cpus - 1 < MAX_CPU_WRITERS ? st->nr_cpus - 1 :
						MAX_CPU_WRITERS;
	st->rooms = reserve_puds(PUDS_EACH * NR_BUSY + 2);
	/* A PUD may be as much as 4 TiB: fewer writers need less. */
	while (st->rooms && i && !writers_reserve(&st->writers, i))
		i--;
	if (!st->rooms || !i)
		SKIP(return, "needs more address space: PUDs of %zu MiB",
		     pud_size() >> 20);
	for (i = 0; i < NR_BUSY; i++)
		st->control->busy[i].room = st->rooms + PUDS_EACH * i * pud_size();
}

FIXTURE_TEARDOWN(hugetlb_pmd_unshare)
{
	struct state *st = self->st;
	const char *why;

	if (!crew_kill(&st->crew, st->stuck ? 1000 : STUCK_MS))
		st->stuck = true;
	if (!st->stuck)
		writers_kill(&st->writers);
	/* Huge pages in use would stay in the pool. */
	if (st->rooms)
		munmap(st->rooms, (PUDS_EACH * NR_BUSY + 2) * pud_size());
	if (st->fd >= 0)
		close(st->fd);
	/* The guardian must not wait for those who are stuck. */
	why = guard_end(!st->stuck);
	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
}

static bool order(struct state *st, enum order what, int rests)
{
	st->disobeyed = !writers_order(&st->writers, what, rests);
	return !st->disobeyed;
}

/*
 * Whether who maps the file now shares the table that the writers write through,
 * and finds their pages in it. It does not stay: it would keep the table there.
 */
static bool is_shared(const struct state *st)
{
	long faults = 0;
	int tries;

	for (tries = 0; tries < SHARE_TRIES && faults != 1; tries++) {
		if (map_file(&st->memory, st->rooms))
			return false;
		faults = touch_pages(st->rooms, NR_PAGES);
		unmap_file(&st->memory, st->rooms);
	}
	return faults == 1;
}

TEST_F_TIMEOUT(hugetlb_pmd_unshare, lost_write, 120)
{
	long want = env_count("HUGETLB_PMD_UNSHARE_ROUNDS", ROUNDS), got;
	long rounds = 0, lost = 0, lost_rounds = 0;
	int i, rests = 0, examples = EXAMPLES;
	struct state *st = self->st;
	const char *why = start(st);
	uint64_t then[MAX_WRITERS], began = cycles_clock();
	unsigned long moves, no_child;
	bool shared, wrote = false;

	if (why)
		SKIP(return, "%s", why);
	while (!lost && (long)st->counting < want && rounds < 2 * want &&
	       ms_since(began) < TEST_MS) {
		rounds++;
		if (!order(st, WRITE, rests))
			break;
		for (i = 0; i < st->writers.nr; i++)
			ASSERT_EQ(0, st->writers.each[i].error);
		shared = is_shared(st);
		moves = st->control->busy[0].moves;
		no_child = no_children(st);
		writers_note(&st->writers, then);
		if (!go(st, then, &wrote))
			break;
		ASSERT_EQ(0, error_of(st))
			TH_LOG("%s failed: %s", st->way->name,
			       strerror(error_of(st)));
		if (!order(st, STOP, 0))
			break;
		got = compare(st, &examples);
		ASSERT_GE(got, 0)
			TH_LOG("cannot look at the pages: %s", strerror(-got));
		lost += got;
		lost_rounds += got > 0;
		if (!order(st, UNMAP, 0))
			break;
		moves = st->control->busy[0].moves - moves;
		st->shared += shared;
		st->wrote += shared && wrote;
		st->counting += moves && shared && wrote &&
				no_children(st) == no_child;
		st->hot += !rests;
		st->hot_moved += !rests && moves;
		rests = moves ? 0 : rests < MAX_RESTS ? rests + 1 : MAX_RESTS;
	}
	report(_metadata, st, rounds, lost_rounds, lost, want);
}

TEST_HARNESS_MAIN
