/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What becomes of memory as a whole: NUMA balancing, blocks that are taken offline,
 * and page frames that are poisoned.
 */
#ifndef _MIGRATE_MEMORY_H
#define _MIGRATE_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

/*
 * NUMA balancing: none for 0, or walks through @mib MiB of memory each, as often
 * as there can be: every 10 ms, and no more than 2560 MiB in a second. The
 * guardian restores the settings. Returns whether the kernel has it.
 */
bool numa_balancing(int mib);

/*
 * The size of a memory block, and the number of the block that holds @pfn.
 * -errno where blocks have no files.
 */
long block_bytes(void);
long block_of_pfn(uint64_t pfn);
bool block_removable(long block);	/* as far as the kernel can tell */
/* -EINTR after some seconds, where a page is pinned. SIGALRM is not to be blocked. */
int block_offline(long block);
int block_online(long block);

/* Where to write the number of a poisoned page frame to have it back. */
#define UNPOISON_PFN	"/sys/kernel/debug/hwpoison/unpoison-pfn"

/* NULL, or a line that says why that cannot be done. */
const char *unpoison_lacks(void);

/* Take back the poison that soft offlining leaves on @pfn. */
int pfn_unpoison(uint64_t pfn);

#endif /* _MIGRATE_MEMORY_H */
