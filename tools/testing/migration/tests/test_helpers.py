# SPDX-License-Identifier: GPL-2.0
"""What the selftests share, and what they make of what they find: on this machine, without a huge
page.  The kernel's files are in a folder of the test's, or its calls are answered by a stand-in."""

import errno
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from programs import compiled

from lab.guest import selftest
from lab.paths import REPO

# Files of the machine are those of the folder that FILES names.
FILES = r"""
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int __real_open(const char *path, int flags, ...);

int __wrap_open(const char *path, int flags, ...)
{
	char other[512];

	snprintf(other, sizeof(other), "%s%s", strncmp(path, "/sys/dev", 8) ? "" :
		 getenv("FILES"), path);
	/* A file of sysfs has no more in it than what was written. */
	return __real_open(other, flags & O_WRONLY ? flags | O_TRUNC : flags, 0600);
}
"""

DIES = FILES + r"""
#include "migrate_guard.h"
#include "migrate_util.h"

#define POOL "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages"

int main(int argc, char **argv)
{
	if (fork()) {
		/* So that the program has not ended, but its test. */
		pause();
		return 0;
	}
	if (guard_start() || guard_undo(POOL, "20"))
		return 1;
	file_write(POOL, "30");
	if (argc == 2) {
		guard_stop();
		_exit(0);
	}
	raise(SIGKILL);
}
"""

BLOCKS = FILES + r"""
#include "migrate_guard.h"
#include "migrate_memory.h"
#include "migrate_util.h"

int main(void)
{
	if (guard_start() || block_offline(7))
		return 1;
	/* As the kernel would. */
	file_write("/sys/devices/system/memory/memory7/state", "online");
	file_write("/sys/devices/system/memory/memory7/valid_zones", "Movable");
	guard_stop();
	return 0;
}
"""

# Nobody reads from the pipe in place of the file, so nothing can be written to it.
PINNED_BLOCK = FILES + r"""
#include <errno.h>
#include <sys/stat.h>
#include "migrate_guard.h"
#include "migrate_memory.h"

static int alarms;

static void on_alarm(int sig)
{
	alarms++;
}

int main(void)
{
	char path[512];
	int error;

	snprintf(path, sizeof(path), "%s/sys/devices/system/memory/memory7/state",
		 getenv("FILES"));
	unlink(path);
	signal(SIGALRM, on_alarm);
	alarm(60);
	if (mkfifo(path, 0600) || guard_start())
		return 1;
	error = -block_offline(7);
	printf("%s, %d alarms\n", strerror(error), alarms);
	printf("%d left\n", alarm(0) > 30);
	raise(SIGALRM);
	printf("%d alarms\n", alarms);
	unlink(path);
	fflush(stdout);
	guard_stop();
	return 0;
}
"""

EVENTS = r"""
#include <stdio.h>
#include "migrate_util.h"

int main(void)
{
	long before = vm_event("pgfault");
	void *page = share_memory(4096);

	*(char *)page = 1;
	printf("%d %ld %ld", vm_event("pgfault") > before && before > 0, vm_event("pgfaul"),
	       vm_event("pgfaults"));
	return 0;
}
"""

MANY = r"""
#include <stdio.h>
#include "migrate_guard.h"

int main(void)
{
	int i, failed = 0;

	if (guard_start())
		return 1;
	for (i = 0; i < 10000; i++)
		failed += guard_undo("/dev/null", i % 2 ? "1" : "2") != 0;
	guard_stop();
	return failed != 0;
}
"""

SIZES = r"""
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include "migrate_page.h"

int __wrap_uname(struct utsname *name)
{
	strcpy(name->machine, MACHINE);
	return 0;
}

int main(void)
{
	printf("%zu %zu", pmd_size() >> 20, pud_size() >> 20);
	return 0;
}
"""

# A kernel that has no fsopen(2), if OLD is set, and one that is busy at first.
MOUNTS = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "migrate_mount.h"

static int busy;

long __real_syscall(long nr, ...);

long __wrap_syscall(long nr, ...)
{
	long arg[5];
	va_list list;
	int i;

	va_start(list, nr);
	for (i = 0; i < 5; i++)
		arg[i] = va_arg(list, long);
	va_end(list);
	errno = ENOSYS;
	if (getenv("OLD") && nr >= 430 && nr <= 432)
		return -1;
	/* The one that makes it. */
	errno = EBUSY;
	if (nr == 431 && arg[1] == 6 && busy-- > 0)
		return -1;
	return __real_syscall(nr, arg[0], arg[1], arg[2], arg[3], arg[4]);
}

int main(int argc, char **argv)
{
	struct statfs buf = {};
	int dir, file;

	busy = argc > 3 ? atoi(argv[3]) : 0;
	dir = mount_nowhere(argv[1], argc > 2 && *argv[2] ? argv[2] : NULL);
	if (dir < 0) {
		printf("%s\n", strerror(-dir));
		return 0;
	}
	file = openat(dir, "f", O_RDWR | O_CREAT | O_EXCL, 0600);
	if (file < 0 || write(file, "text", 4) != 4 || unlinkat(dir, "f", 0))
		return 1;
	close(dir);
	fstatfs(file, &buf);
	printf("%lx of %ld KiB\n", (long)buf.f_type,
	       (long)(buf.f_blocks * buf.f_bsize >> 10));
	fflush(stdout);
	/* The file is there, and nothing else is. */
	return system("cat /proc/self/mountinfo") != 0;
}
"""

# One process burns a CPU for two seconds and ends, or sleeps for ever.
CREW = r"""
#include <stdio.h>
#include <unistd.h>
#include "migrate_crew.h"
#include "migrate_util.h"

int main(int argc, char **argv)
{
	bool busy = argv[1][0] == 'b', late;
	struct crew crew = {};
	uint64_t start = cycles_clock();

	if (!crew_fork(&crew)) {
		while (!busy)
			pause();
		while (argv[1][1] || ms_since(start) < 2000)
			;
		_exit(0);
	}
	if (!crew_wait(&crew, 1000))
		printf("left\n");
	late = ms_since(start) >= 1500;
	start = cycles_clock();
	/* Whoever was waited for in vain is not waited for that long again. */
	if (!crew_wait(&crew, 300))
		printf("again %d\n", ms_since(start) >= 800);
	printf("late %d\n", late);
	crew_kill(&crew, 5000);
	return 0;
}
"""

# Page 0 is where it was, whoever asks for it to be moved.
SUBPOOL = r"""
#define main harness_main
#include "hugetlb_subpool.c"
#undef main
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

static int file = -1, node;
static bool moves;

int __wrap_hugetlbfs_file(int dir, size_t size)
{
	file = syscall(SYS_memfd_create, "file", 0);
	return ftruncate(file, size) ? -1 : file;
}

