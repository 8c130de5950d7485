// SPDX-License-Identifier: GPL-2.0
/*
 * Do those who unshare a PMD page table of hugetlb at the same time undo each
 * other?
 *
 * Processes that map the same PUD of a hugetlb file share a page table (see
 * hugetlb_pmd_migrate.c). Migration has to stop every one of them from writing
 * to the old page. A kernel can do so by unsharing the table in the reverse map
 * walk. But if it holds i_mmap_rwsem only for reading there, two can do it at
 * once. Both look for the entry without a lock, and the entry belongs to a
 * table, not to a process. This is what two walkers do who migrate page 0 and
 * page 1, which processes A and B share in table T:
 *
 *	walker 1 (page 0)		walker 2 (page 1)
 *	finds A's entry, in T
 *					finds A's entry, in T
 *	locks T: 2 processes share it
 *	takes T away from A, flushes A
 *	unlocks T
 *					locks T: 1 process has it, so A is
 *					the last; clears page 1's entry,
 *					flushes A, unlocks T
 *					comes to B: page 1 has no entry
 *					copies page 1
 *	B, which was never flushed, writes to the old page 1: lost
 *
 * With a third process, C, walker 2 sees that 2 processes share T. So it counts
 * A out once more, and 1 is left where B and C both map T:
 *
 *	B unmaps the file: 1 process has T, so B is the last; T is freed
 *	C uses T, which is another's memory by then
 *
 * A fault, munmap(2), mprotect(2), madvise(2) and fork(2) find tables and count
 * processes as well, and so do the same to a walker, and a walker to them. So does
 * the end of a process that has such a mapping, by exit(2) or execve(2): a child
 * that has mapped the file itself, and written to it in place of its parent.
 *
 * Here several processes do all of that at once. Each has a word of its own in
 * every page. One round of a process is
 *
 *	write      the words, some times over: each is loaded, must be what was
 *		   stored there last, is stored anew, and loaded again
 *	operate    one of the operations of the variant, picked at random
 *
 * Pages are moved by move_pages(2), which moves those that it is told to. Some
 * variants do so by another trigger. mbind(2) and migrate_pages(2) move all of
 * a process, so one sharer takes them to one node, and another to the other:
 * each moves what it finds there. Soft offlining moves a page to another frame.
 * The kernel takes one memory block offline at a time, and so two cannot.
 *
 * Holes are punched into pages of their own, behind the others. A word there is
 * what its process stored last, or 0 after a hole. Anything else was stored to
 * a page that is used for something else by now.
 *
 * No process may lose a word, die or be stuck, pages must have moved, and no
 * page may be missing in the pool but those that the file has, which can be told
 * if nobody else uses huge pages. A run without enough moves and rounds proves
 * nothing and is skipped as inconclusive. If the kernel dies of it, this is for
 * the log to tell.
 *
 * Environment:
 *	HUGETLB_PMD_CHURN=1		run it at all: a kernel that has the
 *					defect may crash; not for machines that
 *					do work
 *	HUGETLB_PMD_MIGRATE_OFFLINE=1	also soft-offline pages, whose poison is
 *					taken back
 *	HUGETLB_PMD_CHURN_SECONDS=n	how long a variant runs, 400 at most
 *	HUGETLB_PMD_CHURN_SEED=n	for the choice of operations and pages
 */
#include "kselftest_harness.h"

#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <numa.h>
#include <numaif.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#ifndef IN_TREE
#include <sys/utsname.h>
#endif
#include <sys/wait.h>
#include <time.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_journal.h"
#include "migrate_memory.h"
#include "migrate_page.h"
#include "migrate_util.h"
#include "vm_util.h"

#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif

#define NR_PAGES	8	/* populated pages of the file */
#define NR_SCRATCH	2	/* pages behind them, to punch holes into */
#define SPARE		6	/* free pages beside those, on each node */
#define MAX_SHARERS	6
#define TRIES		3	/* mappings to prove that the table is shared */
#define SECONDS		10
#define LONG_SECONDS	20	/* where little else is done, or much more */
#define USER_SECONDS	60	/* where root moves four pages a second */
#define MAX_SECONDS	400
#define ENOUGH_MOVES	50	/* fewer are no evidence */
#define ENOUGH_ROUNDS	10	/* of each sharer */
#ifndef IN_TREE
#define FEW_OFFLINED	30	/* of each sharer, where they are lost */
#endif
#define WRITES_SHIFT	10	/* in a round: less than 2 to the power of it */
#define STEP_TIMEOUT_MS	20000	/* for a round and for other steps */
#define ENOUGH_CHILDREN	3	/* where there are to be any */
#define END_SHIFT	6	/* writes of a child that ends, likewise */
#define NO_EXEC		127	/* its exit status, if it could not exec */
#define END_AT_ONCE	"HUGETLB_PMD_CHURN_END_AT_ONCE"	/* for what it executes */
#define LATE_MS		2000	/* for huge pages to be given back */
#define NOBODY		65534	/* the ordinary user */

enum {
	MIGRATE		= 1 << 0,
	REMAP		= 1 << 1,
	DONTNEED	= 1 << 2,
	MUNMAP_PART	= 1 << 3,
	FORK		= 1 << 4,
	MPROTECT	= 1 << 5,
	PUNCH		= 1 << 6,
	END		= 1 << 7,
};

#define NR_OPS		8
#define ALL_OPS		(MIGRATE | REMAP | DONTNEED | MUNMAP_PART | FORK)
#define SPLIT_OPS	(MIGRATE | MUNMAP_PART | FORK)

enum trigger { MOVE_PAGES, MBIND, MIGRATE_PAGES, SOFT_OFFLINE };

