// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <numa.h>
#include <numaif.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "migrate_page.h"
#include "vm_util.h"

static int two_nodes(int nodes[2], int cpu)
{
	struct bitmask *mems = numa_get_mems_allowed();
	int own = numa_node_of_cpu(cpu);
	int node, found = 0;

	for (node = 0; node <= numa_max_node() && found < 2; node++)
		if (numa_bitmask_isbitset(mems, node) &&
		    numa_node_size64(node, NULL) > 0)
			nodes[found++] = node;
	numa_bitmask_free(mems);
	if (found == 2 && nodes[0] == own) {
		nodes[0] = nodes[1];
		nodes[1] = own;
	}
	return found;
}

const char *nodes_lack(int nodes[2], int wanted, int cpu)
{
	if (numa_available() >= 0 && two_nodes(nodes, cpu) >= wanted)
		return NULL;
	return wanted < 2 ? "needs CONFIG_NUMA, and sysfs in /sys" :
	       "needs two NUMA nodes with memory: numa=fake=2 makes two of one";
}

static struct bitmask *mask_of(int node)
{
	struct bitmask *mask = numa_allocate_nodemask();

	return numa_bitmask_setbit(mask, node);
}

long bind_range(void *addr, size_t len, int node, unsigned int flags)
{
	struct bitmask *mask = mask_of(node);
	long ret;

	/* The kernel looks at one bit less than it is told of. */
	ret = mbind(addr, len, MPOL_BIND, mask->maskp, mask->size + 1, flags);
	numa_free_nodemask(mask);
	return ret;
}

long migrate_node(pid_t pid, int from, int to)
{
	struct bitmask *old = mask_of(from), *new = mask_of(to);
	long ret;

	ret = migrate_pages(pid, old->size + 1, old->maskp, new->maskp);
	numa_free_nodemask(old);
	numa_free_nodemask(new);
	return ret;
}

long touch_pages(char *addr, int nr)
{
	struct rusage before, after;
	size_t step = pmd_size();
	int i;

	getrusage(RUSAGE_SELF, &before);
	for (i = 0; i < nr; i++)
		__atomic_load_n(addr + i * step, __ATOMIC_RELAXED);
	getrusage(RUSAGE_SELF, &after);
	return after.ru_minflt - before.ru_minflt;
}

/*
 * A table of 8 byte entries fills a page, on every 64 bit architecture but for
 * s390: there, one of PTEs is half a page, and one of PMDs is four.
 */
static bool is_s390(void)
{
	static int is = -1;	/* writers ask all the time */
	struct utsname name;

	if (is < 0)
		is = !uname(&name) && !strncmp(name.machine, "s390", 4);
	return is;
}

size_t pmd_size(void)
{
	if (is_s390())
		return 1ul << 20;
	return (size_t)psize() * (psize() / sizeof(uint64_t));
}

size_t pud_size(void)
{
	if (is_s390())
		return 1ul << 31;
	return pmd_size() * (psize() / sizeof(uint64_t));
}

char *reserve_puds(int nr)
{
	size_t size = pud_size();
	uintptr_t from, aligned;
	char *area;

	area = mmap(NULL, (nr + 1) * size, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (area == MAP_FAILED)
		return NULL;
	from = (uintptr_t)area;
	aligned = (from + size - 1) & ~(size - 1);
	if (aligned > from)
		munmap(area, aligned - from);
	munmap((char *)aligned + nr * size, from + size - aligned);
	return (char *)aligned;
}

const char *area_lacks(char **area, int nr)
{
	static char why[64];

	*area = reserve_puds(nr);
	if (*area)
		return NULL;
	snprintf(why, sizeof(why),
		 "needs more address space: PUDs of %zu MiB", pud_size() >> 20);
	return why;
}

void unmap_pud(char *addr)
{
	mmap(addr, pud_size(), PROT_NONE,
	     MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

int page_node(pid_t pid, void *addr)
{
	int status = -ENOENT;

	if (move_pages(pid, 1, &addr, NULL, &status, 0))
		return -errno;
	return status;
}

int64_t page_pfn(pid_t pid, void *addr)
{
	char path[32] = "/proc/self/pagemap";
	uint64_t entry;
	int fd;

	if (pid)
		snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	entry = pagemap_get_entry(fd, addr);
	close(fd);
	/* Without CAP_SYS_ADMIN the page frame number reads as 0. */
	if (!PAGEMAP_PRESENT(entry) || !PAGEMAP_PFN(entry))
		return -ENOENT;
	return PAGEMAP_PFN(entry);
}

long huge_anon_pages(const char *addr)
{
	unsigned long start, end;
	bool here = false;
	char line[256];
	long kib = -1;
	FILE *smaps;

	smaps = fopen("/proc/self/smaps", "re");
	while (smaps && kib < 0 && fgets(line, sizeof(line), smaps)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = start == (unsigned long)addr;
		else if (here && sscanf(line, "AnonHugePages: %ld", &kib) == 1)
			kib /= (long)(pmd_size() >> 10);
	}
	if (smaps)
		fclose(smaps);
	return kib;
}