int __wrap_fstatfs(int dir, struct statfs *buf)
{
	struct stat st;

	buf->f_bfree = MOUNT_PAGES - (fstat(file, &st) ? 0 : st.st_blocks / 8);
	return 0;
}

int __wrap_page_node(pid_t pid, void *addr)
{
	return node;
}

long __wrap_bind_range(void *addr, size_t len, int to, unsigned int flags)
{
	if (!flags || moves)
		node = to;
	return 0;
}

int main(int argc, char **argv)
{
	static struct __test_results results;
	struct __test_metadata m = { .results = &results };
	FIXTURE_DATA(hugetlb_subpool) self = { .nodes = { 0, 1 } };
	FIXTURE_VARIANT(hugetlb_subpool) variant = { MBIND, MAP_PRIVATE };

	moves = argc == 2;
	variant.map = moves ? MAP_SHARED : MAP_PRIVATE;
	hugetlb_subpool_all_come_back(&m, &self, &variant);
	return m.exit_code;
}
"""

MISSING = r"""
#define main harness_main
#include "hugetlb_pmd_churn.c"
#undef main

static bool others;
static long used;

long __wrap_pool_used(int node)
{
	return used;
}

bool __wrap_pool_is_shared(void)
{
	return others;
}

int main(int argc, char **argv)
{
	static struct control control = { .fd = 0 };

	used = strtol(argv[1], NULL, 0);
	others = strtol(argv[2], NULL, 0);
	control.pool_was_shared = strtol(argv[3], NULL, 0);
	printf("missing %ld\n", missing_for_good(&control));
	return 0;
}
"""

# A sharer is at work, and the test looks at what it has done.
COUNTS = r"""
#define main harness_main
#include "hugetlb_pmd_churn.c"
#undef main
#include <pthread.h>

static FIXTURE_DATA(hugetlb_pmd_churn) self;
static FIXTURE_VARIANT(hugetlb_pmd_churn) variant = {
	.sharers = 1, .ops = SPLIT_OPS, .user = true };

long __wrap_move_pages(int pid, unsigned long nr, void **pages, const int *nodes,
		       int *status, int flags)
{
	while (nr-- && status)
		status[nr] = nodes ? -EACCES : 0;
	return 0;
}

static void *work(void *arg)
{
	int i;

	for (i = 0; i < 20000; i++)
		op_migrate(arg);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	int i;

	self.control = calloc(1, sizeof(*self.control));
	self.control->variant = &variant;
	self.control->sharers[0].control = self.control;
	self.control->sharers[0].random = 1;
	self.control->nodes[1] = 1;
	self.pids[0] = getpid();
	pthread_create(&thread, NULL, work, &self.control->sharers[0]);
	for (i = 0; i < 2000; i++)
		move_for_user(&self);
	pthread_join(thread, NULL);
	/* The other thread may have begun when these were done. */
	move_for_user(&self);
	return self.control->calls_for_user == 0;
}
"""

# A segment of small pages, which there are.
SEGMENT = r"""
#include "migrate_round.c"

int __real_shmget(key_t key, size_t size, int flags);

int __wrap_shmget(key_t key, size_t size, int flags)
{
	if (getenv("FAILS")) {
		errno = atoi(getenv("FAILS"));
		return -1;
	}
	return __real_shmget(key, size, flags & 0777 | IPC_CREAT);
}

int main(int argc, char **argv)
{
	static struct rounds st;
	const char *why;

	rounds_init(&st);
	st.setup.backing = SYSV;
	st.writers.mem = &st.memory;
	if (!writers_reserve(&st.writers, 1))
		return 2;
	why = backing_lacks(&st);
	printf("%s\n", why ? why : "is there");
	fflush(stdout);
	raise(SIGKILL);
}
"""

# A machine of NODES nodes with memory, and all that rounds ask for there but a pool.
NODES = r"""
#include <stdio.h>
#include <stdlib.h>
#include "migrate_round.h"

const char *__wrap_nodes_lack(int nodes[2], int wanted, int cpu)
{
	int found = atoi(getenv("NODES"));

	nodes[0] = 5;
	if (found > 1)
		nodes[1] = 7;
	return found >= wanted ? NULL : "too few nodes";
}

const char *__wrap_guard_lacks(void)
{
	return NULL;
}

const char *__wrap_pool_lacks(const int *nodes, int nr, long want)
{
	printf("pool of %d: %d %d\n", nr, nodes[0], nodes[1]);
	return "no pool";
}

int main(void)
{
	struct round_setup setup = { .sharers = 2, .may_offline = true };
	struct rounds st;
	const char *why;
	int i;

	rounds_init(&st);
	printf("%s\n", rounds_begin(&st, &setup));
	for (i = MIGRATE_PAGES; i <= MBIND; i++) {
		why = trigger_lacks(&st, i);
		printf("%s\n", why ? why : "can be");
	}
	why = trigger_lacks(&st, BLOCK_OFFLINE);
	printf("%s\n", why && strcmp(why, "too few nodes") ? "can be" : why ?
	       why : "can be");
	return 0;
}
"""

# Rounds that take 10 seconds each, and that come to nothing, in several ways.
ROUNDS = r"""
#define main harness_main
#include "hugetlb_pmd_migrate.c"
#undef main

static long calls;

long __wrap_ms_since(uint64_t start)
{
	return calls * atol(getenv("MS"));
}

enum round_end __wrap_round_run(struct rounds *st, struct round_result *r,
				const char **why)
{
	const char *how = getenv("HOW");

	calls = ++r->calls;
	r->moves++;
	r->moved_calls++;
	r->hot_calls++;
	r->hot_moved += !strcmp(how, "hot") && calls >= 6;
	r->lost += !strcmp(how, "lost");
	*why = "inconclusive: killed";
	if (calls == 3 && (!strcmp(how, "killed") || !strcmp(how, "lost")))
		return ROUND_STARVED;
	return ROUND_DONE;
}

int main(int argc, char **argv)
{
	static struct __test_results results;
	struct __test_metadata m = { .results = &results };
	static struct state st;

	rounds_init(&st.rounds);
	st.rounds.nodes[1] = 1;
	st.rounds.setup = (struct round_setup){ .sharers = 2 };
	if (!strcmp(getenv("HOW"), "alone"))
		st.rounds.setup.layout = ALONE;
	run(&m, &st, MOVE_PAGES);
	return m.exit_code;
}
"""

# A pool with pages that are free, and that nobody can have.
LIMIT = FILES + r"""
#include <errno.h>
#include <sys/types.h>
#include "migrate_hugetlb.h"

pid_t __wrap_fork(void)
{
	errno = EAGAIN;
	return strcmp(getenv("HOW"), "fork") ? 4711 : -1;
}