enum phase { MAP = 1, RUN, STOP };	/* set by the test */
enum state { MAPPED = 1, STOPPED };	/* set by a sharer */

struct control;

struct sharer {
	struct control *control;
	int nr;
	int cpu;
	char *room;		/* TRIES PUDs of address space */
	/* Set by the sharer. */
	unsigned int state;
	char *addr;		/* of the mapping */
	long faults;		/* to touch all pages the first time */
	unsigned long random;
	unsigned long rounds;
	unsigned long writes;	/* to each page */
	unsigned long last[NR_PAGES];	/* what each page's word must be */
	unsigned long scratch[NR_SCRATCH];	/* or 0, in these pages */
	/* The test looks at these while they change. */
	unsigned long calls, failed_calls, moves, refused, protects, holes;
	unsigned long lost;
	unsigned long children, no_children, execs;
	bool oom_killed;	/* its child */
	const char *doing;	/* the operation, NULL while it writes */
	pid_t child;
	char why[80];		/* it ended by itself */
};

struct control {
	const FIXTURE_VARIANT(hugetlb_pmd_churn) * variant;

	long missing;		/* pages that somebody else has */
	bool pool_was_shared;	/* before it began, too */
	long oom_kills;		/* of the kernel, before it began */
	/* See move_for_user(). */
	unsigned long seen_refused, calls_for_user, moves_for_user;
	unsigned int phase;
	unsigned int seed;
	int fd;
	int nodes[2];
#ifndef IN_TREE
	bool keeps_poison;	/* what is soft-offlined stays in the pool */
#endif
	unsigned long start;
	/* The first lost write. */
	unsigned int has_first;
	long first_ms;		/* since the start */
	char first[200];
	struct sharer sharers[MAX_SHARERS];
};

FIXTURE(hugetlb_pmd_churn)
{
	struct control *control;
	char *area;		/* own PUD, those of the sharers, the view's */
	size_t area_size;
	pid_t pids[MAX_SHARERS];
	int bad;		/* a bit for each that died or was stuck */
	int oom_killed;		/* of these, for want of memory */
	bool stuck;
};

FIXTURE_VARIANT(hugetlb_pmd_churn)
{
	const char *name;
	int sharers;
	int writers;		/* of these: do not operate */
	unsigned int ops;
	bool halves;		/* sharers 0 and 1 migrate a half each */
	enum trigger trigger;	/* MOVE_PAGES without halves */
	bool user;		/* sharers are an ordinary user's */
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_churn, two_migrate) {
	.name = "two_migrate", .sharers = 4, .writers = 2, .ops = MIGRATE,
	.halves = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_churn, two_migrate_user) {
	.name = "two_migrate_user", .sharers = 4, .writers = 2, .ops = MIGRATE,
	.halves = true, .user = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_churn, two_migrate_mbind) {
	.name = "two_migrate_mbind", .sharers = 4, .writers = 2,
	.ops = MIGRATE, .halves = true, .trigger = MBIND };
FIXTURE_VARIANT_ADD(hugetlb_pmd_churn, two_migrate_mbind_user) {
	.name = "two_migrate_mbind_user", .sharers = 4, .writers = 2,
	.ops = MIGRATE, .halves = true, .trigger = MBIND, .user = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_churn, two_migrate_migrate_pages) {
	.name = "two_migrate_migrate_pages", .sharers = 4, .writers = 2,
	.ops = MIGRATE, .halves = true, .trigger = MIGRATE_PAGES };
FIXTURE_VARIANT_ADD(hugetlb_pmd_churn, two_migrate_migrate_pages_user) {
	.name = "two_migrate_migrate_pages_user", .sharers = 4, .writers = 2,
	.ops = MIGRATE, .halves = true, .trigger = MIGRATE_PAGES,
	.user = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_churn, two_migrate_soft_offline) {
	.name = "two_migrate_soft_offline", .sharers = 4, .writers = 2,
	.ops = MIGRATE, .halves = true, .trigger = SOFT_OFFLINE };
FIXTURE_VARIANT_ADD(hugetlb_pmd_churn, four_migrate) {
	.name = "four_migrate", .sharers = 4, .ops = MIGRATE };
FIXTURE_VARIANT_ADD(hugetlb_pmd_churn, four_migrate_user) {
	.name = "four_migrate_user", .sharers = 4, .ops = MIGRATE,
	.user = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_churn, churn_migrate) {
	.name = "churn_migrate", .sharers = 6, .ops = MIGRATE };
FIXTURE_VARIANT_ADD(hugetlb_pmd_churn, churn_remap) {
	.name = "churn_remap", .sharers = 6, .ops = MIGRATE | REMAP };
FIXTURE_VARIANT_ADD(hugetlb_pmd_churn, churn_dontneed) {
	.name = "churn_dontneed", .sharers = 6, .ops = MIGRATE | DONTNEED };
FIXTURE_VARIANT_ADD(hugetlb_pmd_churn, churn_munmap) {
	.name = "churn_munmap", .sharers = 6, .ops = MIGRATE | MUNMAP_PART };
FIXTURE_VARIANT_ADD(hugetlb_pmd_churn, churn_fork) {
	.name = "churn_fork", .sharers = 6, .ops = MIGRATE | FORK };
FIXTURE_VARIANT_ADD(hugetlb_pmd_churn, churn_end) {
	.name = "churn_end", .sharers = 6, .ops = MIGRATE | END };
FIXTURE_VARIANT_ADD(hugetlb_pmd_churn, churn_mprotect_only) {
	.name = "churn_mprotect_only", .sharers = 6, .ops = MPROTECT };
FIXTURE_VARIANT_ADD(hugetlb_pmd_churn, churn_all) {
	.name = "churn_all", .sharers = 6, .ops = ALL_OPS };
