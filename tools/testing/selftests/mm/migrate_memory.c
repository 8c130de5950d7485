// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "kselftest.h"
#include "migrate_guard.h"
#include "migrate_memory.h"
#include "migrate_util.h"
#include "vm_util.h"

#define OFFLINE_SECONDS	10	/* for one memory block */

/* What the kernel is told for a test. */
static const char * const settings[] = {
	/* How long a thread must have run before the first walk. */
	"scan_delay_ms",
	/* From walk to walk. */
	"scan_period_min_ms", "scan_period_max_ms",
	"scan_size_mb",
};

#define SYSCTL	"/proc/sys/kernel/"
#define DEBUGFS	"/sys/kernel/debug/sched/numa_balancing/"

/* Returns whether @path has the value now. The guardian puts it back. */
static bool set(const char *path, const char *value)
{
	char old[32];

	return !file_read(path, old, sizeof(old)) && !guard_undo(path, old) &&
	       !file_write(path, value);
}

bool numa_balancing(int mib)
{
	char path[96], size[16];
	size_t i;

	if (!set(SYSCTL "numa_balancing", mib ? "1" : "0"))
		return false;
	snprintf(size, sizeof(size), "%d", mib);
	for (i = 0; mib && i < ARRAY_SIZE(settings); i++) {
		bool is_size = i == ARRAY_SIZE(settings) - 1;
		const char *value = is_size ? size : "10";

#ifndef IN_TREE
		/* Where it is up to 5.12. */
		snprintf(path, sizeof(path), SYSCTL "numa_balancing_%s",
			 settings[i]);
		if (set(path, value))
			continue;
#endif
		snprintf(path, sizeof(path), DEBUGFS "%s", settings[i]);
		if (!set(path, value))
			return false;
	}
	return true;
}

#define MEMORY	"/sys/devices/system/memory"

long block_bytes(void)
{
	char buf[32];
	long size;
	int ret;

	ret = file_read(MEMORY "/block_size_bytes", buf, sizeof(buf));
	if (ret)
		return ret;
	size = strtol(buf, NULL, 16);
	return size > 0 ? size : -EINVAL;
}

long block_of_pfn(uint64_t pfn)
{
	long size = block_bytes();

	return size < 0 ? size : (long)(pfn * psize() / size);
}

static void block_file(char *path, size_t len, long block)
{
	snprintf(path, len, MEMORY "/memory%ld/state", block);
}

bool block_removable(long block)
{
	char path[64];

	snprintf(path, sizeof(path), MEMORY "/memory%ld/removable", block);
	/* Where there is no such file, none that can be said. */
	return file_read_long(path) != 0;
}

static void on_alarm(int sig)
{
}

/*
 * The kernel tries again and again as long as a page is pinned that it cannot
 * move, until a signal comes.
 */
int block_offline(long block)
{
	/* More than once: the first may come before the call has begun. */
	const struct itimerval limit = { { 1, 0 }, { OFFLINE_SECONDS, 0 } };
	/* No SA_RESTART. */
	const struct sigaction handler = { .sa_handler = on_alarm };
	struct sigaction old_handler;
	struct itimerval old;
	char path[64];
	int ret;

	block_file(path, sizeof(path), block);
	if (!guard_has(path) && guard_undo(path, block_zone(path)))
		return -ENOSPC;
	sigaction(SIGALRM, &handler, &old_handler);
	setitimer(ITIMER_REAL, &limit, &old);
	ret = file_write(path, "offline");
	setitimer(ITIMER_REAL, &old, NULL);
	sigaction(SIGALRM, &old_handler, NULL);
	return ret;
}

int block_online(long block)
{
	char path[64], state[16];
	int ret;

	block_file(path, sizeof(path), block);
	ret = file_read(path, state, sizeof(state));
	if (ret || !strcmp(state, "online"))
		return ret;
	/* Movable again, or the next round could not take it offline. */
	ret = file_write(path, "online_movable");
	return ret ? file_write(path, "online") : 0;
}

const char *unpoison_lacks(void)
{
	return access(UNPOISON_PFN, W_OK) ?
	       "cannot take poison back: needs CONFIG_HWPOISON_INJECT and debugfs" :
	       NULL;
}

int pfn_unpoison(uint64_t pfn)
{
	char value[32];

	snprintf(value, sizeof(value), "0x%llx", (unsigned long long)pfn);
	return file_write(UNPOISON_PFN, value);
}
