// SPDX-License-Identifier: GPL-2.0
/*
 * Are those who share page tables with a CPU told of everything, in time, and
 * of no more, when a hugetlb page is migrated or given up?
 *
 * A device that walks the page tables of a process (see
 * hugetlb_pmd_migrate.c for how hugetlb shares those of several) has a TLB of its
 * own, and KVM and others keep copies of what they found. The kernel tells them
 * by MMU notifiers. When it unshares a PMD table, the process loses all that the
 * table maps, so everybody has to be told of the range of a whole PUD, and
 * before the page is copied; but where nothing can be shared, of no more than
 * the page.
 *
 * lib/test_mmu_notifier.c keeps a record of the calls, with what the page table
 * has at that moment and, by a number that it leaves in the page, whether the
 * page was copied yet. One round of the test is
 *
 *	map	each sharer, a process of its own: one fault for all pages is
 *		the proof of a shared table
 *	watch	the page, in each: the record begins
 *	do	the first sharer: the operation under test
 *	check	the record of each sharer against the rules, which are in
 *		migrate_notifier.h
 *
 * Environment:
 *	HUGETLB_PMD_NOTIFIER_ROUNDS=n	how often
 *	HUGETLB_PMD_NOTIFIER_TELL=1	print every record
 *	HUGETLB_PMD_MIGRATE_OFFLINE=1	offline memory too, which only the lab's
 *					guest has to spare
 */
#include "kselftest_harness.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <numa.h>
#include <numaif.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_memory.h"
#include "migrate_notifier.h"
#include "migrate_page.h"
#include "migrate_util.h"
#include "vm_util.h"

#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif

#define DEVICE		"/dev/test_mmu_notifier"
#define MAX_SHARERS	3
#define NR_PAGES	4	/* populated in the PUD that matters */
#define ROUNDS		4
#define MIN_MOVES	2	/* fewer are no evidence */
#define REPLY_MS	20000
#define TEST_MS		20000	/* no round begins later */
/* Of the file, and of a mapping: what lies around the PUD that matters. */
#define NR_PUDS		3

enum trigger {
	MOVE_PAGES, MIGRATE_PAGES, MBIND, SOFT_OFFLINE,
	MUNMAP, MPROTECT, PUNCH_HOLE,
};

static const char * const trigger_name[] = {
	"move_pages", "migrate_pages", "mbind", "soft_offline",
	"munmap", "mprotect", "punch_hole",
};

enum layout {
	SHARED,		/* a PUD, and all of it */
	BETWEEN,	/* from within the PUD before to within the one after */
	TWO,		/* two PUDs, and all of both */
	UNALIGNED,	/* as big, but not where a table could be shared */
	PRIVATE,
};

static const char * const layout_name[] = {
	"shared", "between", "two", "unaligned", "private",
};

enum step { STEP_MAP = 1, STEP_WATCH, STEP_TRIGGER, STEP_UNMAP };

/* To a sharer, and back. */
struct message {
	enum step step;
	int page;		/* that it is about, see page_offset() */
	int node;		/* where it is to go, and is */
	int other;		/* where it is */
	uint64_t pfn;
	uint32_t flags;		/* of TEST_MMU_NOTIFIER_RECORD */
	long faults;
	int error;
};

struct sharer {
	pid_t pid;
	int to, from;		/* pipes */
	int device;
	char *addr;		/* where its file begins, mapped or not */
};

FIXTURE(hugetlb_pmd_notifier)
{
	struct sharer sharers[MAX_SHARERS];
	struct crew crew;
	int nr;			/* of sharers */
	int pages;		/* that are given up */
	char *area;
	size_t area_size;
	int fd;
	int nodes[2];
	int cpus[CPU_SETSIZE];
	int nr_cpus;
	bool sees_atomic;
	struct event_list *events;
	struct verdict verdict;
	bool widened;		/* more is to be told than of the page */
	long nr_events;
};

FIXTURE_VARIANT(hugetlb_pmd_notifier)
{
	enum trigger trigger;
	enum layout layout;
	int sharers;	/* 2 if it does not say */
	int page;	/* the first; those from 0 on are in the PUD */
	int pages;	/* that are given up, from @page on; 1 likewise */
};

