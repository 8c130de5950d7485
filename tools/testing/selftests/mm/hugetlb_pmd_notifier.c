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
 *	check	the record of each sharer against the rules
 *
 * The rules, for each sharer
 *
 *	pairs	Each start has its end, by the same thread, and they nest.
 *	atomic	None of these is called with a spinlock held: they may sleep.
 *	told	There is such a pair around the moment at which the page went. (One
 *		page alone may go without.)
 *	whole	The pair has the range of the page, and if a table went with it, of
 *		every PUD whose table may be shared.
 *	narrow	And no more: where none may be, that of the page alone.
 *	tlb	In between, once the page had gone, secondary TLBs were told to
 *		drop it: if the table was unshared, the whole PUD, and not only
 *		by the end, which comes when the table may be free already.
 *	copy	All of that was before the page was copied.
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
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <lib/test_mmu_notifier_uapi.h>
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
#define MAX_EVENTS	4096
#define EXAMPLES	8
#define REPLY_MS	20000
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

struct event_list {
	struct test_mmu_notifier_event at[MAX_EVENTS];
	int nr;
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
	int examples;
	long wrong;
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

	if (poll(&wait, 1, REPLY_MS) == 1 &&
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

/* One sharer's record, and what it is to be compared with. */
struct check {
	struct sharer *sharer;
	const struct event_list *events;
	const uint64_t *stamps;	/* of the page as it is now; NULL: not copied */
	uint64_t page, page_end;	/* what is given up, or migrated */
	uint64_t start, end;		/* what is to be told of that */
	uint64_t table, table_end;	/* the first page's PUD */
	bool moved;			/* the page was */
};

static bool covers(const struct test_mmu_notifier_event *e, uint64_t start,
		   uint64_t end)
{
	return e->start <= start && e->end >= end;
}

static bool in_page_before_copy(const struct check *c,
				const struct test_mmu_notifier_event *e)
{
	if (!c->stamps)
		return true;
	return e->flags & TEST_MMU_NOTIFIER_STAMPED &&
	       c->stamps[e->nr % TEST_MMU_NOTIFIER_SLOTS] == e->nr;
}

static void tell(FIXTURE_DATA(hugetlb_pmd_notifier) * self,
		 const struct check *c)
{
	static const char * const kinds[] = { "?", "start", "end", "tlb" };
	static const char * const states[] = {
		"?", "no table", "empty", "present", "other",
	};
	int i;

	for (i = 0; i < c->events->nr; i++) {
		const struct test_mmu_notifier_event *e = &c->events->at[i];

		ksft_print_msg("  %llu: %-5s 0x%llx-0x%llx by %u, %s%s%s%s%s\n",
			       (unsigned long long)e->nr, kinds[e->kind & 3],
			       (unsigned long long)e->start,
			       (unsigned long long)e->end, e->task,
			       e->watched <= 4 ? states[e->watched] : "?",
			       e->flags & TEST_MMU_NOTIFIER_ATOMIC ?
			       ", atomic" : "",
			       e->flags & TEST_MMU_NOTIFIER_BY_END ?
			       ", by end" : "",
			       e->flags & TEST_MMU_NOTIFIER_STAMPED ?
			       ", page there" : "",
			       c->stamps && in_page_before_copy(c, e) ?
			       ", not copied" : "");
	}
}

static void complain(FIXTURE_DATA(hugetlb_pmd_notifier) * self,
		     const struct check *c, const char *rule, const char *what)
{
	self->wrong++;
	if (self->examples-- <= 0)
		return;
	ksft_print_msg("%s: %s: pid %d, page 0x%llx-0x%llx, to be told 0x%llx-0x%llx\n",
		       rule, what, c->sharer->pid, (unsigned long long)c->page,
		       (unsigned long long)c->page_end,
		       (unsigned long long)c->start,
		       (unsigned long long)c->end);
	tell(self, c);
}

/* The end that belongs to a start; -1 if there is none, or it does not nest. */
static int end_of(const struct event_list *list, int start)
{
	const struct test_mmu_notifier_event *s = &list->at[start];
	int i, depth = 0;

	for (i = start + 1; i < list->nr; i++) {
		const struct test_mmu_notifier_event *e = &list->at[i];

		if (e->task != s->task)
			continue;
		if (e->kind == TEST_MMU_NOTIFIER_RANGE_START)
			depth++;
		if (e->kind != TEST_MMU_NOTIFIER_RANGE_END)
			continue;
		if (depth--)
			continue;
		return e->start == s->start && e->end == s->end ? i : -1;
	}
	return -1;
}

static void check_pairs(FIXTURE_DATA(hugetlb_pmd_notifier) * self,
			const struct check *c)
{
	const struct event_list *list = c->events;
	int i, starts = 0, ends = 0;

	for (i = 0; i < list->nr; i++) {
		const struct test_mmu_notifier_event *e = &list->at[i];

		if (e->kind == TEST_MMU_NOTIFIER_RANGE_START) {
			starts++;
			if (end_of(list, i) < 0)
				complain(self, c, "pairs",
					 "a start without its end");
		}
		ends += e->kind == TEST_MMU_NOTIFIER_RANGE_END;
		if (e->kind != TEST_MMU_NOTIFIER_INVALIDATE &&
		    e->flags & TEST_MMU_NOTIFIER_ATOMIC &&
		    e->flags & TEST_MMU_NOTIFIER_BLOCKABLE)
			complain(self, c, "atomic",
				 "called where it may not sleep");
	}
	if (starts < ends)
		complain(self, c, "pairs", "an end without its start");
}

/*
 * Was the TLB told, once the page had gone? Before the end, if the page was to
 * be copied next; what is unmapped and freed may be flushed later, but before it
 * is freed.
 */
static void check_tlb(FIXTURE_DATA(hugetlb_pmd_notifier) * self,
		      const struct check *c, int start, int end)
{
	const struct event_list *list = c->events;
	bool unshared = end < list->nr &&
			list->at[end].watched == TEST_MMU_NOTIFIER_NO_TABLE;
	int i, last = c->moved ? end : list->nr;

	for (i = start + 1; i < last; i++) {
		const struct test_mmu_notifier_event *e = &list->at[i];

		if (e->kind != TEST_MMU_NOTIFIER_INVALIDATE ||
		    e->watched == TEST_MMU_NOTIFIER_PRESENT)
			continue;
		/* Of a page, one address in it is enough: TLBs drop all of it. */
		if (!covers(e, unshared ? c->table : c->page,
			    unshared ? c->table_end : c->page + 1))
			continue;
		/* By then others may have freed the table. */
		if (e->flags & TEST_MMU_NOTIFIER_BY_END && unshared && c->moved)
			continue;
		if (!in_page_before_copy(c, e))
			complain(self, c, "copy",
				 "secondary TLBs were told after the copy");
		return;
	}
	complain(self, c, "tlb", unshared ?
		 "secondary TLBs keep a table that was unshared" :
		 "secondary TLBs keep a page that was unmapped");
}

/*
 * The pair in which the page went: it was there at the start, and is not at the
 * end. Of several, one inside the other, that which has the right range.
 */
static int find_pair(const struct check *c, int *end)
{
	const struct event_list *list = c->events;
	int i, found = -1;

	*end = -1;
	for (i = 0; i < list->nr; i++) {
		const struct test_mmu_notifier_event *e = &list->at[i];
		int last;

		if (e->kind != TEST_MMU_NOTIFIER_RANGE_START ||
		    e->watched != TEST_MMU_NOTIFIER_PRESENT)
			continue;
		last = end_of(list, i);
		if (last < 0 ||
		    list->at[last].watched == TEST_MMU_NOTIFIER_PRESENT)
			continue;
		if (found < 0 || covers(e, c->start, c->end)) {
			found = i;
			*end = last;
		}
	}
	return found;
}

static void check_sharer(FIXTURE_DATA(hugetlb_pmd_notifier) * self,
			 const struct check *c)
{
	const struct event_list *list = c->events;
	int i, start, end;
	bool gone;

	check_pairs(self, c);

	start = find_pair(c, &end);
	/*
	 * Up to 4.12 there was a call for a page alone, by itself, once it had
	 * gone: that does where nothing else goes with it.
	 */
	if (start < 0 && c->start == c->page && c->end == c->page_end) {
		check_tlb(self, c, -1, list->nr);
		return;
	}
	if (start < 0) {
		complain(self, c, "told", "nobody was told when the page went");
		return;
	}
	/* A kernel may also leave the table, and flush all who share it. */
	gone = list->at[end].watched == TEST_MMU_NOTIFIER_NO_TABLE;
	if (!covers(&list->at[start], gone ? c->start : c->page,
		    gone ? c->end : c->page_end))
		complain(self, c, "whole",
			 "the range is not all that may go");
	for (i = 0; i < list->nr; i++) {
		const struct test_mmu_notifier_event *e = &list->at[i];

		if (e->kind != TEST_MMU_NOTIFIER_RANGE_START ||
		    (e->start >= c->start && e->end <= c->end))
			continue;
		complain(self, c, "narrow",
			 "the range is more than what may go");
		break;
	}
	if (!in_page_before_copy(c, &list->at[start]))
		complain(self, c, "copy", "the start came after the copy");
	check_tlb(self, c, start, end);
}

FIXTURE_SETUP(hugetlb_pmd_notifier)
{
	pid_t pid;
	const char *why;
	struct message m;
	int i, there[2], back[2];

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
	if (why)
		SKIP(return, "%s", why);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* First, or the guardian would have the devices open. */
	why = guard_lacks();
	if (why)
		SKIP(return, "%s", why);
	why = pool_lacks(self->nodes, 2, 3 * NR_PAGES);
	if (why)
		SKIP(return, "%s", why);
	self->fd = hugetlbfs_open(NR_PUDS * pud_size() + pmd_size());
	if (self->fd < 0)
		SKIP(return, "cannot mount hugetlbfs in /tmp: %s",
		     strerror(-self->fd));
	/* A PUD more for each, so that a file can begin within one. */
	self->area_size = (MAX_SHARERS + 1) * (NR_PUDS + 1) * pud_size();
	self->area = reserve_puds(self->area_size / pud_size());
	if (!self->area)
		SKIP(return, "needs more address space: PUDs of %zu MiB",
		     pud_size() >> 20);
	self->events = mmap(NULL, sizeof(*self->events), PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->events);
	self->examples = EXAMPLES;

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

TEST_F_TIMEOUT(hugetlb_pmd_notifier, told, 60)
{
	long rounds = env_count("HUGETLB_PMD_NOTIFIER_ROUNDS", ROUNDS);
	long calls, moves = 0, wrong_moves = 0, failed = 0, min;
	/* That a sharer takes who finds the tables of another. */
	long faults = variant->layout == TWO ? 2 : 1;
	bool moving = moves_pages(variant->trigger);
	bool shares = variant->layout != UNALIGNED && variant->layout != PRIVATE;
	bool widened = false;
	char *view = view_addr(self), value[32];
	struct message said[MAX_SHARERS];
	size_t page = page_offset(variant->page);
	size_t size = self->pages * pmd_size();
	int i, error = 0;

	for (calls = 0; moves < rounds && calls < 3 * rounds; calls++) {
		int64_t old_pfn, new_pfn = 0;
		long wrong = self->wrong;
		bool moved;
		int source;

		memset(said, 0, sizeof(said));
		for (i = 0; i < self->nr; i++) {
			struct sharer *s = &self->sharers[i];
			int tries = 0;

			ASSERT_TRUE(ask(s, STEP_MAP, &said[i]));
			if (!shares || !i)
				continue;
			/*
			 * A fault that has nothing to do with these pages may
			 * be counted too.
			 */
			while (said[i].faults != faults && tries++ < 3) {
				ASSERT_TRUE(ask(s, STEP_UNMAP, &said[i]));
				ASSERT_TRUE(ask(s, STEP_MAP, &said[i]));
			}
			if (said[i].faults != faults && !self->wrong)
				SKIP(return, "table not shared (%ld faults): needs %s",
				     said[i].faults,
				     "CONFIG_HUGETLB_PMD_PAGE_TABLE_SHARING");
		}
		for (i = 0; i < self->nr; i++) {
			said[i].page = variant->page;
			ASSERT_TRUE(ask(&self->sharers[i], STEP_WATCH,
					&said[i]));
		}
		source = said[0].other;
		ASSERT_GE(source, 0);
		old_pfn = said[0].pfn;
		ASSERT_GT(old_pfn, 0);
		for (i = 1; i < self->nr; i++)
			ASSERT_EQ(old_pfn, (int64_t)said[i].pfn);
		said[0].node = self->nodes[source == self->nodes[0]];
		if (variant->trigger == SOFT_OFFLINE) {
			snprintf(value, sizeof(value), "0x%llx",
				 (unsigned long long)old_pfn);
			ASSERT_EQ(0, guard_undo(UNPOISON_PFN, value));
		}
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
		for (i = 0; i < self->nr; i++) {
			struct sharer *s = &self->sharers[i];
			uint64_t base = (uintptr_t)s->addr;
			struct check c = {
				.sharer = s,
				.events = self->events,
				.page = base + page,
				.page_end = base + page + size,
				.start = base + page,
				.end = base + page + size,
				.table = (base + page) / pud_size() * pud_size(),
				.moved = moving,
			};

			range_to_tell(variant->layout, base, &c.start, &c.end);
			widened = c.start != c.page || c.end != c.page_end;
			c.table_end = c.table + pud_size();
			if (moving && variant->layout != PRIVATE)
				c.stamps = (uint64_t *)(view + page +
							stamp_offset(i));
			ASSERT_TRUE(read_events(s, self->events));
			self->nr_events += self->events->nr;
			if (env_long("HUGETLB_PMD_NOTIFIER_TELL", 0)) {
				ksft_print_msg("sharer %d, pfn 0x%llx->0x%llx:\n",
					       i, (unsigned long long)old_pfn,
					       (unsigned long long)new_pfn);
				tell(self, &c);
			}
			if (moving && !moved)
				check_pairs(self, &c);
			/* The others may keep what only one gave up. */
			else if (moving || !i || variant->trigger == PUNCH_HOLE)
				check_sharer(self, &c);
			else
				check_pairs(self, &c);
		}
		if (!moving || moved) {
			moves++;
			wrong_moves += self->wrong != wrong;
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
	       widened ? "no" : "yes", layout_name[variant->layout],
	       variant->page, calls, failed, error);
	printf(" migrations=%ld lost_migrations=%ld events=%ld wrong=%ld sees_atomic=%s\n",
	       moves, wrong_moves, self->nr_events, self->wrong,
	       self->sees_atomic ? "yes" : "no");

	EXPECT_EQ(0, self->wrong)
		TH_LOG("the notifiers were told wrongly %ld times, in %ld of %ld migrations",
		       self->wrong, wrong_moves, moves);
	if (self->wrong)
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