pid_t __wrap_waitpid(pid_t pid, int *status, int flags)
{
	*status = strcmp(getenv("HOW"), "gives") ? 0x100 : 0;
	return pid;
}

int main(void)
{
	const int nodes[] = { 0, 1 };
	const char *why = pool_lacks(nodes, 2, 3);

	printf("%s", why ? why : "nothing");
	fflush(stdout);
	_exit(0);
}
"""

# Processes that take long, near the end of the time that one has which is runnable.
LONG = r"""
#define main harness_main
#include "exec_temp_stack.c"
#undef main

int main(int argc, char **argv)
{
	struct patience patience = {
		.began = cycles_clock() - (RUNNABLE_MS - 4000) * 1000000ull,
		.ms = STUCK_MS,
	};
	enum verdict verdict = WAIT;
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* It waits in the kernel until its child execs or ends. */
		if (!strcmp(argv[1], "asleep") && !vfork()) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			sleep(20);
			_exit(0);
		}
		if (!strcmp(argv[1], "stopped"))
			raise(SIGSTOP);
		for (;;)
			;
	}
	while (verdict == WAIT) {
		usleep(20 * 1000);
		verdict = look_at(&patience, pid);
	}
	kill(pid, SIGKILL);
	printf("%s\n", verdict == STUCK ? "stuck" : "slow");
	return 0;
}
"""

# Who forks in a loop, alone, and with small pages.  For some time there is no process to be had, or
# the first child is killed.
FORKS = r"""
#define main harness_main
#include SOURCE
#undef main
#include <sys/syscall.h>

static bool forks;
static int calls;

pid_t __real_fork(void);

static void stop(void);

pid_t __wrap_fork(void)
{
	pid_t pid;

	if (!forks)
		return __real_fork();
	calls++;
	if (strtol(getenv("FAILS"), NULL, 0) && calls <= 5) {
		errno = strtol(getenv("FAILS"), NULL, 0);
		return -1;
	}
	if (calls >= 6)
		stop();
	pid = __real_fork();
	if (pid > 0 && calls == 1 && getenv("KILL"))
		kill(pid, SIGKILL);
	return pid;
}

long __wrap_vm_event(const char *name)
{
	return forks && !strcmp(getenv("KILL") ?: "", "oom");
}

static __attribute__((unused)) int small_file(size_t size)
{
	int fd = syscall(SYS_memfd_create, "file", 0);

	return ftruncate(fd, size) ? -1 : fd;
}

/* In a process of its own, what ends it. */
static int exit_of(void (*fn)(void))
{
	pid_t pid = __real_fork();
	int status;

	if (!pid) {
		forks = true;
		alarm(20);
		fn();
		_exit(0);
	}
	waitpid(pid, &status, 0);
	return status;
}
"""

COW_FORKS = FORKS + r"""
static void stop(void)
{
	race_stop();
}

static void run(void)
{
	own_main(small_file(NR_PAGES * pmd_size()));
}

int main(void)
{
	int status;

	shared = race_begin(sizeof(*shared));
	status = exit_of(run);
	printf("status %d error %d without %lu with %lu\n", status, race_error(),
	       shared->alone, shared->writes);
}
"""

PUNCH_FORKS = FORKS + r"""
static void stop(void)
{
	race_stop();
}

static void run(void)
{
	fork_main(small_file(NR_PAGES * pmd_size()));
}

int main(void)
{
	struct crew crew = {};
	int status;

	shared = race_begin(sizeof(*shared));
	status = exit_of(run);
	forks = true;
	printf("status %d error %d without %lu with %lu killed %lu oom %d\n", status,
	       race_error(), shared->no_forks, shared->forks, shared->killed,
	       were_oom_killed(shared, &crew));
}
"""

UNSHARE_FORKS = FORKS + r"""
static struct state st;
static struct busy *me;

static void stop(void)
{
}

static void run(void)
{
	int i;

	for (i = 0; i < 6; i++) {
		me->error = child_exits(&st, me);
		if (me->error)
			_exit(1);
		me->done++;
	}
}

int main(void)
{
	int status;

	me = share_memory(sizeof(*me));
	me->addr = calloc(NR_PAGES, pmd_size());
	status = exit_of(run);
	printf("status %d error %d without %lu with %lu\n", status, me->error,
	       me->no_child, me->done - me->no_child);
}
"""

CHURN_FORKS = FORKS + r"""
static struct control *control;
static struct sharer *me;

static void stop(void)
{
}

static void run(void)
{
	int i;

	for (i = 0; i < 6 + 20 * !strcmp(getenv("OP"), "end"); i++)
		if (!strcmp(getenv("OP"), "end"))
			op_end(me);
		else
			op_fork(me);
}

/* What a child writes is nowhere. */
int __real_map_pud(int fd, char *addr);

int __wrap_map_pud(int fd, char *addr)
{
	return __real_map_pud(forks && getenv("LOSE") ?
			      small_file(pud_size()) : fd, addr);
}

int main(void)
{
	static FIXTURE_VARIANT(hugetlb_pmd_churn) variant = { .ops = END };
	int status;

	control = share_memory(sizeof(*control));
	control->variant = &variant;
	control->fd = small_file(pud_size());
	me = &control->sharers[0];
	me->control = control;
	me->random = 1;
	me->room = reserve_puds(TRIES);
	me->addr = me->room;
	map_anew(me);
	write_words(me, me->addr);
	status = exit_of(run);
	printf("status %d error %d without %lu with %lu oom %d execs %d lost %d\n",
	       status, !!me->why[0], me->no_children, me->children,
	       me->oom_killed, me->execs > 0, me->lost > 0);
}
"""

# Memory that is not to be had at once, or not as long as there are THPs in it.  One of these is put
# somewhere else, when it is asked for or before.
THPS = r"""
#define main harness_main
#include "thp_cow_isolation.c"
#undef main

static bool moved;

static bool is(const char *how)
{
	return !strcmp(getenv("HOW"), how);
}

FILE *__wrap_fopen(const char *path, const char *mode)
{
	static char text[32];
	static int calls;

	/* 64 MiB less when it is looked at once more. */
	snprintf(text, sizeof(text), "CmaFree: %d kB\n", calls ? 1000 : 1000000);
	moved = calls++ && is("before");
	return fmemopen(text, strlen(text), "r");
}

long __wrap_bind_range(void *addr, size_t len, int to, unsigned int flags)
{
	return 0;
}

int64_t __wrap_page_pfn(pid_t pid, void *addr)
{
	return (uintptr_t)addr / psize() + (moved ? 1 << 20 : 0);
}

int __wrap_file_write(const char *path, const char *value)
{
	return 0;
}

