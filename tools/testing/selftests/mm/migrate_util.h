/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The base of what the tests that watch page migration have in common: files and
 * counters of the kernel's, the environment, words in memory that processes share,
 * CPUs, and the time.
 */
#ifndef _MIGRATE_UTIL_H
#define _MIGRATE_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* One line of a file in sysfs or procfs. Both return 0 or -errno. */
int file_read(const char *path, char *buf, size_t len);
int file_write(const char *path, const char *value);
long file_read_long(const char *path);

/*
 * What follows the name in /proc/<pid>/stat: the state, and numbers. NULL where
 * there is no such process.
 */
char *stat_of(pid_t pid, char *buf, size_t len);

/* A number of /proc/vmstat, or -1 if the kernel does not say. */
long vm_event(const char *name);

/*
 * How often a tracepoint was passed, since it was opened, by this process and by
 * those that it has forked since: the kernel's own word for what a test concludes
 * from faults. Nothing of the machine's settings is changed for it.
 * tracepoint_open() takes the names of the group and of the event, and returns
 * whether the kernel has it.
 */
struct tracepoint {
	int fd;		/* -1 if not open */
};

bool tracepoint_open(struct tracepoint *tp, const char *group,
		     const char *event);
long tracepoint_count(const struct tracepoint *tp);	/* 0 if not open */
void tracepoint_close(struct tracepoint *tp);

/*
 * A number in the environment, or @otherwise. What is no number ends the test: it
 * fails. So does, for env_count(), a number below 1: nothing would be done, and
 * the test would pass.
 */
long env_long(const char *name, long otherwise);
long env_count(const char *name, long otherwise);

/* Memory that is shared with all that are forked; NULL for want of it. */
void *share_memory(size_t size);

/*
 * Words in memory that processes share. wait_for_change() returns the new
 * value, wait_a_while() whether there is one, after @ms milliseconds or sooner.
 */
void set_and_wake(uint32_t *word, uint32_t val);
uint32_t wait_for_change(uint32_t *word, uint32_t old);
bool wait_a_while(uint32_t *word, uint32_t old, int ms);

/* A number that several processes add to, in memory that they share. */
static inline void count_up(unsigned long *counter, unsigned long nr)
{
	__atomic_fetch_add(counter, nr, __ATOMIC_RELEASE);
}

static inline unsigned long counted(const unsigned long *counter)
{
	return __atomic_load_n(counter, __ATOMIC_ACQUIRE);
}

/* Ends the process, with a line that says why, if that cannot be. */
void pin_to_cpu(int cpu);

/*
 * The CPUs that this process may run on, @max of them at most; returns how many
 * there are.
 */
int cpu_list(int *cpus, int max);

/*
 * Time stamps that are cheap enough for a writer's loop, and the same on every
 * CPU. cycles_to_us() is right once some milliseconds have passed since
 * cycles_start().
 */
void cycles_start(void);
double cycles_to_us(uint64_t cycles);
uint64_t cycles_clock(void);	/* in nanoseconds, for want of a counter */
long ms_since(uint64_t start);	/* milliseconds since cycles_clock() said so */

static inline uint64_t cycles(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
	uint64_t val;

	asm volatile("mrs %0, cntvct_el0" : "=r" (val));
	return val;
#else
	return cycles_clock();
#endif
}

#endif /* _MIGRATE_UTIL_H */