FIXTURE_VARIANT_ADD(hugetlb_pmd_churn, churn_all_mprotect) {
	.name = "churn_all_mprotect", .sharers = 6, .ops = ALL_OPS | MPROTECT };
FIXTURE_VARIANT_ADD(hugetlb_pmd_churn, churn_punch) {
	.name = "churn_punch", .sharers = 6, .ops = MIGRATE | PUNCH };
FIXTURE_VARIANT_ADD(hugetlb_pmd_churn, churn_all_punch) {
	.name = "churn_all_punch", .sharers = 6,
	.ops = ALL_OPS | MPROTECT | PUNCH };
FIXTURE_VARIANT_ADD(hugetlb_pmd_churn, churn_all_end) {
	.name = "churn_all_end", .sharers = 6,
	.ops = ALL_OPS | MPROTECT | PUNCH | END };
FIXTURE_VARIANT_ADD(hugetlb_pmd_churn, churn_user) {
	.name = "churn_user", .sharers = 6, .ops = ALL_OPS,
	.user = true };
/* Each munmap() splits a mapping, while others fault and share its table. */
FIXTURE_VARIANT_ADD(hugetlb_pmd_churn, churn_split) {
	.name = "churn_split", .sharers = 6, .ops = SPLIT_OPS };
FIXTURE_VARIANT_ADD(hugetlb_pmd_churn, churn_split_user) {
	.name = "churn_split_user", .sharers = 6, .ops = SPLIT_OPS,
	.user = true };

/* Not at the same offset of every page, for TCG's TLB: see journal_offset(). */
static size_t word_offset(int page, int sharer)
{
	return page * psize() + sharer * 64;
}

static unsigned long *word_of(char *addr, int page, int sharer)
{
	return (unsigned long *)(addr + page * pmd_size() +
				 word_offset(page, sharer));
}

static enum phase phase_of(struct control *control)
{
	return __atomic_load_n(&control->phase, __ATOMIC_ACQUIRE);
}

/* Count a lost write of @s: @found is what its word in @page holds. */
static void count_loss(struct sharer *s, char *addr, int page,
		       unsigned long found, const char *when)
{
	struct control *control = s->control;
	char *first = control->first;
	long pfn;

	count_up(&s->lost, 1);
	addr += page * pmd_size();
	if (!__atomic_exchange_n(&control->has_first, 1, __ATOMIC_ACQ_REL)) {
		control->first_ms = ms_since(control->start);
		pfn = page_pfn(0, addr);	/* not for an ordinary user */
		snprintf(first, sizeof(control->first),
			 "sharer %d page %d offset 0x%zx wrote 0x%lx found 0x%lx in round %lu, %s, node %d pfn 0x%lx",
			 s->nr, page, word_offset(page, s->nr), s->last[page],
			 found, s->rounds, when, page_node(0, addr),
			 pfn > 0 ? pfn : 0);
	}
	/* What is lost is lost: count it once. */
	s->last[page] = found;
}

static void check_word(struct sharer *s, char *addr, int page, const char *when)
{
	unsigned long found = __atomic_load_n(word_of(addr, page, s->nr),
					      __ATOMIC_RELAXED);

	if (found != s->last[page])
		count_loss(s, addr, page, found, when);
}

/* What a sharer does. */

static const char * const trigger_name[] = {
	"move_pages", "mbind", "migrate_pages", "soft_offline",
};

static __noreturn void give_up(struct sharer *me, const char *call, int error)
{
	snprintf(me->why, sizeof(me->why), "%s failed: %s", call,
		 strerror(error));
	_exit(1);
}

static unsigned int any(struct sharer *me, unsigned int below)
{
	me->random ^= me->random << 13;
	me->random ^= me->random >> 7;
	me->random ^= me->random << 17;
	return (me->random >> 16) % below;
}

/* All at one offset of the page, with the page in the word. */
static void write_scratch(struct sharer *me, char *where)
{
	struct control *control = me->control;
	unsigned long *addr, found;
	int i, when;

	for (i = 0; i < NR_SCRATCH; i++) {
		addr = word_of(where, NR_PAGES, me->nr);
		addr += i * pmd_size() / sizeof(*addr);
		for (when = 0; when < 2; when++) {
			found = __atomic_load_n(addr, __ATOMIC_RELAXED);
			if (found && found != me->scratch[i]) {
				count_up(&me->lost, 1);
				if (!__atomic_exchange_n(&control->has_first, 1,
							 __ATOMIC_ACQ_REL))
					snprintf(control->first,
						 sizeof(control->first),
						 "sharer %d scratch page %d wrote 0x%lx found 0x%lx in round %lu",
						 me->nr, i, me->scratch[i],
						 found, me->rounds);
			}
			if (when)
				break;
			me->scratch[i] = journal_word(me->nr, me->writes) |
					 (i + 1ul) << 48;
			__atomic_store_n(addr, me->scratch[i],
					 __ATOMIC_RELAXED);
		}
	}
}

static void write_words(struct sharer *me, char *addr)
{
	unsigned long word = journal_word(me->nr, ++me->writes);
	int page;

	if (me->control->variant->ops & PUNCH)
		write_scratch(me, addr);

	for (page = 0; page < NR_PAGES; page++) {
		check_word(me, addr, page, "before the next write");
		me->last[page] = word;
		__atomic_store_n(word_of(addr, page, me->nr), word,
				 __ATOMIC_RELAXED);
		check_word(me, addr, page, "right after the write");
	}
}

static void check_words(struct sharer *me, int except, const char *when)
{
	int page;

	for (page = 0; page < NR_PAGES; page++)
		if (page != except)
			check_word(me, me->addr, page, when);
}

