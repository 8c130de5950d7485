// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "kselftest.h"
#include "migrate_damon.h"
#include "migrate_guard.h"
#include "migrate_page.h"
#include "migrate_util.h"
#include "vm_util.h"

#define DAMON		"/sys/kernel/mm/damon/admin/kdamonds/"
#define CONTEXT		"0/contexts/0/"
#define SCHEME		CONTEXT "schemes/0/"
#define REGIONS		CONTEXT "targets/0/regions/"
#define DAMON_MS	500	/* for it to move all pages */

/* One kernel thread, of which nobody else knows. */

static int damon_write(const char *name, const char *value)
{
	char path[160];

	snprintf(path, sizeof(path), DAMON "%s", name);
	return file_write(path, value);
}

static int damon_write_nr(const char *name, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	return damon_write(name, text);
}

/* All of the memory that it is told of is to be moved, accessed or not. */
static const char *damon_lacks(struct mover *m)
{
	static const struct {
		const char *name, *value, *lack;
	} wanted[] = {
		{ "nr_kdamonds", "1", "CONFIG_DAMON_SYSFS" },
		{ "0/contexts/nr_contexts", "1", "CONFIG_DAMON_SYSFS" },
		{ CONTEXT "operations", "paddr", "CONFIG_DAMON_PADDR" },
		{ CONTEXT "monitoring_attrs/intervals/sample_us", "1000" },
		{ CONTEXT "monitoring_attrs/intervals/aggr_us", "5000" },
		{ CONTEXT "monitoring_attrs/intervals/update_us", "1000000" },
		{ CONTEXT "targets/nr_targets", "1" },
		{ CONTEXT "schemes/nr_schemes", "1" },
		{ SCHEME "action", "migrate_cold", "DAMOS_MIGRATE_COLD (since 6.11)" },
		{ SCHEME "access_pattern/sz/max", "1099511627776" },
		{ SCHEME "access_pattern/nr_accesses/max", "1000000" },
		{ SCHEME "access_pattern/age/max", "1000000" },
	};
	long others = file_read_long(DAMON "nr_kdamonds");
	static char why[96];
	size_t i;

	if (m->range->kind->hugetlb)
		return "DAMON leaves hugetlb pages where they are";
	if (others)
		return others < 0 ? "needs CONFIG_DAMON_SYSFS (since 5.18)" :
				    "DAMON is in use";
	/* The last of these comes first. */
	if (guard_undo(DAMON "nr_kdamonds", "0") ||
	    guard_undo(DAMON "0/state", "off"))
		return "the guardian can note no more";
	for (i = 0; i < ARRAY_SIZE(wanted); i++) {
		if (!damon_write(wanted[i].name, wanted[i].value))
			continue;
		snprintf(why, sizeof(why), "needs %s",
			 wanted[i].lack ?: wanted[i].name);
		return why;
	}
	return NULL;
}

/* The page frames that the pages are in now. Returns 0 or -errno. */
static int damon_watch(const struct range *r)
{
	size_t each = r->memory.page / psize();
	int64_t pfns[RANGE_PAGES];
	char name[96];
	int i, ret;

	for (i = 0; i < r->nr_pages; i++) {
		pfns[i] = page_pfn(0, r->pages[i]);
		if (pfns[i] < 0)
			return pfns[i];
	}
	qsort(pfns, r->nr_pages, sizeof(*pfns), frames_compare);
	ret = damon_write_nr(REGIONS "nr_regions", r->nr_pages);
	for (i = 0; !ret && i < r->nr_pages; i++) {
		snprintf(name, sizeof(name), REGIONS "%d/start", i);
		ret = damon_write_nr(name, pfns[i] * psize());
		snprintf(name, sizeof(name), REGIONS "%d/end", i);
		ret = ret ?: damon_write_nr(name, (pfns[i] + each) * psize());
	}
	return ret;
}

/* It migrates page after page, until it is told to stop. */
static int by_damon(const struct mover *m, int to)
{
	int nodes[RANGE_PAGES], ret = damon_watch(m->range);
	uint64_t start = cycles_clock();
	bool done = false;

	ret = ret ?: damon_write(SCHEME "action", to == m->nodes[0] ?
				 "migrate_hot" : "migrate_cold");
	ret = ret ?: damon_write_nr(SCHEME "target_nid", to);
	ret = ret ?: damon_write("0/state", "on");
	while (!ret && !done && ms_since(start) < DAMON_MS) {
		usleep(5000);
		range_locate(m->range, nodes);
		done = range_count_on(m->range, nodes, to) == m->range->nr_pages;
	}
	damon_write("0/state", "off");
	return ret;
}

const struct trigger trigger_damon = {
	.name = "damon", .move = by_damon, .lacks = damon_lacks,
};
