/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files migrate_* use of the kernel's header of this name: the size of a
 * page, and /proc/<pid>/pagemap.
 */
#ifndef MIGRATE_VM_UTIL_H
#define MIGRATE_VM_UTIL_H

#include <stdint.h>
#include <sys/types.h>
#include <unistd.h>

#define PAGEMAP_PRESENT(entry)	(((entry) & 1ull << 63) != 0)
#define PAGEMAP_PFN(entry)	((entry) & ((1ull << 55) - 1))

static inline unsigned int psize(void)
{
	return sysconf(_SC_PAGESIZE);
}

/* 0, which is no page, where there is no entry. */
static inline uint64_t pagemap_get_entry(int fd, char *start)
{
	uint64_t entry;
	off_t off = (uintptr_t)start / psize() * sizeof(entry);

	if (pread(fd, &entry, sizeof(entry), off) != sizeof(entry))
		return 0;
	return entry;
}

#endif /* MIGRATE_VM_UTIL_H */