/*
 * All pages to the node of this sharer. Nobody else brings any there: what was on
 * the other node and is here now was moved by this one. The other sharer may have
 * taken it back by then, and so the count may be too low.
 */
static void move_all_here(struct sharer *me)
{
	const struct control *control = me->control;
	int here = control->nodes[me->nr % 2];
	int there = control->nodes[!(me->nr % 2)];
	int flags = control->variant->user ? MPOL_MF_MOVE : MPOL_MF_MOVE_ALL;
	int was[NR_PAGES], is[NR_PAGES], status;
	void *pages[NR_PAGES], *left = NULL;
	int i, moves = 0;
	long ret;

	for (i = 0; i < NR_PAGES; i++) {
		pages[i] = me->addr + i * pmd_size();
		was[i] = -ENOENT;
		is[i] = -ENOENT;
	}
	move_pages(0, NR_PAGES, pages, NULL, was, 0);

	count_up(&me->calls, 1);
	/* A part of the mapping would be split off, and share no table. */
	if (control->variant->trigger == MBIND)
		ret = bind_range(me->addr, pud_size(), here, flags);
	else
		ret = migrate_node(0, there, here);
	count_up(&me->failed_calls, ret < 0);

	move_pages(0, NR_PAGES, pages, NULL, is, 0);
	for (i = 0; i < NR_PAGES; i++) {
		moves += was[i] == there && is[i] == here;
		if (was[i] == there && is[i] == there)
			left = pages[i];
	}
	count_up(&me->moves, moves);
	if (!control->variant->user || moves || !left)
		return;
	/* These calls do not say what they may not do, and this one does. */
	status = 0;
	move_pages(0, 1, &left, &here, &status, MPOL_MF_MOVE);
	count_up(&me->refused, status == -EACCES);
}

/* A page of its half to another frame. The test fills up the pool. */
static void soft_offline(struct sharer *me)
{
	int page = me->nr % 2 * NR_PAGES / 2 + any(me, NR_PAGES / 2);
	char *addr = me->addr + page * pmd_size();
	int64_t was = page_pfn(0, addr);

	if (was < 0)
		return;
#ifndef IN_TREE
	if (me->control->keeps_poison && counted(&me->calls) >= FEW_OFFLINED)
		return;
#endif
	count_up(&me->calls, 1);
	if (madvise(addr, psize(), MADV_SOFT_OFFLINE)) {
		count_up(&me->failed_calls, 1);
		return;
	}
	/* Migration may have taken the table away: fault it in again. */
	check_word(me, me->addr, page, "after it was soft-offlined");
	count_up(&me->moves, page_pfn(0, addr) != was);
	pfn_unpoison(was);
}

/* Each page to the node where it is not. */
static void op_migrate(struct sharer *me)
{
	const struct control *control = me->control;
	int was[NR_PAGES], nodes[NR_PAGES], status[NR_PAGES];
	int i, nr = 1, page = any(me, NR_PAGES);
	void *pages[NR_PAGES];

	me->doing = trigger_name[control->variant->trigger];
	if (control->variant->trigger == SOFT_OFFLINE) {
		soft_offline(me);
		return;
	}
	if (control->variant->trigger != MOVE_PAGES) {
		move_all_here(me);
		return;
	}

	if (control->variant->halves || !any(me, 4)) {
		nr = NR_PAGES / 2;
		page = me->nr % 2 * nr;
	}
	for (i = 0; i < nr; i++) {
		pages[i] = me->addr + (page + i) * pmd_size();
		was[i] = -ENOENT;
		status[i] = -ENOENT;
	}
	/* A page that another has just unmapped is not to be found. */
	move_pages(0, nr, pages, NULL, was, 0);
	for (i = 0; i < nr; i++)
		nodes[i] = control->nodes[was[i] == control->nodes[0]];

	count_up(&me->calls, 1);
	if (move_pages(0, nr, pages, nodes, status, control->variant->user ?
		       MPOL_MF_MOVE : MPOL_MF_MOVE_ALL) < 0)
		count_up(&me->failed_calls, 1);
	for (i = 0; i < nr; i++) {
		count_up(&me->moves, was[i] >= 0 && status[i] == nodes[i]);
		count_up(&me->refused, status[i] == -EACCES);
	}
}

static void map_anew(struct sharer *me)
{
	int error = map_pud(me->control->fd, me->addr);

	if (error)
		give_up(me, "mmap", error);
}

static void op_remap(struct sharer *me)
{
	unmap_pud(me->addr);
	map_anew(me);
}

/* One of the pages or, if not @part, all of the mapping. */
static size_t any_range(struct sharer *me, bool part, char **addr)
{
	*addr = me->addr;
	if (!part)
		return pud_size();
	*addr += any(me, NR_PAGES) * pmd_size();
	return pmd_size();
}

static void op_dontneed(struct sharer *me)
{
	char *addr;
	size_t size = any_range(me, any(me, 2), &addr);

	/* Up to 5.17 there is no such thing for huge pages. */
	if (madvise(addr, size, MADV_DONTNEED) && errno != EINVAL)
		give_up(me, "madvise", errno);
}

static void op_munmap_part(struct sharer *me)
{
	int page = any(me, NR_PAGES);

	if (munmap(me->addr + page * pmd_size(), pmd_size()))
		give_up(me, "munmap", errno);
	check_words(me, page, "with another page unmapped");
	map_anew(me);
}

