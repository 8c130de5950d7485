// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <fcntl.h>
#include <numa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kselftest.h"
#include "migrate_compaction.h"
#include "migrate_page.h"
#include "migrate_util.h"
#include "vm_util.h"

#define NODES		"/sys/devices/system/node/"
#define PAGE_IS_FREE	0x400	/* in /proc/kpageflags */
#define SCRATCH_MAX	(512l << 20)	/* memory that has holes */
#define PARTS		3	/* of it */
#define SPARE		4096	/* pages of each part that no CPU keeps */
#define BELOW		1024	/* pages of it below ours */
#define HOLE		256	/* pages: half a pageblock */
#define LOOKS		100	/* at statistics, for a CPU to keep less */

/* Of a test, which is a process of its own. */
static struct holes {
	char *scratch;		/* what compaction finds them in, or NULL */
	size_t size;		/* of that */
	int low;		/* pages that were below it, at last */
	long free;		/* frames of it that were free then */
} holes;

static const char *compaction_lacks(struct mover *m)
{
	char path[64];

	if (m->range->kind->pages == HUGE)
		return "compaction leaves pages alone that are as large as a PMD maps";
	snprintf(path, sizeof(path), NODES "node%d/compact", m->nodes[1]);
	return access(path, W_OK) ? "needs CONFIG_COMPACTION" : NULL;
}

static void fault_in(char *addr, size_t len)
{
	size_t off;

	for (off = 0; off < len; off += psize())
		__atomic_store_n(addr + off, 1, __ATOMIC_RELAXED);
}

/* What is known of the scratch memory, and of the zone that most of it is in. */
struct frame {
	int64_t pfn;		/* first: see frames_compare() */
	size_t index;		/* of the page of the scratch memory */
};

struct scratch {
	size_t nr_pages;
	struct frame *frames;	/* those in the zone, from the lowest up */
	size_t nr;
	bool *go;		/* of each page, whether it is to be given back */
	int64_t last;		/* frame that was given back */
};

/* Where the zones of a node begin, and how many free pages a CPU keeps, at least. */
struct zones {
	int64_t start[8];
	size_t nr;
	long kept;
};

static void read_zones(int node, struct zones *zones)
{
	FILE *file = fopen("/proc/zoneinfo", "r");
	long value, now = -1, min = 0;
	char line[256];

	memset(zones, 0, sizeof(*zones));
	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "Node %ld, zone", &value) == 1)
			now = value;
		if (now != node)
			continue;
		/* The watermark of that name has no colon. */
		if (sscanf(line, " high: %ld", &value) == 1 &&
		    value > zones->kept)
			zones->kept = value;
		/* Since 6.7. */
		if (sscanf(line, " high_min: %ld", &value) == 1 && value > min)
			min = value;
		if (sscanf(line, " start_pfn: %ld", &value) == 1 &&
		    zones->nr < ARRAY_SIZE(zones->start))
			zones->start[zones->nr++] = value;
	}
	zones->kept = min ?: zones->kept;
	if (file)
		fclose(file);
}

/* No page moves to another zone: leave only those of the one in the middle. */
static void keep_zone(struct scratch *s, const struct zones *zones)
{
	int64_t pfn = s->frames[s->nr / 2].pfn, first = 0, end = INT64_MAX;
	size_t i, nr = 0;

	for (i = 0; i < zones->nr; i++) {
		if (zones->start[i] <= pfn && zones->start[i] > first)
			first = zones->start[i];
		if (zones->start[i] > pfn && zones->start[i] < end)
			end = zones->start[i];
	}
	for (i = 0; i < s->nr; i++)
		if (s->frames[i].pfn >= first && s->frames[i].pfn < end)
			s->frames[nr++] = s->frames[i];
	s->nr = nr;
}

