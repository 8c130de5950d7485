// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest.h"
#include "migrate_guard.h"
#include "migrate_util.h"

#define GUARD_ENTRIES	4096
/* It is there wherever a test has something to put back. */
#define GUARD_LOCK	"/sys/kernel/mm"
#define GUARD_WAIT_MS	20000
#define FIRST_PID_NAMESPACE	"pid:[4026531836]"
#define TAINT_DIE	0x80	/* a bit of /proc/sys/kernel/tainted */

struct guard {
	bool left;	/* by the test: some of its processes will not end */
	unsigned int nr;
	struct {
		char path[112];
		char value[32];
	} undo[GUARD_ENTRIES];
};

static struct guard *guard;
static int guard_pipe = -1;
static pid_t guard_pid;
static bool had_died;		/* the kernel, before the test */

/* A process, and not another one that has its number now. */
struct process {
	pid_t pid;
	unsigned long long start;	/* when it was, in the kernel's ticks */
};

/* The program as the user started it; tests are its children's children. */
static struct process program;
static pid_t program_group;

/* What its tests leave to those after them, and to the program itself. */
static struct {
	bool guarded;	/* one had a guardian */
	bool left;	/* and processes that did not end */
} *program_tests;

/* 0 where there is no such process, or it is dead and nobody has waited for it. */
static unsigned long long start_of(pid_t pid)
{
	char buf[512], *field = stat_of(pid, buf, sizeof(buf));
	int i;

	if (!field || *field == 'Z' || *field == 'X')
		return 0;
	for (i = 3; field && i < 22; i++)
		field = strchr(field + 1, ' ');
	return field ? strtoull(field, NULL, 10) : 0;
}

static struct process this_process(void)
{
	return (struct process){ getpid(), start_of(getpid()) };
}

static bool is_gone(const struct process *process)
{
	/* Where there is no /proc, this must do. */
	if (!process->start)
		return kill(process->pid, 0) && errno == ESRCH;
	return start_of(process->pid) != process->start;
}

static __attribute__((constructor)) void note_program(void)
{
	program = this_process();
	program_group = getpgrp();
	program_tests = share_memory(sizeof(*program_tests));
}

/*
 * What a test has changed is not to be taken for what was there before, by the
 * next test or by another program. The harness ends a test whose setup is
 * skipped or fails as if it were killed, and its guardian is then still at work.
 * So each guardian has a lock for as long as it lives.
 *
 * Returns a descriptor or -errno.
 */
static int guard_lock(void)
{
	int fd = open(GUARD_LOCK, O_RDONLY | O_DIRECTORY | O_CLOEXEC), ret;
	uint64_t start = cycles_clock();

	if (fd < 0)
		return -errno;
	while (flock(fd, LOCK_EX | LOCK_NB)) {
		ret = errno == EWOULDBLOCK ? -EBUSY : -errno;
		if (ret != -EBUSY || ms_since(start) >= GUARD_WAIT_MS) {
			close(fd);
			return ret;
		}
		usleep(10 * 1000);
	}
	return fd;
}

/* The program does not end before all is as it was. */
static __attribute__((destructor)) void wait_for_guardian(void)
{
	int lock;

	if (getpid() != program.pid || !program_tests ||
	    !program_tests->guarded)
		return;
	lock = guard_lock();
	if (lock >= 0)
		close(lock);
}

/* A number from beside @pool, the path of a node's nr_hugepages. */
static long pool_number(const char *pool, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%.*s/%s",
		 (int)(strrchr(pool, '/') - pool), pool, name);
	return file_read_long(path);
}

long pool_persistent(const char *pool)
{
	long nr = file_read_long(pool);
	long surplus = pool_number(pool, "surplus_hugepages");

	return nr < 0 || surplus < 0 ? nr : nr - surplus;
}

/*
 * Returns whether the pool has @want persistent pages now.
 *
 * Pages that are in use when a pool shrinks become surplus, to be freed by
 * their last user. The count of these is one a node, and a page that moves to
 * the other node before it is freed leaves the count behind: a page that is
 * free stays in the pool as surplus for good. To ask for as many pages as there
 * are makes it persistent, and it can then be taken away.
 */
static bool pool_restore(const char *pool, const char *want)
{
	char all[32];

	if (pool_number(pool, "surplus_hugepages") > 0 &&
	    pool_number(pool, "free_hugepages") > 0) {
		snprintf(all, sizeof(all), "%ld", file_read_long(pool));
		file_write(pool, all);
	}
	if (pool_persistent(pool) != atol(want))
		file_write(pool, want);
	return pool_persistent(pool) == atol(want);
}

const char *block_zone(const char *state)
{
	char path[64], zones[64];

	snprintf(path, sizeof(path), "%.*s/valid_zones",
		 (int)(strrchr(state, '/') - state), state);
#ifndef IN_TREE
	/* Up to 4.12 others may follow, which it is not in. */
#endif
	if (file_read(path, zones, sizeof(zones)) ||
	    !strncmp(zones, "Movable", 7) || !strncmp(zones, "none", 4))
		return "online_movable";
	return "online_kernel";
}