static void op_mprotect(struct sharer *me)
{
	bool part = !any(me, 4);
	char *addr;
	size_t size = any_range(me, part, &addr);

	if (mprotect(addr, size, PROT_READ))
		give_up(me, "mprotect", errno);
	check_words(me, -1, "while not writable");
	if (mprotect(addr, size, PROT_READ | PROT_WRITE))
		give_up(me, "mprotect", errno);
	count_up(&me->protects, 2);
	/* VMAs of hugetlb do not merge, and no table is shared by a part. */
	if (part)
		map_anew(me);
}

static void op_punch(struct sharer *me)
{
	off_t page = NR_PAGES + any(me, NR_SCRATCH);

	if (fallocate(me->control->fd,
		      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      page * pmd_size(), pmd_size()))
		give_up(me, "fallocate", errno);
	count_up(&me->holes, 1);
}

/* Whether the kernel has killed somebody for want of memory. */
static bool is_oom(const struct control *control)
{
	return vm_event("oom_kill") > control->oom_kills;
}

/*
 * A child that does what is asked for and ends; it has all of @me, whose own
 * process waits. Returns its exit status, or -1 if there can be no child now.
 */
static int with_child(struct sharer *me, void (*fn)(struct sharer *me, bool exec),
		      bool exec)
{
	pid_t parent = getpid(), pid;
	int status = 0;

	pid = fork();
	if (pid < 0 && errno != EAGAIN && errno != ENOMEM)
		give_up(me, "fork", errno);
	if (pid < 0) {
		count_up(&me->no_children, 1);
		usleep(1000);
		return -1;
	}
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		fn(me, exec);
		_exit(0);
	}
	me->child = pid;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	me->child = 0;
	if (WIFSIGNALED(status)) {
		/* What it has written is not known. */
		me->oom_killed = WTERMSIG(status) == SIGKILL &&
				 is_oom(me->control);
		snprintf(me->why, sizeof(me->why),
			 "a child was killed by signal %d", WTERMSIG(status));
		_exit(1);
	}
	count_up(&me->children, 1);
	return WEXITSTATUS(status);
}

static void look_and_exit(struct sharer *me, bool exec)
{
	int i;

	for (i = 0; i < 3; i++)
		check_word(me, me->addr, any(me, NR_PAGES), "in a child");
}

static void op_fork(struct sharer *me)
{
	with_child(me, look_and_exit, false);
}

/* Not by what it has from its parent: with a mapping of its own, elsewhere. */
static void write_and_end(struct sharer *me, bool exec)
{
	char *addr = me->room;
	int n, error;

	if (addr == me->addr)
		addr += pud_size();
	unmap_pud(me->addr);
	error = map_pud(me->control->fd, addr);
	if (error)
		give_up(me, "mmap in a child", error);
	for (n = 1 << any(me, END_SHIFT); n; n--)
		write_words(me, addr);
	if (!exec)
		return;
	setenv(END_AT_ONCE, "1", 1);
	execl("/proc/self/exe", "hugetlb_pmd_churn", NULL);
	_exit(NO_EXEC);
}

/* This is what it executes: nothing is left of the process but its number. */
static __attribute__((constructor)) void end_at_once(void)
{
	if (getenv(END_AT_ONCE))
		_exit(0);
}

static void op_end(struct sharer *me)
{
	bool exec = any(me, 2);
	int status = with_child(me, write_and_end, exec);

	if (status < 0)
		return;
	/* It has said why. */
	if (status && status != NO_EXEC)
		_exit(1);
	count_up(&me->execs, exec && !status);
	check_words(me, -1, "after the end of a child");
}

static const struct {
	const char *name;
	void (*fn)(struct sharer *me);
} ops[NR_OPS] = {
	{ "move_pages", op_migrate },
	{ "remap", op_remap },
	{ "madvise", op_dontneed },
	{ "munmap", op_munmap_part },
	{ "fork", op_fork },
	{ "mprotect", op_mprotect },
	{ "fallocate", op_punch },
	{ "end", op_end },
};

static void operate(struct sharer *me)
{
	int op;

	do {
		op = any(me, NR_OPS);
	} while (!(me->control->variant->ops & 1 << op));
	me->doing = ops[op].name;
	ops[op].fn(me);
	me->doing = NULL;
}

static void become_nobody(struct sharer *me)
{
	if (setgroups(0, NULL) || setresgid(NOBODY, NOBODY, NOBODY) ||
	    setresuid(NOBODY, NOBODY, NOBODY))
		give_up(me, "setresuid", errno);
}

static __noreturn void sharer_main(struct sharer *me, pid_t parent)
{
	struct control *control = me->control;
	bool busy = me->nr < control->variant->sharers -
			     control->variant->writers;
	unsigned int tries, n;

	if (control->variant->user)
		become_nobody(me);
	/* After that: a change of the user undoes it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	signal(SIGALRM, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	pin_to_cpu(me->cpu);
	me->random = (control->seed + 1ull) * (2 * me->nr + 1) *
		     0x9e3779b97f4a7c15ull ?: 1;

	wait_for_change(&control->phase, 0);
	/* A fault that has nothing to do with this may be counted too. */
	for (tries = 0; tries < TRIES && me->faults != 1; tries++) {
		if (tries)
			unmap_pud(me->addr);
		me->addr = me->room + tries * pud_size();
		map_anew(me);
		me->faults = touch_pages(me->addr, NR_PAGES);
	}
	set_and_wake(&me->state, MAPPED);

	wait_for_change(&control->phase, MAP);
	while (phase_of(control) == RUN) {
		for (n = 1u << any(me, WRITES_SHIFT);
		     n && phase_of(control) == RUN; n--)
			write_words(me, me->addr);
		if (busy)
			operate(me);
		count_up(&me->rounds, 1);
	}
	set_and_wake(&me->state, STOPPED);
	_exit(0);
}

/* What the test does. */

