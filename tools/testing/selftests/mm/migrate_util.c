// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "kselftest.h"
#include "migrate_util.h"

#define ENV_MAX		1000000
#define MAX_CPU_SETS	8

char *stat_of(pid_t pid, char *buf, size_t len)
{
	char path[32], *field;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (file_read(path, buf, len))
		return NULL;
	/* The name, which is in brackets, may have anything in it. */
	field = strrchr(buf, ')');
	return field && field[1] == ' ' ? field + 2 : NULL;
}

int file_read(const char *path, char *buf, size_t len)
{
	ssize_t got;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	got = read(fd, buf, len - 1);
	if (got < 0)
		got = -errno;
	close(fd);
	if (got < 0)
		return got;
	buf[got] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	return 0;
}

int file_write(const char *path, const char *value)
{
	size_t len = strlen(value);
	int fd, ret = 0;

	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, value, len) != (ssize_t)len)
		ret = -errno;
	close(fd);
	return ret;
}

/* A decimal number, or -errno: what is asked for here is never negative. */
long file_read_long(const char *path)
{
	char buf[64], *end;
	long val;
	int ret;

	ret = file_read(path, buf, sizeof(buf));
	if (ret)
		return ret;
	val = strtol(buf, &end, 10);
	return end == buf ? -EINVAL : val;
}

long vm_event(const char *name)
{
	char line[128], key[64];
	long nr, found = -1;
	FILE *file;

	file = fopen("/proc/vmstat", "re");
	while (file && found < 0 && fgets(line, sizeof(line), file))
		if (sscanf(line, "%63s %ld", key, &nr) == 2 &&
		    !strcmp(key, name))
			found = nr;
	if (file)
		fclose(file);
	return found;
}

bool tracepoint_open(struct tracepoint *tp, const char *group,
		     const char *event)
{
	static const char * const mounts[] = {
		"/sys/kernel/tracing", "/sys/kernel/debug/tracing",
	};
	struct perf_event_attr attr = {
		.type = PERF_TYPE_TRACEPOINT,
		.size = sizeof(attr),
		.inherit = 1,
	};
	char path[256];
	long id = -1;
	size_t i;

	tp->fd = -1;
	for (i = 0; i < ARRAY_SIZE(mounts) && id < 0; i++) {
		snprintf(path, sizeof(path), "%s/events/%s/%s/id", mounts[i],
			 group, event);
		id = file_read_long(path);
	}
	if (id < 0)
		return false;
	attr.config = id;
	tp->fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1,
			 PERF_FLAG_FD_CLOEXEC);
	return tp->fd >= 0;
}

long tracepoint_count(const struct tracepoint *tp)
{
	uint64_t val;

	if (tp->fd < 0 || read(tp->fd, &val, sizeof(val)) != sizeof(val))
		return 0;
	return val;
}

void tracepoint_close(struct tracepoint *tp)
{
	if (tp->fd >= 0)
		close(tp->fd);
	tp->fd = -1;
}

/* The harness takes the exit status for the test's result. */
static __noreturn void env_refuse(const char *name, const char *val,
				  const char *wanted)
{
	printf("# %s=%s: %s is wanted\n", name, val, wanted);
	fflush(stdout);
	_exit(1);
}

long env_long(const char *name, long otherwise)
{
	const char *val = getenv(name);
	char *end;
	long nr;

	if (!val || !*val)
		return otherwise;
	errno = 0;
	nr = strtol(val, &end, 0);
	if (errno || *end)
		env_refuse(name, val, "a number");
	return nr;
}

long env_count(const char *name, long otherwise)
{
	long nr = env_long(name, otherwise);

	if (nr < 1 || nr > ENV_MAX)
		env_refuse(name, getenv(name), "a number from 1 to 1000000");
	return nr;
}

void *share_memory(size_t size)
{
	void *addr = mmap(NULL, size, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return addr == MAP_FAILED ? NULL : addr;
}

static long futex(uint32_t *uaddr, int op, uint32_t val,
		  const struct timespec *timeout)
{
	return syscall(SYS_futex, uaddr, op, val, timeout, NULL, 0);
}

void set_and_wake(uint32_t *word, uint32_t val)
{
	__atomic_store_n(word, val, __ATOMIC_RELEASE);
	futex(word, FUTEX_WAKE, INT32_MAX, NULL);
}

uint32_t wait_for_change(uint32_t *word, uint32_t old)
{
	uint32_t val;

	while ((val = __atomic_load_n(word, __ATOMIC_ACQUIRE)) == old)
		futex(word, FUTEX_WAIT, old, NULL);
	return val;
}

bool wait_a_while(uint32_t *word, uint32_t old, int ms)
{
	const struct timespec tick = {
		.tv_sec = ms / 1000,
		.tv_nsec = ms % 1000 * 1000000l,
	};

	futex(word, FUTEX_WAIT, old, &tick);
	return __atomic_load_n(word, __ATOMIC_ACQUIRE) != old;
}

void pin_to_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (!sched_setaffinity(0, sizeof(set), &set))
		return;
	/* Elsewhere it could be in the way of those that it is to race with. */
	printf("# cannot run on CPU %d: %s\n", cpu, strerror(errno));
	fflush(stdout);
	_exit(1);
}

int cpu_list(int *cpus, int max)
{
	int cpu, nr = 0;
	cpu_set_t sets[MAX_CPU_SETS];

	/* A kernel refuses to tell of less than it may have, maybe 8192. */
	if (sched_getaffinity(0, sizeof(sets), sets))
		return 0;
	/* Those that pin_to_cpu() can name are enough. */
	for (cpu = 0; cpu < CPU_SETSIZE && nr < max; cpu++)
		if (CPU_ISSET(cpu, sets))
			cpus[nr++] = cpu;
	return nr;
}

long ms_since(uint64_t start)
{
	return (cycles_clock() - start) / 1000000;
}

static uint64_t cycles_zero;
static struct timespec cycles_zero_ts;

uint64_t cycles_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

void cycles_start(void)
{
	clock_gettime(CLOCK_MONOTONIC, &cycles_zero_ts);
	cycles_zero = cycles();
}

double cycles_to_us(uint64_t val)
{
	struct timespec ts;
	uint64_t passed;
	double us;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	passed = cycles() - cycles_zero;
	us = (ts.tv_sec - cycles_zero_ts.tv_sec) * 1e6 +
	     (ts.tv_nsec - cycles_zero_ts.tv_nsec) / 1e3;
	return passed ? val * us / passed : 0;
}