/*
 * The first page of a table and one in the middle of it: huge_pmd_unshare() of
 * old kernels changes the caller's address to one from which its loop goes on.
 */
FIXTURE_VARIANT_ADD(hugetlb_pmd_notifier, move_pages_first) {
	.trigger = MOVE_PAGES, .sharers = 3 };
FIXTURE_VARIANT_ADD(hugetlb_pmd_notifier, move_pages_middle) {
	.trigger = MOVE_PAGES, .page = 2, .sharers = 3 };
FIXTURE_VARIANT_ADD(hugetlb_pmd_notifier, move_pages_2) {
	.trigger = MOVE_PAGES, .page = 1 };
FIXTURE_VARIANT_ADD(hugetlb_pmd_notifier, migrate_pages) {
	.trigger = MIGRATE_PAGES };
FIXTURE_VARIANT_ADD(hugetlb_pmd_notifier, mbind) {
	.trigger = MBIND };
FIXTURE_VARIANT_ADD(hugetlb_pmd_notifier, soft_offline) {
	.trigger = SOFT_OFFLINE, .page = 2 };
/*
 * A mapping that reaches beyond the PUD: its pages there are in tables that
 * nobody can share.
 */
FIXTURE_VARIANT_ADD(hugetlb_pmd_notifier, between_whole) {
	.trigger = MOVE_PAGES, .layout = BETWEEN, .page = 1, .sharers = 3 };
FIXTURE_VARIANT_ADD(hugetlb_pmd_notifier, between_before) {
	.trigger = MOVE_PAGES, .layout = BETWEEN, .page = -1 };
FIXTURE_VARIANT_ADD(hugetlb_pmd_notifier, between_after) {
	.trigger = MOVE_PAGES, .layout = BETWEEN, .page = 512 };
FIXTURE_VARIANT_ADD(hugetlb_pmd_notifier, munmap) {
	.trigger = MUNMAP };
FIXTURE_VARIANT_ADD(hugetlb_pmd_notifier, munmap_middle) {
	.trigger = MUNMAP, .page = 1 };
FIXTURE_VARIANT_ADD(hugetlb_pmd_notifier, mprotect) {
	.trigger = MPROTECT, .page = 1 };
FIXTURE_VARIANT_ADD(hugetlb_pmd_notifier, punch_hole) {
	.trigger = PUNCH_HOLE, .page = 1 };
/*
 * From the middle of one PUD to the middle of the next; and over the edge of the
 * only one that is whole.
 */
FIXTURE_VARIANT_ADD(hugetlb_pmd_notifier, punch_hole_across) {
	.trigger = PUNCH_HOLE, .layout = TWO, .page = 2, .pages = 512 };
FIXTURE_VARIANT_ADD(hugetlb_pmd_notifier, punch_hole_before) {
	.trigger = PUNCH_HOLE, .layout = BETWEEN, .page = -1, .pages = 3 };
FIXTURE_VARIANT_ADD(hugetlb_pmd_notifier, punch_hole_after) {
	.trigger = PUNCH_HOLE, .layout = BETWEEN, .page = 510, .pages = 3 };
FIXTURE_VARIANT_ADD(hugetlb_pmd_notifier, unaligned) {
	.trigger = MOVE_PAGES, .layout = UNALIGNED, .page = 1 };
FIXTURE_VARIANT_ADD(hugetlb_pmd_notifier, unaligned_punch_hole) {
	.trigger = PUNCH_HOLE, .layout = UNALIGNED, .page = 1 };
FIXTURE_VARIANT_ADD(hugetlb_pmd_notifier, private) {
	.trigger = MOVE_PAGES, .layout = PRIVATE, .page = 1, .sharers = 1 };

static bool moves_pages(enum trigger trigger)
{
	return trigger <= SOFT_OFFLINE;
}

/* Of a page, in the file and from where the file would be mapped whole. */
static size_t page_offset(int page)
{
	return pud_size() + page * pmd_size();
}