/* Pages of both nodes' pools that are in use, less those that the file has. */
static long pool_missing(const struct control *control)
{
	long used = 0;
	struct stat st;
	int i;

	for (i = 0; i < 2; i++)
		used += pool_used(control->nodes[i]);
	if (fstat(control->fd, &st))
		return 0;
	return used - st.st_blocks * 512 / (long)pmd_size();
}

/*
 * The same, beyond what was missing before the sharers began. Where somebody else
 * has huge pages too, theirs come and go, and nothing can be told: 0. And what is
 * only late is there a little later.
 */
static long missing_for_good(const struct control *control)
{
	uint64_t start = cycles_clock();
	long missing;

	do {
		missing = pool_missing(control) - control->missing;
		if (!missing)
			return 0;
		if (control->pool_was_shared || pool_is_shared()) {
			ksft_print_msg("others have huge pages: none can be called missing\n");
			return 0;
		}
		usleep(100 * 1000);
	} while (ms_since(start) < LATE_MS);
	return missing;
}

/* Shares nothing: not aligned to a PUD. Behind the mappings of all sharers. */
static char *view_addr(FIXTURE_DATA(hugetlb_pmd_churn) * self)
{
	return self->area + self->area_size - 2 * pud_size() + pmd_size();
}

/* Whether sharer @i is gone. If it did not end as it should, say so. */
static bool is_gone(FIXTURE_DATA(hugetlb_pmd_churn) * self, int i)
{
	const struct sharer *s = &self->control->sharers[i];
	int status = 0;

	if (self->pids[i] <= 0)
		return true;
	if (waitpid(self->pids[i], &status, WNOHANG) != self->pids[i])
		return false;
	self->pids[i] = 0;
	/* No more of one who was stuck, and has been killed. */
	if ((!status && s->state == STOPPED) || self->bad & 1 << i)
		return true;
	self->bad |= 1 << i;
	if (s->oom_killed || (WIFSIGNALED(status) &&
			      WTERMSIG(status) == SIGKILL &&
			      is_oom(self->control)))
		self->oom_killed |= 1 << i;
	ksft_print_msg("sharer %d died: status 0x%x, %s, operation: %s\n", i,
		       status, WIFSIGNALED(status) ?
		       strsignal(WTERMSIG(status)) : s->why,
		       s->doing ? s->doing : "none");
	return true;
}

static void tell_stuck(FIXTURE_DATA(hugetlb_pmd_churn) * self, int i)
{
	const struct sharer *s = &self->control->sharers[i];
	pid_t pids[] = { self->pids[i], s->child };
	int k;

	self->stuck = true;
	self->bad |= 1 << i;
	ksft_print_msg("sharer %d is stuck in round %lu, operation: %s\n", i,
		       s->rounds, s->doing ? s->doing : "none");
	if (self->control->moves_for_user)
		ksft_print_msg("root has moved %ld pages for the user\n",
			       self->control->moves_for_user);
	for (k = 0; k < 2 && pids[k] > 0; k++)
		tell_where(pids[k]);
}

/* Returns whether they all are, in the end. */
static bool wait_until_gone(FIXTURE_DATA(hugetlb_pmd_churn) * self)
{
	struct wait_limit limit = {};
	int i, left;

	do {
		usleep(10 * 1000);
		for (i = 0, left = 0; i < MAX_SHARERS; i++)
			left += !is_gone(self, i);
	} while (left && within_limit(&limit, self->pids, MAX_SHARERS,
				      STEP_TIMEOUT_MS));
	return !left;
}

static void stop_sharers(FIXTURE_DATA(hugetlb_pmd_churn) * self)
{
	int i;

	set_and_wake(&self->control->phase, STOP);
	if (wait_until_gone(self))
		return;
	for (i = 0; i < MAX_SHARERS; i++) {
		if (is_gone(self, i))
			continue;
		tell_stuck(self, i);
		kill(self->pids[i], SIGKILL);
	}
	if (!wait_until_gone(self))
		ksft_print_msg("there are sharers that cannot be killed\n");
}

static bool all_mapped(const struct control *control)
{
	int i;

	for (i = 0; i < control->variant->sharers; i++)
		if (!__atomic_load_n(&control->sharers[i].state,
				     __ATOMIC_ACQUIRE))
			return false;
	return true;
}

/*
 * A kernel may refuse an ordinary user to move what others have mapped, as it
 * should. Pages move all the same where an administrator or the kernel wants it
 * so. Where the sharers move less than a page a second, and one of them has just
 * been refused to, root moves a page in its place. If they are all stuck, nobody
 * is refused: whoever calls move_pages() then is stuck too.
 */
static void move_for_user(FIXTURE_DATA(hugetlb_pmd_churn) * self)
{
	struct control *control = self->control;
	int sharers = control->variant->sharers;
	int i = control->calls_for_user % sharers;
	const struct sharer *s = &control->sharers[i];
	int node, was = -ENOENT, status = -ENOENT;
	unsigned long refused = 0, moves = 0;
	void *page;
	int k;

	for (k = 0; k < sharers; k++) {
		refused += counted(&control->sharers[k].refused);
		moves += counted(&control->sharers[k].moves);
	}
	if (refused == control->seen_refused || self->pids[i] <= 0 ||
	    (moves + 2) * 1000 > ms_since(control->start))
		return;
	control->seen_refused = refused;

	page = s->addr +
	       control->calls_for_user++ / sharers % NR_PAGES * pmd_size();
	move_pages(self->pids[i], 1, &page, NULL, &was, 0);
	node = control->nodes[was == control->nodes[0]];
	move_pages(self->pids[i], 1, &page, &node, &status, MPOL_MF_MOVE_ALL);
	control->moves_for_user += was >= 0 && status == node;
}