static bool read_frames(struct scratch *s)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	size_t i, j, some;
	uint64_t got[512];
	int64_t pfn;

	for (i = 0; fd >= 0 && i < s->nr_pages; i += some) {
		some = s->nr_pages - i < ARRAY_SIZE(got) ? s->nr_pages - i :
							   ARRAY_SIZE(got);
		if (pread(fd, got, some * sizeof(*got),
			  ((uintptr_t)holes.scratch / psize() + i) * sizeof(*got)) !=
		    (ssize_t)(some * sizeof(*got)))
			break;
		for (j = 0; j < some; j++) {
			pfn = PAGEMAP_PFN(got[j]);
			if (!pfn)
				continue;
			s->frames[s->nr].pfn = pfn;
			s->frames[s->nr++].index = i + j;
		}
	}
	if (fd >= 0)
		close(fd);
	qsort(s->frames, s->nr, sizeof(*s->frames), frames_compare);
	return s->nr;
}

static void scratch_free(struct scratch *s)
{
	free(s->frames);
	free(s->go);
}

/* It is on the second node because this CPU is. */
static bool scratch_make(struct scratch *s, int node)
{
	size_t most = SCRATCH_MAX / psize();
	struct zones zones;
	long long room = 0;

	memset(s, 0, sizeof(*s));
	if (holes.scratch)
		munmap(holes.scratch, holes.size);
	holes.scratch = NULL;
	read_zones(node, &zones);
	s->nr_pages = PARTS * (zones.kept + SPARE);
	if (numa_node_size64(node, &room) > 0 &&
	    most > room / psize() / 2)
		most = room / psize() / 2;
	if (s->nr_pages > most)
		s->nr_pages = most;
	s->frames = calloc(s->nr_pages, sizeof(*s->frames));
	s->go = calloc(s->nr_pages, sizeof(*s->go));
	holes.size = s->nr_pages * psize();
	holes.scratch = mmap(NULL, holes.size, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (holes.scratch == MAP_FAILED)
		holes.scratch = NULL;
	if (!holes.scratch || !s->frames || !s->go) {
		scratch_free(s);
		return false;
	}
	madvise(holes.scratch, holes.size, MADV_NOHUGEPAGE);
	fault_in(holes.scratch, holes.size);
	if (!read_frames(s)) {
		scratch_free(s);
		return false;
	}
	keep_zone(s, &zones);
	return true;
}

/* Neighbours that go do so at once. */
static void give_back(struct scratch *s)
{
	size_t i, len = 0, last = 0;

	for (i = 0; i < s->nr; i++) {
		if (!s->go[s->frames[i].index] || s->frames[i].index < last)
			continue;
		last = s->frames[i].index;
		s->last = s->frames[i].pfn;
	}
	for (i = 0; i <= s->nr_pages; i++) {
		if (i < s->nr_pages && s->go[i]) {
			len++;
			continue;
		}
		if (len)
			madvise(holes.scratch + (i - len) * psize(),
				len * psize(), MADV_DONTNEED);
		len = 0;
	}
	memset(s->go, 0, s->nr_pages * sizeof(*s->go));
}

static void give_back_range(struct scratch *s, size_t from, size_t to)
{
	for (; from < to; from++)
		s->go[s->frames[from].index] = true;
	give_back(s);
}

/* Some more than ours are. What is beside one stays, so that it is not joined. */
static void give_back_rooms(const struct range *r, struct scratch *s,
			    size_t from, size_t to)
{
	size_t run = r->memory.page / psize(), i;
	int rooms = 0;

	while (rooms < 2 * r->nr_pages && from + 2 * run <= to) {
		if (s->frames[from].pfn % (2 * run) ||
		    s->frames[from + 2 * run - 1].pfn !=
		    s->frames[from].pfn + (int64_t)(2 * run - 1)) {
			from++;
			continue;
		}
		for (i = 0; i < run; i++)
			s->go[s->frames[from + i].index] = true;
		from += 2 * run;
		rooms++;
	}
	give_back(s);
}

/*
 * Compaction takes none of what is free in pageblocks that are free as a whole:
 * every other run stays.
 */
static void give_back_holes(struct scratch *s, size_t from, size_t to)
{
	for (; from < to; from++)
		s->go[s->frames[from].index] = !(s->frames[from].pfn / HOLE % 2);
	give_back(s);
}

static bool is_free(int fd, int64_t pfn)
{
	uint64_t flags;

	return pread(fd, &flags, sizeof(flags), pfn * sizeof(flags)) ==
	       sizeof(flags) && flags & PAGE_IS_FREE;
}

/*
 * Have the CPU let go of a frame. Since 6.7 it keeps as many as it was asked for
 * lately, and fewer with each look at statistics, down to a minimum: more than that
 * was given back after this one.
 */
static void let_go(int64_t pfn)
{
	int tries, fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);

	for (tries = 0; fd >= 0 && tries < LOOKS && !is_free(fd, pfn); tries++)
		file_write("/proc/sys/vm/stat_refresh", "1");
	if (fd >= 0)
		close(fd);
}