long __wrap_file_read_long(const char *path)
{
	static int calls;

	if (calls++ < (is("once") ? 1 : is("twice") ? 2 : is("defect") ? 3 : 0))
		return 0;
	moved = true;
	return 1;
}

int main(void)
{
	static struct __test_results results;
	struct __test_metadata m = { .results = &results };
	static FIXTURE_DATA(thp_cow_isolation) self;
	FIXTURE_VARIANT(thp_cow_isolation) variant = { .trigger = GIGANTIC };

	ask_with(&m, &self, &variant, MPROTECT);
	return m.exit_code;
}
"""

# A test without its processes: what they have counted is given.
GUP = r"""
#define main harness_main
#include "hugetlb_pmd_gup.c"
#undef main

long __wrap_ms_since(uint64_t start)
{
	return 1000000;
}

int main(int argc, char **argv)
{
	static struct __test_results results;
	static struct control control;
	struct __test_metadata m = { .results = &results };
	FIXTURE_DATA(hugetlb_pmd_gup) self = { .control = &control, .fd = -1 };
	FIXTURE_VARIANT(hugetlb_pmd_gup) variant = {};

	control.rounds = 1000;
	control.walks = strtol(argv[1], NULL, 0);
	control.of_b = strtol(argv[2], NULL, 0);
	control.of_none = strtol(argv[3], NULL, 0);
	hugetlb_pmd_gup_own_pages(&m, &self, &variant);
	return m.exit_code;
}
"""

POISON = r"""
#define main harness_main
#include "hugetlb_punch_poison.c"
#undef main

int main(int argc, char **argv)
{
	static struct __test_results results;
	static struct control control = { .poison.met = 1000, .held = 1000 };
	struct __test_metadata m = { .results = &results };
	FIXTURE_DATA(hugetlb_punch_poison) self = { .control = &control };
	FIXTURE_VARIANT(hugetlb_punch_poison) variant = {};

	control.poison.refused = strtol(argv[1], NULL, 0);
	control.poison.kept = strtol(argv[2], NULL, 0);
	hugetlb_punch_poison_comes_back(&m, &self, &variant);
	return m.exit_code;
}
"""

# Migration that is none: pages are where they are said to be.  "lose" puts back what was there when
# the call began, as a copy does that nobody else was told of.
LOST = r"""
#define main harness_main
#include "migrate_lost_write.c"
#undef main
#include "vm_util.h"

static int node;

const char *__wrap_nodes_lack(int nodes[2], int wanted, int cpu)
{
	nodes[0] = 0;
	nodes[1] = 1;
	return NULL;
}

static long move(char *from, size_t size, int to)
{
	char *copy = malloc(size);

	if (strcmp(getenv("HOW"), "stay"))
		node = to;
	memcpy(copy, from, size);
	usleep(20000);
	if (!strcmp(getenv("HOW"), "lose"))
		memcpy(from, copy, size);
	/* What no writer writes to. */
	if (!strcmp(getenv("HOW"), "spoil"))
		from[pmd_size() - 1]++;
	free(copy);
	return 0;
}

int __wrap_mount_nowhere(const char *type, const char *options)
{
	return -EROFS;
}

long __wrap_move_pages(int pid, unsigned long nr, void **pages, const int *nodes,
		       int *status, int flags)
{
	if (nodes)
		return move(pages[0], nr * psize(), nodes[0]);
	while (nr--)
		status[nr] = node;
	return 0;
}

long __wrap_migrate_node(pid_t pid, int from, int to)
{
	return 0;
}

static char *ours;
static size_t ours_size;
static long frame = 1000;

/* One that is asked for compaction: pages are in other frames then, of the same node. */
int __real_file_write(const char *path, const char *value);

int __wrap_file_write(const char *path, const char *value)
{
	if (!strstr(path, "/compact"))
		return __real_file_write(path, value);
	frame += strcmp(getenv("HOW"), "stay") ? 1 : 0;
	move(ours, ours_size, node);
	return 0;
}

int __wrap_access(const char *path, int how)
{
	return strstr(path, "/compact") ? 0 : faccessat(AT_FDCWD, path, how, 0);
}

/* The lowest is the first that is asked for. */
int64_t __wrap_page_pfn(pid_t pid, char *addr)
{
	if (!ours || addr < ours)
		ours = addr;
	if (addr + psize() > ours + ours_size)
		ours_size = addr + psize() - ours;
	return frame;
}

long __wrap_bind_range(void *addr, size_t len, int to, unsigned int flags)
{
	return move(addr, len, to);
}

int main(int argc, char **argv)
{
	return harness_main(argc, argv);
}
"""

# The same for pages that the kernel writes to.  Those that are held stay, but for "lose".
PINNED = r"""
#define main harness_main
#include "migrate_pinned_write.c"
#undef main

static int node, calls;

const char *__wrap_nodes_lack(int nodes[2], int wanted, int cpu)
{
	nodes[0] = 0;
	nodes[1] = 1;
	return NULL;
}

static void wait_for_write(const char *addr, size_t size)
{
	char *before = malloc(size);

	memcpy(before, addr, size);
	while (!memcmp(before, addr, size))
		usleep(1000);
	free(before);
}

long __wrap_move_pages(int pid, unsigned long nr, void **pages, const int *nodes,
		       int *status, int flags)
{
	size_t size = nr * psize();
	char *copy;

	while (!nodes && nr--)
		status[nr] = node;
	if (!nodes || !strcmp(getenv("HOW"), "stay") ||
	    (getenv("HELD") && calls++ % 2 == 0 && strcmp(getenv("HOW"), "lose")))
		return 0;
	copy = malloc(size);
	node = nodes[0];
	memcpy(copy, pages[0], size);
	/* Until a write has come to its end, if nothing is held. */
	if (!getenv("HELD")) {
		wait_for_write(pages[0], size);
		usleep(20000);
		wait_for_write(pages[0], size);
	}
	if (!strcmp(getenv("HOW"), "lose"))
		memcpy(pages[0], copy, size);
	free(copy);
	return 0;
}

long __wrap_migrate_node(pid_t pid, int from, int to)
{
	return 0;
}

int main(int argc, char **argv)
{
	return harness_main(argc, argv);
}
"""

# A record as a kernel that unshares a table makes it, but for what is asked for.
RULES = r"""
#include <stdio.h>
#include <string.h>
#include "migrate_notifier.h"

#define PUD 0x40000000ull
#define PAGE 0x40200000ull

