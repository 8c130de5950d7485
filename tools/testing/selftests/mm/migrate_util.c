// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <linux/perf_event.h>
#include <numa.h>
#include <numaif.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#ifndef IN_TREE
#include <sys/mount.h>
#endif
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "migrate_util.h"
#include "vm_util.h"

#define GUARD_ENTRIES	4096
/* It is there wherever a test has something to put back. */
#define GUARD_LOCK	"/sys/kernel/mm"
#define GUARD_WAIT_MS	20000
#define FIRST_PID_NAMESPACE	"pid:[4026531836]"
#define ENV_MAX		1000000
#define NOBODY		65534
#define SHARE_TRIES	3
#define OFFLINE_SECONDS	10	/* for one memory block */
#define LOOK_MS		1000	/* for whether a process is runnable */
#define MAX_CPU_SETS	8
#define PATIENCE	3	/* times as long is the wait for one that is */
#define TAINT_DIE	0x80	/* a bit of /proc/sys/kernel/tainted */
#ifndef IN_TREE
/* A folder that is always there, in no use by who mounts. */
#define MOUNT_AT	"/proc"
#endif

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE	23
#endif
/* The same on all architectures that these tests are for. */
#ifndef __NR_fsopen
#define __NR_fsopen	430
#endif
#ifndef __NR_fsconfig
#define __NR_fsconfig	431
#endif
#ifndef __NR_fsmount
#define __NR_fsmount	432
#endif
#ifndef FSOPEN_CLOEXEC
#define FSOPEN_CLOEXEC	0x1
#endif
#ifndef FSMOUNT_CLOEXEC
#define FSMOUNT_CLOEXEC	0x1
#endif
#ifndef FSCONFIG_SET_FLAG
#define FSCONFIG_SET_FLAG	0
#endif
#ifndef FSCONFIG_SET_STRING
#define FSCONFIG_SET_STRING	1
#endif
#ifndef FSCONFIG_CMD_CREATE
#define FSCONFIG_CMD_CREATE	6
#endif

struct guard {
	bool left;	/* by the test: some of its processes will not end */
	unsigned int nr;
	struct {
		char path[112];
		char value[32];
	} undo[GUARD_ENTRIES];
};

static const char *block_zone(const char *state);

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

/*
 * What follows the name in /proc/<pid>/stat: the state, and numbers. NULL where
 * there is no such process.
 */
static char *stat_of(pid_t pid, char *buf, size_t len)
{
	char path[32], *field;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (file_read(path, buf, len))
		return NULL;
	/* The name, which is in brackets, may have anything in it. */
	field = strrchr(buf, ')');
	return field && field[1] == ' ' ? field + 2 : NULL;
}

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

static bool is_runnable(pid_t pid)
{
	char buf[512], *state = stat_of(pid, buf, sizeof(buf));

	return state && *state == 'R';
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

/* A number from beside @pool, the path of a node's nr_hugepages. */
static long pool_number(const char *pool, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%.*s/%s",
		 (int)(strrchr(pool, '/') - pool), pool, name);
	return file_read_long(path);
}

/*
 * What a write to nr_hugepages sets. A read of it counts surplus pages too,
 * which belong to somebody else and come and go by themselves.
 */
static long pool_persistent(const char *pool)
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