/* How many of ours are below, and what is free above: for who finds none moved. */
static void look_at_holes(const struct range *r, const struct scratch *s,
			  size_t from)
{
	int i, fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	int64_t pfn;

	holes.low = 0;
	holes.free = 0;
	for (i = 0; from < s->nr && i < r->nr_pages; i++) {
		pfn = page_pfn(0, r->pages[i]);
		holes.low += pfn >= s->frames[0].pfn && pfn < s->frames[from].pfn;
	}
	for (; fd >= 0 && from < s->nr; from++)
		holes.free += !(s->frames[from].pfn / HOLE % 2) &&
			     is_free(fd, s->frames[from].pfn);
	if (fd >= 0)
		close(fd);
}

/*
 * Ours come to frames that are low, and free ones that compaction takes are above.
 * Scratch memory is had first, so that there are no small holes elsewhere. Of its
 * frames, from the lowest up, these are given back:
 *
 *	first third	rooms for ours, and when they are in these, the rest, but
 *			for some pages below them
 *	second third	all
 *	last third	every other run
 *
 * A CPU keeps pages that are given back, some thousand of them: it takes what
 * came last for the next page that is asked for, and what came first is free for
 * others, as soon as more has come than it keeps. Until then it is nothing that
 * compaction takes. Each third is more than it keeps at least. It keeps small pages
 * alone, so those of 64 KiB find rooms when the second third came behind these.
 *
 * Compaction takes free frames as they come, and ends where one page is larger than
 * all that it has left. The pages below ours go first: they fill what is smaller
 * than a hole.
 */
static void make_holes(const struct mover *m)
{
	struct scratch s;
	int64_t hole;
	size_t part;

	range_move(m->range, m->nodes[0]);
	if (!scratch_make(&s, m->nodes[1]))
		return;
	part = s.nr / PARTS;
	if (!m->range->kind->pages)
		give_back_range(&s, part, 2 * part);
	give_back_rooms(m->range, &s, part < 2 * BELOW ? 0 : BELOW, part);
	if (m->range->kind->pages) {
		hole = s.last;
		give_back_range(&s, part, 2 * part);
		let_go(hole);
	}
	range_move(m->range, m->nodes[1]);
	give_back_holes(&s, 2 * part, s.nr);
	hole = s.last;
	give_back_range(&s, part < 2 * BELOW ? 0 : BELOW, part);
	let_go(hole);
	look_at_holes(m->range, &s, 2 * part);
	scratch_free(&s);
}

static int by_compaction(const struct mover *m, int to)
{
	char path[64];

	snprintf(path, sizeof(path), NODES "node%d/compact", m->nodes[1]);
	return file_write(path, "1");
}

static void tell_of_holes(const struct mover *m)
{
	ksft_print_msg("before the last call, %d of %d pages lay below %ld free frames\n",
		       holes.low, m->range->nr_pages, holes.free);
}

const struct trigger trigger_compaction = {
	.name = "compaction", .move = by_compaction, .lacks = compaction_lacks,
	.prepare = make_holes, .tell = tell_of_holes, .frame = true,
};