int main(int argc, char **argv)
{
	static uint64_t stamps[TEST_MMU_NOTIFIER_SLOTS];
	static struct event_list list = { .nr = 3, .at = {
		{ 1, PUD, 2 * PUD, TEST_MMU_NOTIFIER_RANGE_START,
		  TEST_MMU_NOTIFIER_STAMPED | TEST_MMU_NOTIFIER_BLOCKABLE, 7,
		  TEST_MMU_NOTIFIER_PRESENT },
		{ 2, PUD, 2 * PUD, TEST_MMU_NOTIFIER_INVALIDATE,
		  TEST_MMU_NOTIFIER_STAMPED, 7, TEST_MMU_NOTIFIER_NO_TABLE },
		{ 3, PUD, 2 * PUD, TEST_MMU_NOTIFIER_RANGE_END,
		  TEST_MMU_NOTIFIER_BLOCKABLE, 7,
		  TEST_MMU_NOTIFIER_NO_TABLE } } };
	struct check c = {
		.events = &list, .stamps = stamps, .page = PAGE,
		.page_end = PAGE + 0x200000, .start = PUD, .end = 2 * PUD,
		.table = PUD, .table_end = 2 * PUD, .moved = true };
	struct verdict verdict = {};
	const char *what = argv[1];

	stamps[1] = 1;
	stamps[2] = 2;
	if (!strcmp(what, "end"))
		list.nr = 2;
	if (!strcmp(what, "sleep"))
		list.at[0].flags |= TEST_MMU_NOTIFIER_ATOMIC;
	/* The OOM reaper may not block at all; but no end may less than its start. */
	if (!strcmp(what, "reaper"))
		list.at[0].flags = list.at[2].flags = TEST_MMU_NOTIFIER_STAMPED;
	if (!strcmp(what, "hasty"))
		list.at[2].flags = 0;
	if (!strcmp(what, "part"))
		list.at[0].end = list.at[2].end = PAGE + 0x200000;
	if (!strcmp(what, "more"))
		list.at[0].end = list.at[2].end = 3 * PUD;
	if (!strcmp(what, "silent"))
		list.at[1].watched = TEST_MMU_NOTIFIER_PRESENT;
	if (!strcmp(what, "late"))
		stamps[2] = 0;
	if (!strcmp(what, "nothing"))
		list.nr = 0;
	verdict.examples = 1;
	notifier_check(&verdict, &c);
	printf("wrong %ld\n", verdict.wrong);
	return 0;
}
"""


def machine(top: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = top / "sys/devices/system" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return top


def run(program: Path, *words: str, **more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([program, *words], env={**os.environ, **more}, text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)


def becomes(path: Path, text: str, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while path.read_text().strip() != text and time.monotonic() < end:
        time.sleep(0.02)
    return path.read_text().strip() == text


# ---- the guardian ------------------------------------------------------------------------------


@pytest.mark.alone
@pytest.mark.parametrize("words, late", [((), True), (("done",), False)])
def test_pages_of_a_killed_test_come_back_late(tree612: Path, tmp_path: Path,
                                               words: tuple[str, ...], late: bool) -> None:
    """And so does one that is not the program itself, and that says nothing before it ends."""
    folder = "node/node1/hugepages/hugepages-2048kB"
    machine(tmp_path, {f"{folder}/{name}_hugepages": "20\n" for name in ("nr", "free")})
    pool = tmp_path / "sys/devices/system" / folder / "nr_hugepages"
    (pool.parent / "surplus_hugepages").write_text("0\n")
    program = compiled(tree612, DIES, tmp_path / "dies", "-Wl,--wrap=open")
    pool.write_text("30\n")
    with subprocess.Popen([program, *words],
                          env={**os.environ, "FILES": str(tmp_path)}) as running:
        try:
            assert becomes(pool, "20", 10)
            pool.write_text("25\n")
            assert becomes(pool, "20", 1.5) == late
        finally:
            running.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("zone, wrote", [("Normal\n", "online_kernel"), ("Movable\n", "online"),
                                         ("Normal Movable\n", "online_kernel")])
def test_a_memory_block_comes_back_where_it_was(tree612: Path, tmp_path: Path, zone: str,
                                                wrote: str) -> None:
    """One that is in the right zone is left alone."""
    machine(tmp_path, {"memory/memory7/state": "online\n", "memory/memory7/valid_zones": zone})
    program = compiled(tree612, BLOCKS, tmp_path / "blocks", "-Wl,--wrap=open")
    assert run(program, FILES=str(tmp_path)).returncode == 0
    state = (tmp_path / "sys/devices/system/memory/memory7/state").read_text()
    assert state.startswith(wrote) and (wrote != "online" or state == wrote)


def test_a_block_with_a_pinned_page_stays(tree612: Path, tmp_path: Path) -> None:
    """The call ends, and the test's own alarm is as it was."""
    machine(tmp_path, {"memory/memory7/state": "online\n"})
    program = compiled(tree612, PINNED_BLOCK, tmp_path / "pinned", "-Wl,--wrap=open")
    assert run(program, FILES=str(tmp_path)).stdout.splitlines() == [
        "Interrupted system call, 0 alarms", "1 left", "1 alarms"]


def test_an_event_is_found_by_its_whole_name(tree612: Path, tmp_path: Path) -> None:
    assert run(compiled(tree612, EVENTS, tmp_path / "events")).stdout == "1 -1 -1"


def test_the_same_setting_takes_no_room(tree612: Path, tmp_path: Path) -> None:
    assert run(compiled(tree612, MANY, tmp_path / "many")).returncode == 0


@pytest.mark.parametrize("what, said", [
    ("busy", ["left", "again 0", "late 1"]), ("b", ["late 1"]),
    ("sleeps", ["left", "again 0", "late 0"])])
def test_who_is_runnable_has_more_time(tree612: Path, tmp_path: Path, what: str, said: list[str]
                                       ) -> None:
    """And where they are who have not ended is told once."""
    lines = run(compiled(tree612, CREW, tmp_path / "crew"), what).stdout.splitlines()
    assert [line for line in lines if not line.startswith("# ")] == said
    assert sum("/stat: " in line for line in lines) == ("left" in said), lines


CAN_MOUNT = subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True
                           ).returncode == 0


def mounted(text: str) -> list[str]:
    return sorted(line.split(" - ")[1] for line in text.splitlines() if " - " in line)


@pytest.mark.skipif(not CAN_MOUNT, reason="needs root, and to be let mount")
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("words, said", [
    (("ramfs",), "858458f6 of 0 KiB"), (("tmpfs", "size=64k,mode=0700"), "1021994 of 64 KiB"),
    (("tmpfs", "size=64k,", "3"), "1021994 of 64 KiB"), (("no_such_fs",), "No such device"),
    (("tmpfs", "no_such_option"), "Invalid argument")])
