// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <numa.h>
#include <numaif.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "migrate_cgroup.h"
#include "migrate_guard.h"
#include "migrate_memory.h"
#include "migrate_tiers.h"
#include "migrate_util.h"

#ifndef MPOL_F_NUMA_BALANCING
#define MPOL_F_NUMA_BALANCING	0x2000
#endif

#define TIERS		"/sys/devices/virtual/memory_tiering"
#define DEMOTION	"/sys/kernel/mm/numa/demotion_enabled"
#define BALANCING	"/proc/sys/kernel/numa_balancing"
#define DEMOTION_MS	500	/* for reclaim to find all pages idle */
#define BALANCE_MIB	64	/* for a walk to come by all pages */
#define BALANCE_MS	1000	/* for it to move a page */

/* Reclaim, which takes memory of a cgroup to slower nodes before it swaps. */

/* The first node in a list such as 0-1,3. */
static int first_node(const char *tier)
{
	char path[320], list[64];

	snprintf(path, sizeof(path), TIERS "/%s/nodelist", tier);
	return file_read(path, list, sizeof(list)) ? -1 : atoi(list);
}

/* One in the fastest tier, and one in the next. False if there is but one tier. */
static bool find_tiers(int nodes[2])
{
	long best[2] = { LONG_MAX, LONG_MAX }, nr;
	struct dirent *entry;
	DIR *dir;

	dir = opendir(TIERS);
	while (dir && (entry = readdir(dir))) {
		if (sscanf(entry->d_name, "memory_tier%ld", &nr) != 1 ||
		    nr >= best[1])
			continue;
		best[1] = nr < best[0] ? best[0] : nr;
		nodes[1] = nr < best[0] ? nodes[0] : first_node(entry->d_name);
		if (nr >= best[0])
			continue;
		best[0] = nr;
		nodes[0] = first_node(entry->d_name);
	}
	if (dir)
		closedir(dir);
	return best[1] != LONG_MAX && nodes[0] >= 0 && nodes[1] >= 0;
}

static const char *demotion_lacks(struct mover *m)
{
	const char *why;
	char old[8];

	if (m->range->kind->hugetlb)
		return "reclaim leaves hugetlb pages where they are";
	if (!find_tiers(m->nodes))
		return "needs slower memory: two tiers in " TIERS " (since 6.1)";
	/* It says true or false. */
	if (file_read(DEMOTION, old, sizeof(old)) ||
	    guard_undo(DEMOTION, *old == 't' ? "1" : "0") ||
	    file_write(DEMOTION, "1"))
		return "needs " DEMOTION;
	why = group_lacks("memory", "needs CONFIG_MEMCG, in no use by cgroups of version 1");
	if (why)
		return why;
	if (!group_has("memory.reclaim"))
		return "needs memory.reclaim of a cgroup (since 5.19)";
	/* The memory is that of the cgroup which had it first. */
	return range_refill(m->range);
}

/*
 * A page that is in use is made active, and its young bit is taken away: who has
 * it in a TLB does not set that again, so the next look finds it idle.
 */
static int by_demotion(const struct mover *m, int to)
{
	int nodes[RANGE_PAGES], error = 0;
	uint64_t start = cycles_clock();
	bool done = false;
	char bytes[24];

	snprintf(bytes, sizeof(bytes), "%zu", m->range->size);
	while (!done && ms_since(start) < DEMOTION_MS) {
		/* EAGAIN: it was less than that. */
		error = group_write("memory.reclaim", bytes);
		if (error && error != EAGAIN)
			break;
		range_query(m->range, nodes);
		done = range_count_on(m->range, nodes, to) == m->range->nr_pages;
	}
	return error == EAGAIN ? 0 : -error;
}

/*
 * NUMA balancing, of the pages alone and for the time of a call: a policy says of
 * which memory. The test has one that excludes all else, since who loses writes to
 * that could not say so. To switch NUMA balancing itself on and off, with writers
 * at it, would be to patch the kernel's code under them.
 */
static int balance(const struct mover *m, bool on)
{
	struct bitmask *mask = numa_allocate_nodemask();
	int i, ret;

	for (i = 0; i < 2; i++)
		numa_bitmask_setbit(mask, m->nodes[i]);
	ret = mbind(m->range->own, m->range->size,
		    MPOL_BIND | (on ? MPOL_F_NUMA_BALANCING : 0), mask->maskp,
		    mask->size + 1, 0) ? -errno : 0;
	numa_free_nodemask(mask);
	return ret;
}

static const char *balance_lacks(struct mover *m)
{
	const struct kind *kind = m->range->kind;

	if (kind->hugetlb)
		return "NUMA balancing leaves hugetlb pages where they are";
	if (kind->disk)
		return "NUMA balancing leaves pages of a file that are to be written back";
	if (!kind->file && kind->pages != SMALL_HUGE)
		return "NUMA balancing moves what nobody can write to by then";
	if (balance(m, true) || balance(m, false))
		return "needs MPOL_F_NUMA_BALANCING (since 5.12)";
	return numa_balancing(BALANCE_MIB) ? NULL :
	       "needs CONFIG_NUMA_BALANCING, and its files in debugfs";
}

/*
 * Whose node a page goes to is not for the test to say. So all of them are taken
 * to the other node, and it ends as soon as one is on its way back.
 */
static int by_balancing(const struct mover *m, int to)
{
	int nodes[RANGE_PAGES], ret = balance(m, true);
	uint64_t start = cycles_clock();
	bool moved = false;

	while (!ret && !moved && ms_since(start) < BALANCE_MS) {
		usleep(2000);
		range_query(m->range, nodes);
		moved = range_count_on(m->range, nodes, to);
	}
	balance(m, false);
	return ret;
}

/*
 * Slower memory: who uses a page there has it moved to the fastest, if that has
 * room. Nothing is moved back, and the mode that moves pages between nodes which
 * are alike is off.
 */
static const char *promotion_lacks(struct mover *m)
{
	const char *why;
	int node;

	if (!find_tiers(m->nodes))
		return "needs slower memory: two tiers in " TIERS " (since 6.1)";
	/* It is the second node that pages go to. */
	node = m->nodes[0];
	m->nodes[0] = m->nodes[1];
	m->nodes[1] = node;
	why = balance_lacks(m);
	if (why)
		return why;
	/* The guardian knows by now what it was. */
	return file_write(BALANCING, "2") ?
	       "needs mode 2 of numa_balancing (since 5.18)" : NULL;
}

const struct trigger trigger_demotion = {
	.name = "demotion", .move = by_demotion, .lacks = demotion_lacks,
	.some = true, .one_way = true,
};

const struct trigger trigger_numa_balancing = {
	.name = "numa_balancing", .move = by_balancing, .lacks = balance_lacks,
	.some = true, .awake = true,
};

const struct trigger trigger_promotion = {
	.name = "promotion", .move = by_balancing, .lacks = promotion_lacks,
	.some = true, .one_way = true, .awake = true,
};