/* What of the file is mapped. */
static void mapped_range(enum layout layout, size_t *start, size_t *end)
{
	*start = pud_size();
	*end = (layout == TWO ? 3 : 2) * pud_size();
	if (layout == BETWEEN) {
		*start -= 2 * pmd_size();
		*end += 2 * pmd_size();
	}
}

/*
 * What is to be told of a range: with it each PUD that it touches, if the mapping
 * has all of it, for only then may its table be shared.
 */
static void range_to_tell(enum layout layout, uint64_t base, uint64_t *start,
			  uint64_t *end)
{
	uint64_t first = *start, last = *end, pud;
	size_t map_start, map_end;

	if (layout == PRIVATE)
		return;
	mapped_range(layout, &map_start, &map_end);
	for (pud = first / pud_size() * pud_size(); pud < last;
	     pud += pud_size()) {
		if (pud < base + map_start || pud + pud_size() > base + map_end)
			continue;
		*start = pud < *start ? pud : *start;
		*end = pud + pud_size() > *end ? pud + pud_size() : *end;
	}
}

/* Where in its page a sharer's numbers go. */
static size_t stamp_offset(int sharer)
{
	return (sharer + 1) * TEST_MMU_NOTIFIER_BYTES;
}

static int map_file(int fd, char *addr, size_t start, size_t end, int flags)
{
	return mmap(addr + start, end - start, PROT_READ | PROT_WRITE,
		    MAP_FIXED | MAP_NORESERVE | flags, fd, start) ==
	       MAP_FAILED ? errno : 0;
}