def test_a_mount_is_seen_by_nobody(tree612: Path, tmp_path: Path, words: tuple[str, ...],
                                   said: str, old: bool) -> None:
    """By no other process, and not by its own: whoever kills that leaves nothing behind."""
    program = compiled(tree612, MOUNTS, tmp_path / "mounts", *wrapped("syscall"))
    before = mounted(Path("/proc/self/mountinfo").read_text())
    done = run(program, *words, **({"OLD": "1"} if old else {}))
    assert done.returncode == 0 and done.stdout.splitlines()[0] == said, done.stdout
    assert mounted(done.stdout) in ([], before)
    assert mounted(Path("/proc/self/mountinfo").read_text()) == before


# ---- other machines ----------------------------------------------------------------------------


@pytest.mark.parametrize("machine_name, sizes", [("x86_64", "2 1024"), ("s390x", "1 2048")])
def test_what_a_table_maps(tree612: Path, tmp_path: Path, machine_name: str, sizes: str) -> None:
    program = compiled(tree612, SIZES, tmp_path / "sizes", "-Wl,--wrap=uname",
                       f'-DMACHINE="{machine_name}"')
    assert run(program).stdout == sizes


# ---- what passes, and what does not ------------------------------------------------------------

PASS, SKIP = 0, 4


def wrapped(names: str) -> list[str]:
    return [f"-Wl,--wrap={name}" for name in names.split()]


@pytest.mark.parametrize("words, result", [((), SKIP), (("moves",), PASS)])
def test_a_mount_from_which_nothing_moves_proves_nothing(tree612: Path, tmp_path: Path,
                                                         words: tuple[str, ...], result: int
                                                         ) -> None:
    program = compiled(tree612, SUBPOOL, tmp_path / "subpool", *wrapped(
        "hugetlbfs_file fstatfs page_node bind_range"))
    done = run(program, *words)
    assert done.returncode == result, done.stdout


@pytest.mark.parametrize("used, others, before, missing", [
    (0, 0, 0, 0), (3, 0, 0, 6), (3, 1, 0, 0), (3, 0, 1, 0)])
def test_pages_of_others_are_not_missing(tree612: Path, tmp_path: Path, used: int, others: int,
                                         before: int, missing: int) -> None:
    program = compiled(tree612, MISSING, tmp_path / "missing",
                       *wrapped("pool_used pool_is_shared"))
    done = subprocess.run([program, *map(str, (used, others, before))], stdin=subprocess.DEVNULL,
                          text=True, check=True, stdout=subprocess.PIPE)
    assert done.stdout.endswith(f"missing {missing}\n")
    assert ("others have huge pages" in done.stdout) == bool(used and (others or before))