static bool offlines(const struct control *control)
{
	return control->variant->trigger == SOFT_OFFLINE;
}

/* What is soft-offlined is none of the pool any more. */
static void refill_pool(const struct control *control)
{
	long want = SPARE;
	int i;

#ifndef IN_TREE
	for (i = 0; control->keeps_poison && i < 2; i++)
		want += counted(&control->sharers[i].calls);
#endif
	for (i = 0; i < 2; i++)
		pool_fill(control->nodes[i], want);
}

#ifndef IN_TREE
/* Up to 4.12 it stays there, free and of no use. */
static bool kernel_keeps_poison(void)
{
	unsigned int major, minor;
	struct utsname name;

	return !uname(&name) &&
	       sscanf(name.release, "%u.%u", &major, &minor) == 2 &&
	       (major < 4 || (major == 4 && minor < 13));
}
#endif

/* In phase MAP until all did, in RUN for a time; or until one is bad. */
static void watch_sharers(FIXTURE_DATA(hugetlb_pmd_churn) * self, long ms)
{
	const struct control *control = self->control;
	struct wait_limit limits[MAX_SHARERS] = {};
	unsigned long rounds[MAX_SHARERS] = {};
	unsigned long start = cycles_clock(), now;
	int i;

	while (!self->bad && !(control->phase == MAP ? all_mapped(control) :
			       ms_since(start) >= ms)) {
		usleep(10 * 1000);
		for (i = 0; i < MAX_SHARERS; i++) {
			if (is_gone(self, i))
				continue;
			now = counted(&control->sharers[i].rounds);
			if (now != rounds[i])
				limits[i] = (struct wait_limit){};
			/* It may wait for another, and that one for a CPU. */
			if (!within_limit(&limits[i], self->pids, MAX_SHARERS,
					  STEP_TIMEOUT_MS))
				tell_stuck(self, i);
			rounds[i] = now;
		}
		if (control->phase == RUN && control->variant->user &&
		    control->variant->ops == SPLIT_OPS)
			move_for_user(self);
		if (control->phase == RUN && offlines(control))
			refill_pool(control);
	}
}

/* Whether what the sharers have done so far is evidence, if nothing is lost. */
static bool did_enough(const struct control *control)
{
	bool migrates = control->variant->ops & MIGRATE;
	long moves = 0;
	int i;

	for (i = 0; i < control->variant->sharers; i++) {
		const struct sharer *s = &control->sharers[i];

		if (counted(&s->rounds) < ENOUGH_ROUNDS)
			return false;
		moves += counted(migrates ? &s->moves : &s->protects);
	}
	return moves >= ENOUGH_MOVES;
}

FIXTURE_SETUP(hugetlb_pmd_churn)
{
	int i, puds, nr_cpus = 0, cpus[CPU_SETSIZE], nodes[2];
	struct control *control;
	pid_t parent;
	const char *why;

	if (geteuid())
		SKIP(return,
		     "needs root, for MPOL_MF_MOVE_ALL and the huge page pool");
	why = churn_lacks("may crash a kernel that has the defect");
	if (why)
		SKIP(return, "%s", why);
	if (variant->trigger == SOFT_OFFLINE &&
	    !env_long("HUGETLB_PMD_MIGRATE_OFFLINE", 0))
		SKIP(return, "soft-offlines pages: HUGETLB_PMD_MIGRATE_OFFLINE=1 allows it");
	nr_cpus = cpu_list(cpus, ARRAY_SIZE(cpus));
	if (nr_cpus < 2)
		SKIP(return, "needs two CPUs");
	/* Pages go both ways: each node has room for all of them. */
	why = nodes_lack(nodes, 2, cpus[0]) ?:
	      guard_lacks() ?:
	      pool_lacks(nodes, 2, NR_PAGES + SPARE);
	if (!why && variant->trigger == SOFT_OFFLINE)
		why = unpoison_lacks();
	if (why)
		SKIP(return, "%s", why);

	control = share_memory(sizeof(*control));
	ASSERT_NE(NULL, control);
	self->control = control;
	control->variant = variant;
	control->nodes[0] = nodes[0];
	control->nodes[1] = nodes[1];
	control->oom_kills = vm_event("oom_kill");
#ifndef IN_TREE
	control->keeps_poison = kernel_keeps_poison();
#endif
	control->seed = env_long("HUGETLB_PMD_CHURN_SEED",
				 time(NULL) + getpid());
	why = file_lacks(&control->fd, pud_size());
	if (why)
		SKIP(return, "%s", why);
	puds = 1 + variant->sharers * TRIES + 2;
	self->area_size = puds * pud_size();
	why = area_lacks(&self->area, puds);
	if (why)
		SKIP(return, "%s", why);

	if (variant->ops == (MIGRATE | DONTNEED)) {
		ASSERT_EQ(0, map_pud(control->fd, self->area));
		if (madvise(self->area, pud_size(), MADV_DONTNEED))
			SKIP(return,
			     "no MADV_DONTNEED of huge pages on this kernel (since 5.18)");
		unmap_pud(self->area);
	}

	/* Before anything is mapped here: they must not inherit it. */
	parent = getpid();
	for (i = 0; i < variant->sharers; i++) {
		struct sharer *s = &control->sharers[i];

		s->control = control;
		s->nr = i;
		s->cpu = cpus[i % nr_cpus];
		s->room = self->area + (1 + i * TRIES) * pud_size();
		self->pids[i] = fork();
		ASSERT_GE(self->pids[i], 0);
		if (!self->pids[i])
			sharer_main(s, parent);
	}

	control->pool_was_shared = pool_is_shared();
	control->missing = pool_missing(control);
	ASSERT_EQ(0, map_pud(control->fd, self->area));
	for (i = 0; i < NR_PAGES; i++)
		__atomic_store_n(self->area + i * pmd_size(), 0,
				 __ATOMIC_RELAXED);
}