static void unmap_file(char *addr, size_t start, size_t end)
{
	mmap(addr + start, end - start, PROT_NONE,
	     MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

/* A sharer. */

static int sharer_map(int fd, char *addr, enum layout layout,
		      struct message *m)
{
	size_t start, end;
	int ret, i;

	mapped_range(layout, &start, &end);
	ret = map_file(fd, addr, start, end,
		       layout == PRIVATE ? MAP_PRIVATE : MAP_SHARED);
	if (ret)
		return ret;
	/* Where the page is, in the others only when it is looked at. */
	m->faults = touch_pages(addr + pud_size(), NR_PAGES);
	if (layout == TWO)
		m->faults += touch_pages(addr + 2 * pud_size(), NR_PAGES);
	if (layout == BETWEEN)
		for (i = -1; i <= 512; i += 513)
			touch_pages(addr + page_offset(i), 1);
	if (layout == PRIVATE)
		for (i = 0; i < NR_PAGES; i++)
			addr[page_offset(i)] = 1;
	return 0;
}

static int sharer_watch(int device, char *addr, int nr, struct message *m)
{
	struct test_mmu_notifier_watch watch = {
		.address = (uintptr_t)addr + page_offset(m->page) +
			   stamp_offset(nr),
	};

	if (ioctl(device, TEST_MMU_NOTIFIER_WATCH, &watch))
		return errno;
	m->pfn = watch.pfn - stamp_offset(nr) / TEST_MMU_NOTIFIER_BYTES;
	m->other = page_node(0, addr + page_offset(m->page));
	return 0;
}

static int do_trigger(int fd, char *addr, enum trigger trigger, int pages,
		      struct message *m)
{
	size_t offset = page_offset(m->page), size = pages * pmd_size();
	void *page = addr + offset;
	int status = 0;
	long ret = 0;

	switch (trigger) {
	case MOVE_PAGES:
		ret = move_pages(0, 1, &page, &m->node, &status,
				 MPOL_MF_MOVE_ALL);
		break;
	case MIGRATE_PAGES:
		ret = migrate_node(0, m->other, m->node);
		break;
	case MBIND:
		/* All of it: for a part it would be split, which may unshare. */
		ret = bind_range(addr + pud_size(), pud_size(), m->node,
				 MPOL_MF_MOVE_ALL);
		break;
	case SOFT_OFFLINE:
		ret = madvise(page, pmd_size(), MADV_SOFT_OFFLINE);
		break;
	case MUNMAP:
		ret = munmap(page, size);
		break;
	case MPROTECT:
		ret = mprotect(page, size, PROT_READ);
		break;
	case PUNCH_HOLE:
		ret = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				offset, size);
		break;
	}
	/* Above 0: pages that stayed. */
	return ret < 0 ? errno : 0;
}

static __noreturn void
sharer_main(FIXTURE_DATA(hugetlb_pmd_notifier) * self,
	    const FIXTURE_VARIANT(hugetlb_pmd_notifier) * variant, int nr,
	    int from, int to)
{
	struct sharer *me = &self->sharers[nr];
	struct test_mmu_notifier_record how = {
		.address = (uintptr_t)self->area,
		.bytes = self->area_size,
		.nr_events = MAX_EVENTS,
	};
	struct message m;
	size_t start, end;

	/* The kernel asks for it by page frame, and may send a signal. */
	signal(SIGBUS, SIG_DFL);
	pin_to_cpu(self->cpus[nr % self->nr_cpus]);
	mapped_range(variant->layout, &start, &end);

	memset(&m, 0, sizeof(m));
	if (ioctl(me->device, TEST_MMU_NOTIFIER_RECORD, &how))
		m.error = errno;
	m.flags = how.flags;
	do {
		if (write(to, &m, sizeof(m)) != sizeof(m))
			_exit(1);
		if (read(from, &m, sizeof(m)) != sizeof(m))
			_exit(0);
		m.error = 0;
		switch (m.step) {
		case STEP_MAP:
			m.error = sharer_map(self->fd, me->addr,
					     variant->layout, &m);
			break;
		case STEP_WATCH:
			m.error = sharer_watch(me->device, me->addr, nr, &m);
			break;
		case STEP_TRIGGER:
			m.error = do_trigger(self->fd, me->addr,
					     variant->trigger, self->pages,
					     &m);
			break;
		case STEP_UNMAP:
			unmap_file(me->addr, start, end);
			break;
		}
	} while (1);
}

/* The test. */

static bool get_reply(struct sharer *s, struct message *m)
{
	struct pollfd wait = { .fd = s->from, .events = POLLIN };
	struct wait_limit limit = {};
	int ready;

	do {
		ready = poll(&wait, 1, 100);
	} while (!ready && within_limit(&limit, &s->pid, 1, REPLY_MS));
	if (ready == 1 &&
	    read(s->from, m, sizeof(*m)) == sizeof(*m))
		return true;
	ksft_print_msg("pid %d %s\n", s->pid, wait.revents & POLLIN ?
		       "is gone" : "does not answer");
	return false;
}

/* Returns whether the sharer did it; @m is what it says. */
static bool ask(struct sharer *s, enum step next, struct message *m)
{
	m->step = next;
	if (write(s->to, m, sizeof(*m)) != sizeof(*m) || !get_reply(s, m))
		return false;
	if (m->error)
		ksft_print_msg("pid %d cannot do step %d: %s\n", s->pid, next,
			       strerror(m->error));
	return !m->error;
}

static bool read_events(struct sharer *s, struct event_list *list)
{
	ssize_t got = read(s->device, list->at, sizeof(list->at));

	list->nr = got < 0 ? 0 : got / sizeof(list->at[0]);
	if (got < 0 || list->nr == MAX_EVENTS)
		ksft_print_msg("the record of pid %d is not whole: %s\n", s->pid,
			       got < 0 ? strerror(errno) : "too many events");
	return got >= 0 && list->nr < MAX_EVENTS;
}

/* Shares nothing, and is behind the mappings of all sharers. */
static char *view_addr(FIXTURE_DATA(hugetlb_pmd_notifier) * self)
{
	return self->area + MAX_SHARERS * (NR_PUDS + 1) * pud_size() +
	       pmd_size();
}

FIXTURE_SETUP(hugetlb_pmd_notifier)
{
	pid_t pid;
	const char *why;
	struct message m;
	int i, there[2], back[2], nr_nodes = 2;

	self->fd = -1;
	self->nr = variant->sharers ?: 2;
	self->pages = variant->pages ?: 1;
	for (i = 0; i < MAX_SHARERS; i++) {
		self->sharers[i].device = -1;
		self->sharers[i].to = -1;
		self->sharers[i].from = -1;
	}
	if (geteuid())
		SKIP(return, "needs root, for MPOL_MF_MOVE_ALL and page frame numbers");
	if (access(DEVICE, F_OK))
		SKIP(return, "needs lib/test_mmu_notifier.c in the kernel");
	if (variant->trigger == SOFT_OFFLINE &&
	    !env_long("HUGETLB_PMD_MIGRATE_OFFLINE", 0))
		SKIP(return, "takes memory offline: HUGETLB_PMD_MIGRATE_OFFLINE=1 allows it");
	why = variant->trigger == SOFT_OFFLINE ? unpoison_lacks() : NULL;
	if (why)
		SKIP(return, "%s", why);
	if (pud_size() != 512 * pmd_size())
		SKIP(return, "needs base pages of 4 KiB");
	self->nr_cpus = cpu_list(self->cpus, ARRAY_SIZE(self->cpus));
	ASSERT_LT(0, self->nr_cpus);
	why = nodes_lack(self->nodes, 2, self->cpus[0]);
	/* One is enough where pages go nowhere, or to any other frame. */
	if (why && (!moves_pages(variant->trigger) ||
		    variant->trigger == SOFT_OFFLINE)) {
		nr_nodes = 1;
		why = nodes_lack(self->nodes, 1, self->cpus[0]);
		self->nodes[1] = self->nodes[0];
	}
	if (why)
		SKIP(return, "%s", why);

	/* First, or the guardian would have the devices open. */
	why = guard_lacks() ?:
	      pool_lacks(self->nodes, nr_nodes, 3 * NR_PAGES) ?:
	      file_lacks(&self->fd, NR_PUDS * pud_size() + pmd_size());
	if (why)
		SKIP(return, "%s", why);
	/* A PUD more for each, so that a file can begin within one. */
	self->area_size = (MAX_SHARERS + 1) * (NR_PUDS + 1) * pud_size();
	why = area_lacks(&self->area, self->area_size / pud_size());
	if (why)
		SKIP(return, "%s", why);
	self->events = mmap(NULL, sizeof(*self->events), PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->events);
	self->verdict.examples = EXAMPLES;

	for (i = 0; i < self->nr; i++) {
		struct sharer *s = &self->sharers[i];

		s->addr = self->area + i * (NR_PUDS + 1) * pud_size() +
			  (variant->layout == UNALIGNED ? pmd_size() : 0);
		s->device = open(DEVICE, O_RDWR | O_CLOEXEC);
		ASSERT_GE(s->device, 0);
		ASSERT_EQ(0, pipe(there));
		ASSERT_EQ(0, pipe(back));
		s->to = there[1];
		s->from = back[0];
		pid = crew_fork(&self->crew);
		ASSERT_GE(pid, 0);
		if (!pid)
			sharer_main(self, variant, i, there[0], back[1]);
		close(there[0]);
		close(back[1]);
		s->pid = pid;
		ASSERT_TRUE(get_reply(s, &m));
		ASSERT_EQ(0, m.error)
			TH_LOG("nothing can be recorded: %s", strerror(m.error));
		self->sees_atomic = m.flags & TEST_MMU_NOTIFIER_SEES_ATOMIC;
	}
}

FIXTURE_TEARDOWN(hugetlb_pmd_notifier)
{
	int i;

	crew_kill(&self->crew, REPLY_MS);
	for (i = 0; i < MAX_SHARERS; i++) {
		struct sharer *s = &self->sharers[i];

		if (s->to >= 0)
			close(s->to);
		if (s->from >= 0)
			close(s->from);
		if (s->device >= 0)
			close(s->device);
	}
	if (self->area)
		munmap(self->area, self->area_size);
	/* Huge pages in use would stay in the pool. */
	if (self->fd >= 0)
		close(self->fd);
	guard_stop();
}

/*
 * Each sharer maps the file anew, one after the other:
 *
 *	sharer 0	PUD entry -> [0|1|2|3]	faults as it likes
 *	sharer 1	PUD entry -> the same	1 fault: the table is shared
 *
 * Returns false if the test has skipped, as no table is shared.
 */
static bool map_all(struct __test_metadata *_metadata,
		    FIXTURE_DATA(hugetlb_pmd_notifier) * self,
		    const FIXTURE_VARIANT(hugetlb_pmd_notifier) * variant,
		    struct message *said)
{
	/* That a sharer takes who finds the tables of another. */
	long faults = variant->layout == TWO ? 2 : 1;
	bool shares = variant->layout != UNALIGNED &&
		      variant->layout != PRIVATE;
	int i, tries;

	for (i = 0; i < self->nr; i++) {
		struct sharer *s = &self->sharers[i];

		ASSERT_TRUE(ask(s, STEP_MAP, &said[i]));
		if (!shares || !i)
			continue;
		/*
		 * A fault that has nothing to do with these pages may be counted
		 * too.
		 */
		for (tries = 0; said[i].faults != faults && tries < 3;
		     tries++) {
			ASSERT_TRUE(ask(s, STEP_UNMAP, &said[i]));
			ASSERT_TRUE(ask(s, STEP_MAP, &said[i]));
		}
		if (said[i].faults != faults && !self->verdict.wrong)
			SKIP(return false,
			     "table not shared (%ld faults): needs %s",
			     said[i].faults,
			     "CONFIG_HUGETLB_PMD_PAGE_TABLE_SHARING");
	}
	return true;
}

/* The records of all begin. Returns where the page is, which all have. */
static int64_t watch_all(struct __test_metadata *_metadata,
			 FIXTURE_DATA(hugetlb_pmd_notifier) * self,
			 const FIXTURE_VARIANT(hugetlb_pmd_notifier) * variant,
			 struct message *said)
{
	int64_t pfn;
	char value[32];
	int i;

	for (i = 0; i < self->nr; i++) {
		said[i].page = variant->page;
		ASSERT_TRUE(ask(&self->sharers[i], STEP_WATCH, &said[i]));
	}
	pfn = said[0].pfn;
	ASSERT_GT(pfn, 0);
	for (i = 1; i < self->nr; i++)
		ASSERT_EQ(pfn, (int64_t)said[i].pfn);
	ASSERT_GE(said[0].other, 0);
	said[0].node = self->nodes[said[0].other == self->nodes[0]];
	if (variant->trigger == SOFT_OFFLINE) {
		snprintf(value, sizeof(value), "0x%llx",
			 (unsigned long long)pfn);
		ASSERT_EQ(0, guard_undo(UNPOISON_PFN, value));
	}
	return pfn;
}

/*
 * Hold the record of sharer @nr against the rules.
 *
 *	the page		| page |
 *	to be told		|--------- start to end ---------|
 *	the first page's PUD	|------- table to table_end -----|
 */
static void check_one(struct __test_metadata *_metadata,
		      FIXTURE_DATA(hugetlb_pmd_notifier) * self,
		      const FIXTURE_VARIANT(hugetlb_pmd_notifier) * variant,
		      int nr, bool moved)
{
	struct sharer *s = &self->sharers[nr];
	size_t page = page_offset(variant->page);
	size_t size = self->pages * pmd_size();
	bool moving = moves_pages(variant->trigger);
	uint64_t base = (uintptr_t)s->addr;
	struct check c = {
		.pid = s->pid,
		.events = self->events,
		.page = base + page,
		.page_end = base + page + size,
		.start = base + page,
		.end = base + page + size,
		.table = (base + page) / pud_size() * pud_size(),
		.moved = moving,
	};

	range_to_tell(variant->layout, base, &c.start, &c.end);
	self->widened = c.start != c.page || c.end != c.page_end;
	c.table_end = c.table + pud_size();
	if (moving && variant->layout != PRIVATE)
		c.stamps = (uint64_t *)(view_addr(self) + page +
					stamp_offset(nr));
	ASSERT_TRUE(read_events(s, self->events));
	self->nr_events += self->events->nr;
	if (env_long("HUGETLB_PMD_NOTIFIER_TELL", 0)) {
		ksft_print_msg("sharer %d:\n", nr);
		notifier_tell(&c);
	}
	/* The others may keep what only one gave up. */
	if (moving ? moved : !nr || variant->trigger == PUNCH_HOLE)
		notifier_check(&self->verdict, &c);
	else
		notifier_check_pairs(&self->verdict, &c);
}

TEST_F_TIMEOUT(hugetlb_pmd_notifier, told, 120)
{
	long rounds = env_count("HUGETLB_PMD_NOTIFIER_ROUNDS", ROUNDS);
	long calls, moves = 0, wrong_moves = 0, failed = 0, min;
	bool moving = moves_pages(variant->trigger);
	char *view = view_addr(self);
	struct message said[MAX_SHARERS];
	size_t page = page_offset(variant->page);
	uint64_t start = cycles_clock();
	int i, error = 0;

	for (calls = 0; moves < rounds && calls < 3 * rounds &&
	     ms_since(start) < TEST_MS; calls++) {
		int64_t old_pfn, new_pfn = 0;
		long wrong = self->verdict.wrong;
		bool moved;

		memset(said, 0, sizeof(said));
		if (!map_all(_metadata, self, variant, said))
			return;
		old_pfn = watch_all(_metadata, self, variant, said);
		if (!ask(&self->sharers[0], STEP_TRIGGER, &said[0])) {
			failed++;
			error = said[0].error;
			ASSERT_NE(0, error);
		}

		if (variant->layout == PRIVATE) {
			/* Nobody else has it; moved or not is all there is. */
			new_pfn = page_pfn(self->sharers[0].pid,
					   self->sharers[0].addr + page);
		} else if (moving) {
			ASSERT_EQ(0, map_file(self->fd, view, page,
					      page + pmd_size(), MAP_SHARED));
			touch_pages(view + page, 1);
			new_pfn = page_pfn(0, view + page);
		}
		moved = new_pfn > 0 && new_pfn != old_pfn;
		if (env_long("HUGETLB_PMD_NOTIFIER_TELL", 0))
			ksft_print_msg("pfn 0x%llx->0x%llx:\n",
				       (unsigned long long)old_pfn,
				       (unsigned long long)new_pfn);
		for (i = 0; i < self->nr; i++)
			check_one(_metadata, self, variant, i, moved);
		if (!moving || moved) {
			moves++;
			wrong_moves += self->verdict.wrong != wrong;
		}
		if (moving && variant->layout != PRIVATE)
			unmap_file(view, page, page + pmd_size());
		for (i = 0; i < self->nr; i++)
			ASSERT_TRUE(ask(&self->sharers[i], STEP_UNMAP,
					&said[i]));
		if (variant->trigger == SOFT_OFFLINE && moved)
			pfn_unpoison(old_pfn);
		if (error == EOPNOTSUPP || error == EINVAL)
			break;
	}

	ksft_print_msg("hugetlb_pmd_notifier: backing=hugetlbfs trigger=%s sharers=%d",
		       trigger_name[variant->trigger], self->nr);
	printf(" control=%s layout=%s page=%d calls=%ld failed_calls=%ld errno=%d",
	       self->widened ? "no" : "yes", layout_name[variant->layout],
	       variant->page, calls, failed, error);
	printf(" migrations=%ld lost_migrations=%ld events=%ld wrong=%ld sees_atomic=%s\n",
	       moves, wrong_moves, self->nr_events, self->verdict.wrong,
	       self->sees_atomic ? "yes" : "no");

	EXPECT_EQ(0, self->verdict.wrong)
		TH_LOG("the notifiers were told wrongly %ld times, in %ld of %ld migrations",
		       self->verdict.wrong, wrong_moves, moves);
	if (self->verdict.wrong)
		return;
	if (!moves && error)
		SKIP(return, "%s does not work here: %s",
		     trigger_name[variant->trigger], strerror(error));
	min = rounds < MIN_MOVES ? rounds : MIN_MOVES;
	if (moves < min)
		SKIP(return, "inconclusive: only %ld of %ld calls moved the page",
		     moves, calls);
}

TEST_HARNESS_MAIN