pid_t crew_fork(struct crew *crew)
{
	pid_t parent = getpid(), pid;

	if (crew->nr == CREW_MAX) {
		errno = EAGAIN;
		return -1;
	}
	pid = fork();
	if (pid > 0)
		crew->pids[crew->nr++] = pid;
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* The test may have died before that. */
	if (getppid() != parent)
		_exit(1);
	signal(SIGALRM, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	return 0;
}

int crew_nobody(void)
{
	if (setgroups(0, NULL) || setgid(NOBODY) || setuid(NOBODY))
		return errno;
	/* setuid(2) forgets it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	return 0;
}

void crew_give_up(int *word, int error)
{
	*word = error;
	_exit(1);
}

static bool has_ended(struct crew *crew, int nr)
{
	pid_t *pid = &crew->pids[nr];

	if (*pid && waitpid(*pid, &crew->status[nr], WNOHANG) == *pid)
		*pid = 0;
	return !*pid;
}

int crew_ended(struct crew *crew)
{
	int i, nr = 0;

	for (i = 0; i < crew->nr; i++)
		nr += has_ended(crew, i);
	return nr;
}

int crew_killed(const struct crew *crew)
{
	int i, nr = 0;

	for (i = 0; i < crew->nr; i++)
		nr += !crew->pids[i] && WIFSIGNALED(crew->status[i]) &&
		      WTERMSIG(crew->status[i]) == SIGKILL;
	return nr;
}

static bool any_runnable(const pid_t *pids, int nr)
{
	int i;

	for (i = 0; i < nr; i++)
		if (pids[i] > 0 && is_runnable(pids[i]))
			return true;
	return false;
}

/*
 * Who is runnable may have had no CPU, and who waits for him is not stuck either.
 * One look is not enough: a process that works may be asleep just then.
 */
bool within_limit(struct wait_limit *limit, const pid_t *pids, int nr, int ms)
{
	long passed;

	if (!limit->start)
		limit->start = cycles_clock();
	passed = ms_since(limit->start);
	if (passed + LOOK_MS < ms)
		return true;
	if (passed >= (long)ms * PATIENCE)
		return false;
	if (any_runnable(pids, nr))
		limit->seen = cycles_clock();
	return passed < ms || (limit->seen && ms_since(limit->seen) < LOOK_MS);
}

static void crew_tell(struct crew *crew)
{
	int i;

	/* No wait brings them back: the next is not to be as long. */
	for (i = 0; i < crew->nr && !crew->waited; i++)
		if (crew->pids[i])
			tell_where(crew->pids[i]);
	crew->waited = true;
}

bool crew_wait(struct crew *crew, int ms)
{
	struct wait_limit limit = {};

	while (crew_ended(crew) < crew->nr) {
		/* Where one was waited for in vain, it is not looked at again. */
		if (!within_limit(&limit, crew->pids,
				  crew->waited ? 0 : crew->nr, ms)) {
			crew_tell(crew);
			return false;
		}
		usleep(10 * 1000);
	}
	return true;
}

bool crew_kill(struct crew *crew, int ms)
{
	int i;

	for (i = 0; i < crew->nr; i++)
		if (crew->pids[i])
			kill(crew->pids[i], SIGKILL);
	return crew_wait(crew, ms);
}

bool crew_kill_one(struct crew *crew, int nr, int ms)
{
	struct wait_limit limit = {};

	if (crew->pids[nr])
		kill(crew->pids[nr], SIGKILL);
	while (!has_ended(crew, nr)) {
		if (!within_limit(&limit, &crew->pids[nr], 1, ms))
			return false;
		usleep(1000);
	}
	return true;
}

int crew_failed(const struct crew *crew)
{
	int i, nr = 0;

	for (i = 0; i < crew->nr; i++)
		nr += !crew->pids[i] && crew->status[i];
	return nr;
}

const char *crew_end(struct crew *crew, int fd, int ms)
{
	bool gone = crew_kill(crew, ms);

	if (fd >= 0)
		close(fd);
	/* The guardian must not wait for those who are stuck. */
	return guard_end(gone);
}

static void tell_lines(pid_t pid, const char *name)
{
	char path[48], line[512];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		ksft_print_msg("%s: %.*s\n", path, (int)strcspn(line, "\n"),
			       line);
	if (file)
		fclose(file);
}

void tell_where(pid_t pid)
{
	tell_lines(pid, "stat");	/* the state is in there */
	tell_lines(pid, "wchan");
	tell_lines(pid, "stack");
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

const char *mremap_lacks(char *from, char *to)
{
	char *moved = mremap(from, pmd_size(), pmd_size(),
			     MREMAP_MAYMOVE | MREMAP_FIXED, to);

	if (moved == MAP_FAILED)
		return "no mremap of huge pages on this kernel (since 5.16)";
	touch_pages(moved, 1);
	return page_pfn(0, moved) < 0 ?
	       "no page frames in pagemap: needs CAP_SYS_ADMIN" : NULL;
}

static int map_pud_as(int fd, char *addr, int prot)
{
	return mmap(addr, pud_size(), prot,
		    MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, 0) ==
	       MAP_FAILED ? errno : 0;
}

int map_pud(int fd, char *addr)
{
	return map_pud_as(fd, addr, PROT_READ | PROT_WRITE);
}

void unmap_pud(char *addr)
{
	mmap(addr, pud_size(), PROT_NONE,
	     MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

/* In a process that has touched none of it: no stale TLB entry saves a fault. */
static long faults_of_child(int fd, char *addr, int prot, int first, int nr)
{
	struct crew crew = {};
	pid_t pid = crew_fork(&crew);
	int status;

	if (pid < 0)
		return -errno;
	if (!pid) {
		/* This replaces the mapping that it has inherited. */
		if (map_pud_as(fd, addr, prot))
			_exit(0);
		/* Not to count the faults of the call itself. */
		touch_pages(addr, 0);
		_exit(touch_pages(addr + first * pmd_size(), nr));
	}
	if (waitpid(pid, &status, 0) != pid)
		return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) ?
	       WEXITSTATUS(status) : -EIO;
}

long faults_to_share(int fd, char *addr, int prot, int first, int nr)
{
	int tries, error = map_pud_as(fd, addr, prot);
	long faults = 0;

	if (error)
		return -error;
	touch_pages(addr + first * pmd_size(), nr);
	/* A fault that has nothing to do with these pages may be counted too. */
	for (tries = 0; tries < SHARE_TRIES && faults >= 0 && faults != 1;
	     tries++)
		faults = faults_of_child(fd, addr, prot, first, nr);
	unmap_pud(addr);
	return faults;
}

const char *not_shared(long faults, int nr)
{
	static char why[112];

	snprintf(why, sizeof(why),
		 "table not shared (%ld faults, %d pages): needs %s", faults,
		 nr, "CONFIG_HUGETLB_PMD_PAGE_TABLE_SHARING");
	return why;
}

static bool guard_has(const char *path)
{
	unsigned int i;

	for (i = 0; i < guard->nr; i++)
		if (!strcmp(guard->undo[i].path, path))
			return true;
	return false;
}

static void pool_file(char *path, size_t len, int node, const char *name)
{
	snprintf(path, len,
		 "/sys/devices/system/node/node%d/hugepages/hugepages-%zukB/%s",
		 node, pmd_size() >> 10, name);
}

long pool_reserved(void)
{
	char path[96], text[32];

	snprintf(path, sizeof(path),
		 "/sys/kernel/mm/hugepages/hugepages-%zukB/resv_hugepages",
		 pmd_size() >> 10);
	if (file_read(path, text, sizeof(text)))
		return 0;
	/* What is below zero is written as unsigned. */
	return (long)strtoul(text, NULL, 10);
}

/*
 * What others have reserved. Of which node it will be nobody knows. To be asked
 * before the test maps anything, so once for all.
 */
static long others_reserved(void)
{
	static long reserved = -1;

	if (reserved < 0)
		reserved = pool_reserved();
	if (reserved < 0)
		reserved = 0;
	return reserved;
}

/* Returns how many there are beyond what is reserved. */
static long pool_free(int node)
{
	long nr_free, reserved = others_reserved();
	char path[112];

	pool_file(path, sizeof(path), node, "free_hugepages");
	nr_free = file_read_long(path);
	if (nr_free < 0)
		return nr_free;
	return nr_free > reserved ? nr_free - reserved : 0;
}

/* How many that are free are wanted, for @want to be had. */
static long pool_needs(long want)
{
	return want + others_reserved();
}

long pool_fill(int node, long want)
{
	char path[112], value[32];
	long nr, nr_free;

	pool_file(path, sizeof(path), node, "free_hugepages");
	nr_free = file_read_long(path);
	if (nr_free < 0 || nr_free >= pool_needs(want))
		return pool_free(node);

	pool_file(path, sizeof(path), node, "nr_hugepages");
	nr = pool_persistent(path);
	if (nr < 0)
		return nr;
	if (!guard_has(path)) {
		snprintf(value, sizeof(value), "%ld", nr);
		if (guard_undo(path, value))
			return -ENOSPC;
	}
	snprintf(value, sizeof(value), "%ld", nr + pool_needs(want) - nr_free);
	file_write(path, value);
	return pool_free(node);
}

static __noreturn void on_sigbus(int sig)
{
	_exit(1);
}

/*
 * Whether this process can have @nr huge pages: the first ones of @fd, or others
 * where that is below zero. Those that are free may be reserved meanwhile, or more
 * than its hugetlb cgroup may have: it learns that when it touches them, by SIGBUS.
 * Returns 0 or -errno, -ENOSPC if it cannot.
 */
static int pool_gives(int fd, long nr)
{
	size_t i, step = pmd_size(), len = nr * step;
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE |
		    (ffsl(step) - 1) << MAP_HUGE_SHIFT;
	struct crew crew = {};
	pid_t pid = crew_fork(&crew);
	int status;
	char *addr;

	if (!pid) {
		signal(SIGBUS, on_sigbus);
		if (fd >= 0)
			flags = MAP_SHARED | MAP_NORESERVE;
		addr = mmap(NULL, len, PROT_READ | PROT_WRITE, flags, fd, 0);
		if (addr == MAP_FAILED)
			_exit(1);
		for (i = 0; i < len; i += step)
			addr[i] = 1;
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -errno;
	return status ? -ENOSPC : 0;
}

long pool_used(int node)
{
	long total, nr_free;
	char path[112];

	pool_file(path, sizeof(path), node, "nr_hugepages");
	total = file_read_long(path);
	pool_file(path, sizeof(path), node, "free_hugepages");
	nr_free = file_read_long(path);
	return total < 0 || nr_free < 0 ? 0 : total - nr_free;
}

const char *pool_lacks(const int *nodes, int nr, long want)
{
	static char why[128];
	long nr_free;
	int i, error;

	for (i = 0; i < nr; i++) {
		nr_free = pool_fill(nodes[i], want);
		if (nr_free >= want)
			continue;
		if (nr_free < 0)
			snprintf(why, sizeof(why),
				 "no huge pages of %zu KiB: needs CONFIG_HUGETLBFS",
				 pmd_size() >> 10);
		else
			snprintf(why, sizeof(why),
				 "%ld free huge pages on node %d, no more to be had: needs %ld",
				 nr_free, nodes[i], want);
		return why;
	}
	error = -pool_gives(-1, nr * want);
	if (error == ENOSPC) {
		snprintf(why, sizeof(why),
			 "%ld free huge pages, but this process cannot have them: a hugetlb cgroup's limit?",
			 nr * want);
		return why;
	}
	if (error) {
		snprintf(why, sizeof(why), "cannot fork a process: %s",
			 strerror(error));
		return why;
	}
	return NULL;
}

const char *populate_lacks(int fd, char *addr, int nr)
{
	static char why[96];
	int error = 0;

#ifndef IN_TREE
	/* Up to 5.10, what fallocate(2) has put into a file may never be migrated. */
#endif
	if (fd >= 0)
		error = -pool_gives(fd, nr);
	else if (madvise(addr, nr * pmd_size(), MADV_POPULATE_WRITE))
		error = errno;
#ifndef IN_TREE
	/* Up to 5.13 that cannot be asked for. */
	if (fd < 0 && error == EINVAL)
		return NULL;
#endif
	if (!error)
		return NULL;
	snprintf(why, sizeof(why), "huge pages were taken by others: %s",
		 strerror(error));
	return why;
}

/*
 * The options of a mount one by one: a word, or a word and what it is set to.
 * Returns 0 or -errno.
 */
static int mount_options(int context, const char *options)
{
	char copy[96], *option, *value, *rest = copy;

	if (snprintf(copy, sizeof(copy), "%s", options) >= (int)sizeof(copy))
		return -EINVAL;
	while ((option = strsep(&rest, ","))) {
		if (!*option)
			continue;
		value = strchr(option, '=');
		if (value)
			*value++ = '\0';
		if (syscall(__NR_fsconfig, context, value ? FSCONFIG_SET_STRING :
			    FSCONFIG_SET_FLAG, option, value, 0))
			return -errno;
	}
	return 0;
}

/* A mount that has no place at all. */
static int mount_unattached(const char *type, const char *options)
{
	int context = syscall(__NR_fsopen, type, FSOPEN_CLOEXEC), at, fd, ret;

	if (context < 0)
		return -errno;
	ret = mount_options(context, options);
	if (!ret && syscall(__NR_fsconfig, context, FSCONFIG_CMD_CREATE, NULL,
			    NULL, 0))
		ret = -errno;
	at = ret ? -1 : syscall(__NR_fsmount, context, FSMOUNT_CLOEXEC, 0);
	if (!ret && at < 0)
		ret = -errno;
	close(context);
	if (ret)
		return ret;
	/* That one is good for nothing but to begin paths at. */
	fd = openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ret = fd < 0 ? -errno : fd;
	close(at);
	return ret;
}

#ifndef IN_TREE
struct mount {
	const char *type;
	const char *options;
	int fd;			/* or -errno */
};

/* In a process that shares memory and files with the test, and no mounts. */
static int mount_main(void *arg)
{
	struct mount *want = arg;

	/* Whatever is mounted here is not to be mounted for others as well. */
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("none", MOUNT_AT, want->type, 0, want->options)) {
		want->fd = -errno;
		return 0;
	}
	want->fd = open(MOUNT_AT, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (want->fd < 0)
		want->fd = -errno;
	return 0;
}

/* The mounts of a process go with it, but for what is open. */
static int mount_elsewhere(const char *type, const char *options)
{
	struct mount want = { type, options, -EIO };
	pid_t pid;
	/* Of a type that is aligned as stacks are. */
	long double stack[512];

	pid = clone(mount_main, stack + ARRAY_SIZE(stack), CLONE_VM |
		    CLONE_VFORK | CLONE_FILES | CLONE_NEWNS | SIGCHLD, &want);
	if (pid < 0)
		return -errno;
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return want.fd;
}

#endif

int mount_nowhere(const char *type, const char *options)
{
	int fd, tries;

	if (!options)
		options = "";
#ifndef IN_TREE
	/* Up to 5.1 there is nobody to look at the address. */
	if (syscall(__NR_fsopen, NULL, 0) >= 0 || errno != EFAULT)
		return mount_elsewhere(type, options);
#endif
	/* One of cgroups is busy as long as the last such mount is on its way out. */
	for (tries = 0; tries < 20; tries++) {
		fd = mount_unattached(type, options);
		if (fd != -EBUSY)
			break;
		usleep(10 * 1000);
	}
	return fd;
}

int hugetlbfs_mount(const char *options)
{
	char opts[64];

	snprintf(opts, sizeof(opts), "pagesize=%zuK%s", pmd_size() >> 10,
		 options);
	return mount_nowhere("hugetlbfs", opts);
}

int hugetlbfs_file(int dir, size_t size)
{
	int fd, ret = 0;

	fd = openat(dir, "f", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, size))
		ret = -errno;
	unlinkat(dir, "f", 0);
	if (ret)
		close(fd);
	return ret ? ret : fd;
}

int hugetlbfs_open(size_t size)
{
	int dir = hugetlbfs_mount(""), fd;

	if (dir < 0)
		return dir;
	fd = hugetlbfs_file(dir, size);
	close(dir);
	return fd;
}

const char *file_lacks(int *fd, size_t size)
{
	static char why[96];

	*fd = hugetlbfs_open(size);
	if (*fd >= 0)
		return NULL;
	snprintf(why, sizeof(why), "cannot mount hugetlbfs: %s",
		 strerror(-*fd));
	return why;
}

long hugetlbfs_free(int dir)
{
	struct statfs buf;

	return fstatfs(dir, &buf) ? -errno : (long)buf.f_bfree;
}

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

/*
 * What is to be written to the file @state of a block that is online, to have it
 * in the same zone again. Unless the kernel says that it is another: Movable.
 */
static const char *block_zone(const char *state)
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

/*
 * HugetlbPages: has been in this file since 4.4. A file with huge pages that
 * nobody has mapped is not seen.
 */
bool pool_is_shared(void)
{
	char path[300], line[128];
	struct dirent *entry;
	bool found = false;
	long kib;
	FILE *file;
	DIR *dir;

	dir = opendir("/proc");
	while (dir && !found && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/%s/status", entry->d_name);
		if (entry->d_name[0] < '0' || entry->d_name[0] > '9' ||
		    getpgid(atoi(entry->d_name)) == getpgrp())
			continue;
		file = fopen(path, "re");
		while (file && fgets(line, sizeof(line), file))
			if (sscanf(line, "HugetlbPages: %ld", &kib) == 1)
				found = kib > 0;
		if (file)
			fclose(file);
	}
	if (dir)
		closedir(dir);
	return found;
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

size_t journal_check(const uint64_t *journal, unsigned int writer,
		     uint64_t last,
		     void (*lost)(const struct journal_loss *loss, void *arg),
		     void *arg)
{
	struct journal_loss loss;
	size_t count = 0;
	uint64_t slot;
	int ring;

	for (ring = 0; ring < JOURNAL_RINGS; ring++) {
		uint64_t nr = last >> (ring * JOURNAL_SHIFT);

		for (slot = 0; slot < JOURNAL_SLOTS; slot++) {
			/* The last number up to @nr that used this slot. */
			uint64_t back = (nr - slot) % JOURNAL_SLOTS;
			uint64_t want = 0;

			if (back < nr)
				want = journal_word(writer, nr - back);
			if (journal[slot] == want)
				continue;
			count++;
			if (!lost)
				continue;
			loss.word = ring * JOURNAL_SLOTS + slot;
			loss.write = (nr - back) << (ring * JOURNAL_SHIFT);
			loss.wrote = want;
			loss.found = journal[slot];
			lost(&loss, arg);
		}
		journal += JOURNAL_SLOTS;
	}
	return count;
}

/* The oldest number that @ring still holds after write @last. */
static uint64_t journal_oldest(int ring, uint64_t last)
{
	uint64_t nr = last >> (ring * JOURNAL_SHIFT);

	return nr < JOURNAL_SLOTS ? 1 : nr - JOURNAL_SLOTS + 1;
}

size_t journal_samples(const uint64_t *journal, const uint64_t *stamps,
		       unsigned int writer, uint64_t first, uint64_t last,
		       struct journal_sample *samples)
{
	size_t count = 0;
	int ring;

	for (ring = JOURNAL_RINGS - 1; ring > 0; ring--) {
		int shift = ring * JOURNAL_SHIFT;
		uint64_t nr = journal_oldest(ring, last), end = last + 1;

		/* From there on the ring below tells more. */
		if (ring > 1)
			end = journal_oldest(ring - 1, last) <<
			      (shift - JOURNAL_SHIFT);
		for (; nr << shift < end; nr++) {
			size_t slot = ring * JOURNAL_SLOTS + nr % JOURNAL_SLOTS;

			if (nr << shift < first)
				continue;
			samples[count].stamp = stamps[slot];
			samples[count].write = nr << shift;
			samples[count].lost = journal[slot] !=
					      journal_word(writer, nr);
			count++;
		}
	}
	return count;
}

size_t journal_thin(struct journal_sample *samples, size_t nr, size_t max)
{
	/* The first and the last stay: they say how long it was. */
	while (nr > max && nr > 2) {
		uint64_t shortest = UINT64_MAX;
		bool differs = true;
		size_t i, out = 1;

		for (i = 1; i < nr - 1; i++) {
			const struct journal_sample *s = &samples[i];
			uint64_t gap = s[1].stamp - s[-1].stamp;
			bool edge = s[-1].lost != s->lost ||
				    s[1].lost != s->lost;

			if (edge > differs)
				continue;
			if (edge == differs && gap >= shortest)
				continue;
			out = i;
			shortest = gap;
			differs = edge;
		}
		memmove(&samples[out], &samples[out + 1],
			(nr - out - 1) * sizeof(*samples));
		nr--;
	}
	return nr;
}