def test_what_sharers_count_is_read_whole(tree612: Path, tmp_path: Path) -> None:
    program = compiled(tree612, COUNTS, tmp_path / "counts", "-fsanitize=thread", "-g",
                       *wrapped("move_pages"))
    # Address space that is laid out anew each time is not where the sanitizer wants it.
    done = subprocess.run(["setarch", "-R", program], text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0 and "data race" not in done.stdout, done.stdout


@pytest.mark.parametrize("fails, said", [
    ("", "is there"), ("22", "needs a System V segment of 1024 MiB: kernel.shmmax"),
    ("28", "kernel.shmmax, shmall or shmmni")])
def test_no_segment_is_left_behind(tree612: Path, tmp_path: Path, fails: str, said: str) -> None:
    """Nor is it a failure where the system has no room for one."""
    # Its own migrate_round.c comes before that of the other helpers.
    program = compiled(tree612, SEGMENT, tmp_path / "segment", "-Wno-parentheses",
                       "-Wl,-z,muldefs", *wrapped("shmget"))
    with subprocess.Popen([program], env={**os.environ, **({"FAILS": fails} if fails else {})},
                          text=True, stdout=subprocess.PIPE) as running:
        assert running.stdout
        assert said in running.stdout.read()
        assert running.wait() == -signal.SIGKILL
        segments = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
        assert str(running.pid) not in [line.split()[4] for line in segments]


@pytest.mark.skipif(os.geteuid() != 0 or len(os.sched_getaffinity(0)) < 2,
                    reason="needs root and two CPUs, as the test does")
@pytest.mark.parametrize("nodes, said", [
    ("0", ["too few nodes"]),
    ("1", ["pool of 1: 5 5", "no pool", *["too few nodes"] * 3, "can be"]),
    ("2", ["pool of 2: 5 7", "no pool", *["can be"] * 4])])
def test_memory_can_go_offline_with_one_node(tree612: Path, tmp_path: Path, nodes: str,
                                             said: list[str]) -> None:
    program = compiled(tree612, NODES, tmp_path / "nodes", "-include", "string.h",
                       *wrapped("nodes_lack guard_lacks pool_lacks"))
    assert run(program, NODES=nodes).stdout.splitlines()[:len(said)] == said


@pytest.mark.parametrize("how, lacks", [
    ("gives", "nothing"), ("fork", "cannot fork a process: Resource temporarily unavailable"),
    ("limit", "6 free huge pages, but this process cannot have them: a hugetlb cgroup's limit?")])
def test_pages_that_a_cgroup_may_not_have_are_not_there(tree612: Path, tmp_path: Path, how: str,
                                                        lacks: str) -> None:
    machine(tmp_path, {f"node/node{node}/hugepages/hugepages-2048kB/free_hugepages": "500\n"
                       for node in (0, 1)})
    program = compiled(tree612, LIMIT, tmp_path / "limit", *wrapped("open fork waitpid"))
    assert run(program, FILES=str(tmp_path), HOW=how).stdout == lacks


@pytest.mark.parametrize("what, said", [("asleep", "stuck"), ("stopped", "slow"),
                                        ("busy", "slow")])
def test_a_process_that_takes_long_may_not_be_stuck(tree612: Path, tmp_path: Path, what: str,
                                                    said: str) -> None:
    program = compiled(tree612, LONG, tmp_path / "long")
    assert run(program, what).stdout == f"{said}\n"


FAIL = 1


@pytest.mark.parametrize("how, ms, calls, result", [
    ("hot", 1, 6, PASS), ("rests", 1, 5000, PASS), ("rests", 400, 16, PASS),
    ("rests", 8000, 5, PASS), ("alone", 1, 3, PASS), ("rests", 30000, 3, PASS),
    ("rests", 45000, 2, SKIP), ("killed", 1, 3, SKIP), ("lost", 1, 3, FAIL)])
def test_rounds_go_on_until_a_hot_page_moves(tree612: Path, tmp_path: Path, how: str, ms: int,
                                             calls: int, result: int) -> None:
    """If there is time: a test that takes too long would be a failure."""
    program = compiled(tree612, ROUNDS, tmp_path / "rounds", *wrapped("ms_since round_run"))
    done = run(program, HOW=how, MS=str(ms), HUGETLB_PMD_MIGRATE_CALLS="3")
    assert done.returncode == result, done.stdout
    assert (f" calls={calls} " in done.stdout) == (how != "killed"), done.stdout
    assert ("with writers that rest" in done.stdout) == (how == "rests"), done.stdout



@pytest.mark.skipif(os.geteuid() != 0 or len(os.sched_getaffinity(0)) < 2,
                    reason="needs root and two CPUs, as the test does")
@pytest.mark.parametrize("variant, test", [
    ("anon", "move_pages"), ("shmem", "mbind"), ("anon", "compaction"), ("shmem", "compaction")])
@pytest.mark.parametrize("how, result", [("keep", PASS), ("lose", FAIL), ("stay", SKIP)])
def test_a_lost_write_is_one(tree612: Path, tmp_path: Path, variant: str, test: str, how: str,
                             result: int) -> None:
    """And a page that does not move proves nothing."""
    program = compiled(tree612, LOST, tmp_path / "lost", "-pthread", *wrapped(
        "nodes_lack move_pages migrate_node bind_range file_write access page_pfn"))
    name = f"migrate_lost_write.{variant}.{test}"
    done = run(program, "-r", name, HOW=how, MIGRATE_LOST_WRITE_CALLS="3")
    outcome = {PASS: f"\nok 1 {name}\n", FAIL: f"\nnot ok 1 {name}\n",
               SKIP: f"\nok 1 {name} # SKIP inconclusive"}[result]
    assert outcome in done.stdout, done.stdout
    assert ("lost_writes=0" in done.stdout) == (result != FAIL), done.stdout


@pytest.mark.skipif(os.geteuid() != 0 or len(os.sched_getaffinity(0)) < 2,
                    reason="needs root and two CPUs, as the test does")
@pytest.mark.parametrize("variant", ["anon_thp", "shmem_thp"])
@pytest.mark.parametrize("how, said", [("keep", "\nok 1"), ("spoil", "\nnot ok 1")])
def test_what_nobody_writes_to_is_looked_at(tree612: Path, tmp_path: Path, variant: str, how: str,
                                            said: str) -> None:
    """A huge page is more than its journals.  Whether it is one, the host's kernel says."""
    program = compiled(tree612, LOST, tmp_path / "lost", "-pthread", *wrapped(
        "nodes_lack move_pages migrate_node bind_range file_write access mount_nowhere"))
    done = run(program, "-r", f"migrate_lost_write.{variant}.move_pages", HOW=how,
               MIGRATE_LOST_WRITE_CALLS="3")
    if "# SKIP n" in done.stdout:
        pytest.skip(done.stdout.partition("# SKIP ")[2].partition("\n")[0])
    assert said in done.stdout, done.stdout
    assert ("changed: offset 0x1ff" in done.stdout) == (how == "spoil"), done.stdout


@pytest.mark.skipif(os.geteuid() != 0 or len(os.sched_getaffinity(0)) < 2,
                    reason="needs root and two CPUs, as the test does")
@pytest.mark.parametrize("test", ["cpuset", "cpuset_v1"])
def test_what_cannot_be_mounted_is_no_missing_option(tree612: Path, tmp_path: Path, test: str
                                                     ) -> None:
    program = compiled(tree612, LOST, tmp_path / "lost", "-pthread", *wrapped(
        "nodes_lack move_pages migrate_node bind_range file_write access page_pfn mount_nowhere"))
    done = run(program, "-r", f"migrate_lost_write.shmem.{test}", HOW="keep")
    assert "# SKIP cannot mount cgroups: Read-only file system\n" in done.stdout, done.stdout


@pytest.mark.skipif(os.geteuid() != 0 or len(os.sched_getaffinity(0)) < 2,
                    reason="needs root and two CPUs, as the test does")
@pytest.mark.parametrize("variant, test", [("shmem", "process_vm"), ("anon", "vmsplice")])
@pytest.mark.parametrize("how, result", [("keep", PASS), ("lose", FAIL), ("stay", SKIP)])
def test_a_lost_write_of_the_kernel_is_one(tree612: Path, tmp_path: Path, variant: str, test: str,
                                           how: str, result: int) -> None:
    """And a page that moves while it is held."""
    program = compiled(tree612, PINNED, tmp_path / "pinned", "-pthread", *wrapped(
        "nodes_lack move_pages migrate_node"))
    name = f"migrate_pinned_write.{variant}.{test}"
    held = {"HELD": "1"} if test == "vmsplice" else {}
    done = run(program, "-r", name, HOW=how, MIGRATE_PINNED_WRITE_CALLS="3", **held)
    outcome = {PASS: f"\nok 1 {name}\n", FAIL: f"\nnot ok 1 {name}\n",
               SKIP: f"\nok 1 {name} # SKIP inconclusive"}[result]
    assert outcome in done.stdout, done.stdout
    assert ("held_moved=0" in done.stdout) == (not held or result != FAIL), done.stdout
    assert ("lost_writes=0" in done.stdout) == (bool(held) or result != FAIL), done.stdout


@pytest.mark.parametrize("how, result", [
    ("at once", PASS), ("once", PASS), ("twice", PASS), ("defect", FAIL), ("before", SKIP)])
def test_memory_that_is_given_later_is_given(tree612: Path, tmp_path: Path, how: str, result: int
                                             ) -> None:
    """And what moves before anybody asks for memory proves nothing."""
    program = compiled(tree612, THPS, tmp_path / "thps", *wrapped(
        "fopen bind_range page_pfn file_write file_read_long"))
    done = run(program, HOW=how)
    assert done.returncode == result, done.stdout


@pytest.mark.parametrize("name, text, env", [
    ("hugetlb_cow_fault", COW_FORKS, {}), ("hugetlb_punch_private", PUNCH_FORKS, {}),
    ("hugetlb_pmd_unshare", UNSHARE_FORKS, {}), ("hugetlb_pmd_churn", CHURN_FORKS, {"OP": "fork"})])
def test_a_fork_that_fails_for_want_of_memory_is_tried_again(
        tree612: Path, tmp_path: Path, name: str, text: str, env: dict[str, str]) -> None:
    program = compiled(tree612, text, tmp_path / "forks", f'-DSOURCE="{name}.c"', "-pthread",
                       *wrapped("fork vm_event map_pud" if "churn" in name else "fork vm_event"))
    for error in (errno.EAGAIN, errno.ENOMEM):
        done = run(program, FAILS=str(error), **env)
        assert done.stdout.startswith("status 0 error 0 without 5 with 1"), done.stdout
    done = run(program, FAILS=str(errno.EPERM), **env)
    assert not done.stdout.startswith("status 0 "), done.stdout


@pytest.mark.parametrize("name, text, oom, other", [
    ("hugetlb_punch_private", PUNCH_FORKS, "killed 1 oom 1", "killed 1 oom 0"),
    ("hugetlb_pmd_unshare", UNSHARE_FORKS, "status 0 error 0 without 1 with 5",
     "status 256 error 10 "),
    ("hugetlb_pmd_churn", CHURN_FORKS, " oom 1", " oom 0")])
def test_the_oom_killer_is_told_from_a_failure(tree612: Path, tmp_path: Path, name: str, text: str,
                                               oom: str, other: str) -> None:
    program = compiled(tree612, text, tmp_path / "forks", f'-DSOURCE="{name}.c"', "-pthread",
                       *wrapped("fork vm_event map_pud" if "churn" in name else "fork vm_event"))
    for kill, said in (("oom", oom), ("other", other)):
        assert said in run(program, FAILS="0", KILL=kill, OP="fork").stdout


@pytest.mark.parametrize("lose, lost", [({}, 0), ({"LOSE": "1"}, 1)])
def test_what_a_child_wrote_that_has_ended_is_there(tree612: Path, tmp_path: Path,
                                                    lose: dict[str, str], lost: int) -> None:
    """Of some that exit, and some that are replaced."""
    program = compiled(tree612, CHURN_FORKS, tmp_path / "forks", '-DSOURCE="hugetlb_pmd_churn.c"',
                       *wrapped("fork vm_event map_pud"))
    said = run(program, FAILS="0", OP="end", **lose).stdout
    assert said == f"status 0 error 0 without 0 with 26 oom 0 execs 1 lost {lost}\n"


# ---- no skip after a failure: the harness would forget that ------------------------------------

@pytest.mark.parametrize("walks, of_b, of_none, result", [
    (100, 0, 0, PASS), (1, 0, 0, SKIP), (1, 1, 0, FAIL), (1, 0, 1, FAIL)])
def test_a_page_of_nobody_is_not_hidden_by_a_skip(tree612: Path, tmp_path: Path, walks: int,
                                                  of_b: int, of_none: int, result: int) -> None:
    program = compiled(tree612, GUP, tmp_path / "gup", "-pthread", *wrapped("ms_since"))
    done = run(program, *map(str, (walks, of_b, of_none)))
    assert done.returncode == result, done.stdout


@pytest.mark.parametrize("refused, kept, result", [
    (0, 0, PASS), (1, 0, SKIP), (0, 1, FAIL), (1, 1, FAIL)])
def test_poison_that_stays_is_not_hidden_by_a_skip(tree612: Path, tmp_path: Path, refused: int,
                                                   kept: int, result: int) -> None:
    program = compiled(tree612, POISON, tmp_path / "poison")
    done = run(program, *map(str, (refused, kept)))
    assert done.returncode == result, done.stdout


# What is not 0 if any of what a test expects is not as it should be.
COUNTS_ALL = {"hugetlb_truncate_fault": "control->bad", "hugetlb_pmd_protect": "allowed",
              "hugetlb_subpool": "last", "thp_cow_isolation": "left"}
# Two levels of brackets within those of the macro.
EXPECTS = re.compile(r"\bEXPECT_(\w+)\(((?:[^()]|\((?:[^()]|\([^()]*\))*\))*)\)")
# What ends a branch ends the function, and nothing comes after it.
ENDS = re.compile(r"\n\t\treturn;\n\t\}")


def guards(name: str, what: str, text: str) -> bool:
    """Whether nothing comes after this if @what was not as expected: a return, or a condition."""
    words = "|".join(re.escape(word) for word in (what, COUNTS_ALL.get(name)) if word)
    return "__test_passed(_metadata)" in text or ENDS.search(text) is not None or re.search(
        rf"\bif \((?:[^;{{}}]*\W)?(?:{words})(?:\W[^;{{}}]*)?\)\s*(?:return;|$)",
        text) is not None


def hidden(name: str, source: str) -> list[str]:
    """What a SKIP would take the place of."""
    bodies = re.findall(r"(?ms)^(?:\w[^;{}]*?(\w+)\(([^;{}]*))?^\{\n(.*?)^\}",
                        re.sub(r"(?s)/\*.*?\*/", "", source))
    expects = {called for called, _words, body in bodies if called and EXPECTS.search(body)}
    found = []
    for _called, _words, body in bodies:
        for skip in re.finditer(r"\bSKIP\(", body):
            before = body[:skip.start()]
            for one in EXPECTS.finditer(before):
                seen = one[2] if one[1] in ("TRUE", "FALSE") else one[2].split(",")[-1]
                if not guards(name, seen.strip(), before[one.end():]):
                    found.append(seen.strip())
            for call in re.finditer(r"\b(\w+)\(_metadata", before):
                if call[1] in expects and "__test_passed" not in before[call.end():]:
                    found.append(f"{call[1]}()")
    return found


@pytest.mark.parametrize("name", selftest.names())
def test_a_skip_takes_no_failures_place(name: str) -> None:
    assert hidden(name, (REPO / selftest.FOLDER / f"{name}.c").read_text()) == []


@pytest.mark.parametrize("guard, what", [
    ("few", ["a", "f(b)"]), ("!a && few", ["f(b)"]), ("!a && !f(b) && few", []),
    ("__test_passed(_metadata) && few", [])])
def test_what_a_skip_hides_is_seen(guard: str, what: list[str]) -> None:
    body = ('\tEXPECT_EQ(0, a)\n\t\tTH_LOG("a");\n\tEXPECT_FALSE(f(b));\n'
            f'\tif ({guard})\n\t\tSKIP(return, "few");\n')
    assert hidden("x", f"TEST_F(x, y)\n{{\n{body}}}\n") == what
    assert hidden("x", f"TEST_F(x, y)\n{{\n{body.replace('if', 'if (a || f(b)) return; if')}}}\n"
                  ) == []
    # An EXPECT in a function that is called.
    assert hidden("x", "static void z(struct __test_metadata *_metadata)\n{\n\tEXPECT_EQ(0, a);\n}"
                  f"\n\nTEST_F(x, y)\n{{\n\tz(_metadata);\n\tif ({guard})\n\t\tSKIP(return);\n"
                  "}\n") == ([] if "passed" in guard else ["z()"])


@pytest.mark.parametrize("what, rule", [
    ("right", ""), ("reaper", ""), ("end", "pairs"), ("hasty", "pairs"), ("sleep", "atomic"),
    ("part", "whole"), ("more", "narrow"), ("silent", "tlb"), ("late", "copy"),
    ("nothing", "told")])
def test_each_rule_for_notifiers_can_fail(tree612: Path, tmp_path: Path, what: str, rule: str
                                          ) -> None:
    said = run(compiled(tree612, RULES, tmp_path / "rules"), what).stdout.splitlines()
    assert (said[-1] == "wrong 0") == (rule == ""), said
    assert not rule or said[0].startswith(f"# {rule}: "), said