/*
 * Have a memory block in the zone @want, "online_kernel" or "online_movable",
 * that it was in. One that a test has brought back for the time being may be in
 * another: it has to leave first.
 */
static void block_restore(const char *path, const char *want)
{
	char state[16];

	if (file_read(path, state, sizeof(state)))
		return;
	if (!strcmp(state, "online")) {
		if (!strcmp(block_zone(path), want) || file_write(path, "offline"))
			return;
	}
	if (file_write(path, want))
		file_write(path, "online");
}

/* Write all of it back, newest first; returns whether the pools obeyed. */
static bool write_back(void)
{
	bool obeyed = true;
	unsigned int i;

	for (i = guard->nr; i-- > 0;) {
		const char *path = guard->undo[i].path;
		const char *value = guard->undo[i].value;

		if (strstr(path, "/nr_hugepages"))
			obeyed = pool_restore(path, value) && obeyed;
		else if (!strncmp(value, "online_", 7))
			block_restore(path, value);
		else
			file_write(path, value);
	}
	return obeyed;
}

static bool has_pool(void)
{
	unsigned int i;

	for (i = 0; i < guard->nr; i++)
		if (strstr(guard->undo[i].path, "/nr_hugepages"))
			return true;
	return false;
}

/*
 * The pipe tells that the last process is about to be gone. After a kill its
 * huge pages may still be on their way back to the pool, which then ends up
 * larger than it was told to be. So go on looking until all has been well for
 * a second.
 */
static void settle(bool killed)
{
	int tries, well = 0, wanted = killed && has_pool() ? 11 : 1;

	for (tries = 0; tries < 100; tries++) {
		well = write_back() ? well + 1 : 0;
		if (well == wanted)
			break;
		usleep(100 * 1000);
	}
}

/* Which memory blocks are not as they were: they may hold what cannot leave. */
static void tell_blocks(void)
{
	char state[16];
	unsigned int i;

	for (i = 0; i < guard->nr; i++) {
		const char *path = guard->undo[i].path;
		const char *value = guard->undo[i].value;

		if (strncmp(value, "online_", 7) ||
		    file_read(path, state, sizeof(state)))
			continue;
		/* Not by printf(), which has what the test did not print yet. */
		if (strcmp(state, "online") || strcmp(block_zone(path), value))
			dprintf(STDOUT_FILENO, "# %s: cannot be %s again\n",
				path, value);
	}
}

static void kill_test(const struct process *test, const struct process *leader)
{
	/*
	 * All the test's processes are in a group of their own, if the harness
	 * is one that makes it; do not kill the user's. Its leader is the test,
	 * or the harness's process between the program and the test.
	 */
	if (leader->pid == program_group) {
		if (!is_gone(test))
			kill(test->pid, SIGKILL);
	} else if (start_of(leader->pid) == leader->start ||
		   !start_of(leader->pid)) {
		/* Its number is nobody else's as long as anybody is in it. */
		kill(-leader->pid, SIGKILL);
	}
}

static __noreturn void guard_main(int fd, const struct process *test,
				  const struct process *leader,
				  const sigset_t *unblocked)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	bool done = false;
	char byte;

	/*
	 * A session of its own: Ctrl-C and a kill of the test's process group
	 * must not reach the one that puts things back.
	 */
	setsid();
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	sigprocmask(SIG_SETMASK, unblocked, NULL);

	/*
	 * A program that is killed does not take its tests along: the harness
	 * has a process in between, so PR_SET_PDEATHSIG does not tell them.
	 *
	 * The end of the pipe alone does not say that all went well: a test that
	 * is killed closes it as well.
	 */
	for (;;) {
		if (poll(&pfd, 1, 200) > 0) {
			if (read(fd, &byte, 1) != 1)
				break;
			done = true;
		} else if (__atomic_load_n(&guard->left, __ATOMIC_ACQUIRE)) {
			done = true;
			break;
		} else if (is_gone(&program)) {
			kill_test(test, leader);
		}
	}
	settle(!done);
	tell_blocks();
	_exit(0);
}

