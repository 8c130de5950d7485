// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_util.h"

#define NOBODY		65534
#define LOOK_MS		1000	/* for whether a process is runnable */
#define PATIENCE	3	/* times as long is the wait for one that is */

static bool is_runnable(pid_t pid)
{
	char buf[512], *state = stat_of(pid, buf, sizeof(buf));

	return state && *state == 'R';
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
