// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <numaif.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "migrate_cgroup.h"
#include "migrate_memory.h"
#include "migrate_page.h"
#include "migrate_triggers.h"
#include "migrate_util.h"
#include "vm_util.h"

#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif

#define SOFT_PAGES	8	/* a call */

/* Where the pages are. */

void range_query(const struct range *r, int *nodes)
{
	int i;

	if (move_pages(0, r->nr_pages, (void **)r->pages, NULL, nodes, 0))
		for (i = 0; i < r->nr_pages; i++)
			nodes[i] = -ENOENT;
}

void range_locate(const struct range *r, int *nodes)
{
	int i;

	for (i = 0; i < r->nr_pages; i++)
		__atomic_load_n((char *)r->pages[i], __ATOMIC_RELAXED);
	range_query(r, nodes);
}

int range_count_on(const struct range *r, const int *nodes, int node)
{
	int i, nr = 0;

	for (i = 0; i < r->nr_pages; i++)
		nr += nodes[i] == node;
	return nr;
}

void places_look(const struct range *r, struct places *places)
{
	int i;

	range_locate(r, places->nodes);
	for (i = 0; i < r->nr_pages; i++)
		places->frames[i] = page_pfn(0, r->pages[i]);
}

int places_moved(const struct range *r, const struct trigger *trigger,
		 const struct places *from, const struct places *to)
{
	int i, nr = 0;

	for (i = 0; i < r->nr_pages; i++) {
		if (trigger->holds && !trigger->holds(from->frames[i]))
			continue;
		nr += trigger->frame ?
		      from->frames[i] > 0 && to->frames[i] > 0 &&
		      from->frames[i] != to->frames[i] :
		      from->nodes[i] >= 0 && to->nodes[i] >= 0 &&
		      from->nodes[i] != to->nodes[i];
	}
	return nr;
}

int places_held(const struct range *r, const struct trigger *trigger,
		const struct places *places)
{
	int i, nr = 0;

	for (i = 0; trigger->holds && i < r->nr_pages; i++)
		nr += trigger->holds(places->frames[i]);
	return nr;
}

int frames_compare(const void *one, const void *other)
{
	const int64_t *a = one, *b = other;

	return *a < *b ? -1 : *a > *b;
}

/* The triggers. All of them return 0, or -errno. */

int range_move(const struct range *r, int to)
{
	int nodes[RANGE_PAGES], status[RANGE_PAGES], i;

	for (i = 0; i < r->nr_pages; i++)
		nodes[i] = to;
	return move_pages(0, r->nr_pages, (void **)r->pages, nodes, status,
			  MPOL_MF_MOVE_ALL) < 0 ? -errno : 0;
}

static int by_move_pages(const struct mover *m, int to)
{
	return range_move(m->range, to);
}

static int by_migrate_pages(const struct mover *m, int to)
{
	return migrate_node(0, m->nodes[to == m->nodes[0]], to) < 0 ? -errno :
									0;
}

/*
 * The same by a process that has none of the memory: a child that did not inherit
 * it, and is gone when it returns.
 */
static int by_another(const struct mover *m, int to)
{
	pid_t pid, test = getpid();
	int status;

	pid = fork();
	if (pid < 0)
		return -errno;
	if (!pid)
		_exit(migrate_node(test, m->nodes[to == m->nodes[0]], to) < 0 ?
		      errno : 0);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -ECHILD;
}

static int by_mbind(const struct mover *m, int to)
{
	return bind_range(m->range->own, m->range->mapped, to,
			  MPOL_MF_MOVE_ALL) < 0 ? -errno : 0;
}

static const char *cpuset_lacks(struct mover *m)
{
	return group_lacks("cpuset",
			   "needs CONFIG_CPUSETS (since 5.0), in no use by cgroups of version 1");
}

static const char *cpuset_v1_lacks(struct mover *m)
{
	return group_lacks_v1("needs CONFIG_CPUSETS_V1, in no use by cgroups of version 2");
}

static int by_cpuset(const struct mover *m, int to)
{
	char node[16];

	snprintf(node, sizeof(node), "%d", to);
	return -group_write("cpuset.mems", node);
}

/* What takes memory away, if it may. */

static const char *offline_lacks(struct mover *m)
{
	if (m->range->kind->hugetlb)
		return "hugetlb_pmd_migrate takes memory offline that has hugetlb pages";
	if (!env_long("HUGETLB_PMD_MIGRATE_OFFLINE", 0))
		return "takes memory offline: HUGETLB_PMD_MIGRATE_OFFLINE=1 allows it";
	return block_of_pfn(0) < 0 ?
	       "no memory blocks: needs CONFIG_MEMORY_HOTREMOVE" : NULL;
}

/* The block of the first page, and all of ours that are in it. */
static int by_offline(const struct mover *m, int to)
{
	int64_t pfn = page_pfn(0, m->range->pages[0]);
	long block = pfn < 0 ? pfn : block_of_pfn(pfn);
	int ret, back;

	if (block < 0)
		return block;
	ret = block_offline(block);
	back = block_online(block);
	return ret ?: back;
}

static const char *soft_offline_lacks(struct mover *m)
{
	if (m->range->kind->hugetlb)
		return "hugetlb_pmd_migrate soft-offlines hugetlb pages";
	if (!env_long("HUGETLB_PMD_MIGRATE_OFFLINE", 0))
		return "soft-offlines pages: HUGETLB_PMD_MIGRATE_OFFLINE=1 allows it";
	return m->range->kind->pages ? "soft offlining splits huge pages" :
			   unpoison_lacks();
}

static int by_soft_offline(const struct mover *m, int to)
{
	const struct range *r = m->range;
	int i, ret, error = 0;
	int64_t pfn;

	/* Writers take turns in them: but for the 1, all would be of the same. */
	for (i = 0; i < r->nr_pages; i += r->nr_pages / SOFT_PAGES + 1) {
		pfn = page_pfn(0, r->pages[i]);
		if (pfn < 0)
			ret = pfn;
		else if (madvise(r->pages[i], psize(), MADV_SOFT_OFFLINE))
			ret = -errno;
		else
			ret = pfn_unpoison(pfn);
		error = error ?: ret;
	}
	return error;
}

/* What they are. */

const struct trigger trigger_move_pages = {
	.name = "move_pages", .move = by_move_pages,
};

const struct trigger trigger_mbind = { .name = "mbind", .move = by_mbind };

const struct trigger trigger_migrate_pages = {
	.name = "migrate_pages", .move = by_migrate_pages,
};

const struct trigger trigger_migrate_pages_of_another = {
	.name = "migrate_pages_of_another", .move = by_another,
};

const struct trigger trigger_cpuset = {
	.name = "cpuset", .move = by_cpuset, .lacks = cpuset_lacks,
};

const struct trigger trigger_cpuset_v1 = {
	.name = "cpuset_v1", .move = by_cpuset, .lacks = cpuset_v1_lacks,
};

const struct trigger trigger_offline = {
	.name = "offline", .move = by_offline, .lacks = offline_lacks,
	.frame = true, .some = true,
};

const struct trigger trigger_soft_offline = {
	.name = "soft_offline", .move = by_soft_offline,
	.lacks = soft_offline_lacks, .frame = true,
};