int guard_start(void)
{
	struct process test = this_process();
	struct process leader = { getpgrp(), start_of(getpgrp()) };
	sigset_t blocked, unblocked;
	int fds[2], ret, lock;

	guard = mmap(NULL, sizeof(*guard), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (guard == MAP_FAILED)
		return -errno;
	lock = guard_lock();
	if (lock < 0) {
		munmap(guard, sizeof(*guard));
		return lock;
	}
	if (pipe2(fds, O_CLOEXEC)) {
		ret = -errno;
		close(lock);
		return ret;
	}
	/* Whoever kills all of the test is not to meet it half ready. */
	sigfillset(&blocked);
	sigprocmask(SIG_SETMASK, &blocked, &unblocked);
	guard_pid = fork();
	if (!guard_pid) {
		close(fds[1]);
		guard_main(fds[0], &test, &leader, &unblocked);
	}
	ret = guard_pid < 0 ? -errno : 0;
	sigprocmask(SIG_SETMASK, &unblocked, NULL);
	/* The guardian has the lock now, and nobody else. */
	close(lock);
	close(fds[0]);
	if (ret) {
		close(fds[1]);
		return ret;
	}
	if (program_tests)
		program_tests->guarded = true;
	guard_pipe = fds[1];
	return 0;
}

bool kernel_has_died(void)
{
	long tainted = file_read_long("/proc/sys/kernel/tainted");

	/* Where nobody says, it has not. */
	return tainted > 0 && tainted & TAINT_DIE;
}

const char *rights_lack(void)
{
	static const struct {
		int nr;
		const char *why;
	} wanted[] = {
		{ CAP_SYS_ADMIN, "needs root with CAP_SYS_ADMIN" },
		{ CAP_SYS_NICE, "needs root with CAP_SYS_NICE" },
	};
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
	size_t i;

	had_died = kernel_has_died();
	if (syscall(SYS_capget, &header, data))
		return "cannot tell which capabilities it has";
	for (i = 0; i < ARRAY_SIZE(wanted); i++)
		if (!(data[CAP_TO_INDEX(wanted[i].nr)].effective &
		      CAP_TO_MASK(wanted[i].nr)))
			return wanted[i].why;
	return NULL;
}

/*
 * All processes of a PID namespace die with its first one, the guardian too. An
 * inode number that is the same for all kernels tells the one that does not end.
 */
static bool in_first_pid_namespace(void)
{
	char name[32];
	ssize_t len = readlink("/proc/self/ns/pid", name, sizeof(name) - 1);

	if (len < 0)
		return true;
	name[len] = '\0';
	return !strcmp(name, FIRST_PID_NAMESPACE);
}

const char *guard_lacks(void)
{
	const char *lack;
	static char why[96];
	int ret;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	lack = rights_lack();
	if (lack)
		return lack;
	if (!in_first_pid_namespace())
		return "settings would be lost with the PID namespace: needs the first one";
	ret = guard_start();
	if (!ret)
		return NULL;
	if (ret == -EBUSY)
		return "another test has changed settings, and not put them back yet";
	snprintf(why, sizeof(why), "nobody can put settings back: %s",
		 strerror(-ret));
	return why;
}

bool guard_has(const char *path)
{
	unsigned int i;

	for (i = 0; i < guard->nr; i++)
		if (!strcmp(guard->undo[i].path, path))
			return true;
	return false;
}

int guard_undo(const char *path, const char *value)
{
	unsigned int i;

	/* The same as often as a test likes, such as in each of its rounds. */
	for (i = 0; i < guard->nr; i++)
		if (!strcmp(guard->undo[i].path, path) &&
		    !strcmp(guard->undo[i].value, value))
			return 0;
	if (guard->nr == GUARD_ENTRIES ||
	    strlen(path) >= sizeof(guard->undo[0].path) ||
	    strlen(value) >= sizeof(guard->undo[0].value))
		return -ENOSPC;
	memcpy(guard->undo[guard->nr].path, path, strlen(path) + 1);
	memcpy(guard->undo[guard->nr].value, value, strlen(value) + 1);
	/* The guardian may be called on at any time: count it when whole. */
	__atomic_store_n(&guard->nr, guard->nr + 1, __ATOMIC_RELEASE);
	return 0;
}

void guard_stop(void)
{
	if (guard_pipe < 0)
		return;
	/* What is not said is taken for a kill, which takes longer. */
	if (write(guard_pipe, "d", 1) != 1)
		printf("# the guardian is gone: settings stay changed\n");
	close(guard_pipe);
	guard_pipe = -1;
	while (waitpid(guard_pid, NULL, 0) < 0 && errno == EINTR)
		;
	munmap(guard, sizeof(*guard));
}

void guard_leave(void)
{
	if (guard_pipe < 0)
		return;
	if (program_tests)
		program_tests->left = true;
	__atomic_store_n(&guard->left, true, __ATOMIC_RELEASE);
	close(guard_pipe);
	guard_pipe = -1;
}

bool guard_left(void)
{
	return program_tests && program_tests->left;
}

const char *guard_end(bool gone)
{
	if (gone)
		guard_stop();
	else
		guard_leave();
	/* This one first: it is why a process may be stuck. */
	if (!had_died && kernel_has_died())
		return "the kernel has died of something: see its log";
	return gone ? NULL : "a process cannot be killed";
}

const char *churn_lacks(const char *how)
{
	const char *allow = getenv("HUGETLB_PMD_CHURN");
	static char why[160];

	if (allow && !strcmp(allow, "1"))
		return NULL;
	snprintf(why, sizeof(why),
		 "%s: HUGETLB_PMD_CHURN=1 runs it, not on a machine that does work",
		 how);
	return why;
}