FIXTURE_TEARDOWN(hugetlb_pmd_churn)
{
	const char *why;

	stop_sharers(self);
	/* Whoever is stuck may have a lock of the file, for ever. */
	if (!self->stuck)
		munmap(self->area, self->area_size);
	/* Huge pages in use would stay in the pool. */
	close(self->control->fd);
	/* The guardian must not wait for those who are stuck. */
	why = guard_end(!self->stuck);
	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
}

static long seconds_of(const FIXTURE_VARIANT(hugetlb_pmd_churn) * variant)
{
	if (variant->ops == SPLIT_OPS && variant->user)
		return USER_SECONDS;
	return variant->ops == MIGRATE || variant->ops == SPLIT_OPS ||
	       variant->ops & PUNCH ? LONG_SECONDS : SECONDS;
}

TEST_F_TIMEOUT(hugetlb_pmd_churn, lost_write, 600)
{
	long seconds = env_count("HUGETLB_PMD_CHURN_SECONDS",
				 seconds_of(variant));
	struct control *control = self->control;
	long calls = 0, failed_calls = 0, moves = 0, refused = 0, lost = 0;
	long holes = 0, children = 0, no_children = 0, execs = 0, missing;
	unsigned long rounds = 0, fewest = ULONG_MAX;
	bool migrates = variant->ops & MIGRATE;
	char *view = view_addr(self);
	int i, page;

	set_and_wake(&control->phase, MAP);
	watch_sharers(self, 0);
	if (self->bad && self->bad == self->oom_killed)
		SKIP(return, OOM_KILLED);
	ASSERT_EQ(0, self->bad);
	for (i = 0; i < variant->sharers; i++)
		if (control->sharers[i].faults != 1)
			SKIP(return, "%s",
			     not_shared(control->sharers[i].faults, NR_PAGES));
	/* One more who has the table, and keeps it, would hide much. */
	unmap_pud(self->area);

	control->start = cycles_clock();
	set_and_wake(&control->phase, RUN);
	seconds = MIN(seconds, MAX_SECONDS);
	/*
	 * A slow machine gets three times as long to come to what is evidence.
	 * An ordinary user may be refused to move anything.
	 */
	for (i = 0; i < 3 && (i + 1) * seconds <= MAX_SECONDS; i++) {
		watch_sharers(self, 1000 * seconds);
		if (self->bad || variant->user || did_enough(control))
			break;
	}
	stop_sharers(self);

	/* Whoever is stuck may have a lock of the file, for ever. */
	if (!self->stuck)
		ASSERT_EQ(0, map_pud(control->fd, view));
	for (i = 0; i < variant->sharers; i++) {
		struct sharer *s = &control->sharers[i];
		bool look = !self->stuck && s->state == STOPPED;

		for (page = 0; page < NR_PAGES && look; page++)
			check_word(s, view, page, "at the end");
		lost += counted(&s->lost);
		rounds += counted(&s->rounds);
		fewest = MIN(fewest, counted(&s->rounds));
		refused += counted(&s->refused);
		failed_calls += counted(&s->failed_calls);
		calls += counted(migrates ? &s->calls : &s->protects);
		moves += counted(migrates ? &s->moves : &s->protects);
		holes += counted(&s->holes);
		children += counted(&s->children);
		no_children += counted(&s->no_children);
		execs += counted(&s->execs);
	}
	calls += control->calls_for_user;
	moves += control->moves_for_user;
	/* Soft offlining is to take pages out of the pool. */
	missing = self->stuck || offlines(control) ? 0 :
		  missing_for_good(control);

	ksft_print_msg("hugetlb_pmd_churn: trigger=%s sharers=%d control=no",
		       variant->name, variant->sharers);
	printf(" calls=%ld failed_calls=%ld migrations=%ld lost_migrations=%ld",
	       calls, failed_calls, moves, MIN(lost, moves));
	printf(" first_ms=%ld rounds=%lu holes=%ld for_user=%ld seed=%u",
	       control->first_ms, rounds, holes, control->moves_for_user,
	       control->seed);
	printf(" children=%ld no_children=%ld execs=%ld\n", children,
	       no_children, execs);

	EXPECT_EQ(0, lost)
		TH_LOG("%ld writes lost, the first after %ld ms: %s", lost,
		       control->first_ms, control->first);
	if (!lost && self->bad && self->bad == self->oom_killed)
		SKIP(return, OOM_KILLED);
	EXPECT_EQ(0, self->bad)
		TH_LOG("sharers died or were stuck: mask 0x%x", self->bad);
	if (lost || self->bad)
		return;
	EXPECT_EQ(0, missing)
		TH_LOG("%ld pages are missing in the pool", missing);
	if (missing)
		return;
	/* They move one now and then that nobody else has mapped. */
	if (moves < ENOUGH_MOVES && refused)
		SKIP(return, "an ordinary user may not move them here");
	if (moves < ENOUGH_MOVES || fewest < ENOUGH_ROUNDS)
		SKIP(return,
		     "inconclusive: %ld %s, %lu rounds of the slowest sharer",
		     moves, migrates ? "moves" : "calls", fewest);
	if (variant->ops & (FORK | END) && children < ENOUGH_CHILDREN)
		SKIP(return, "inconclusive: %ld children, and %ld that could not be forked",
		     children, no_children);
	if (variant->ops & END && !execs)
		SKIP(return, "inconclusive: none of %ld children could exec",
		     children);
}

TEST_HARNESS_MAIN
