// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "migrate_cgroup.h"
#include "migrate_mount.h"

#define V1		"v1"	/* cpuset is to go back to version 2 */

/* One that a test makes. It is a process of its own, so there is but one. */
static struct group {
	int root, dir;		/* the directories of all cgroups, and of its own */
	pid_t reaper;		/* who removes that, when this pipe is closed */
	int reap;
} group = { .dir = -1 };

static int write_in(int dir, const char *name, const char *value)
{
	int fd = openat(dir, name, O_WRONLY | O_CLOEXEC), error;

	error = fd < 0 || write(fd, value, strlen(value)) < 0 ? errno : 0;
	if (fd >= 0)
		close(fd);
	return error;
}

static bool read_in(int dir, const char *name, char *line, size_t len)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, line, len - 1);

	if (fd >= 0)
		close(fd);
	line[got > 0 ? got : 0] = 0;
	return got > 0;
}

/* Whether cpuset is one of version 1. */
static bool in_v1(void)
{
	FILE *file = fopen("/proc/cgroups", "r");
	bool found = false;
	char line[128];
	int nr;

	while (file && fgets(line, sizeof(line), file))
		found = found || (sscanf(line, "cpuset %d", &nr) == 1 && nr);
	if (file)
		fclose(file);
	return found;
}

/*
 * A process that removes the group when all who could be in it are gone, or have
 * left it, and writes @undo to the root's controllers, if there is one. The
 * guardian waits for it, too.
 */
static bool fork_reaper(const char *name, const char *undo)
{
	int tries, ends[2];
	char c;

	if (pipe(ends))
		return false;
	group.reap = ends[1];
	group.reaper = fork();
	if (group.reaper) {
		close(ends[0]);
		return group.reaper > 0;
	}
	setsid();
	close(ends[1]);
	while (read(ends[0], &c, 1) < 0 && errno == EINTR)
		;
	for (tries = 0; tries < 100; tries++) {
		if (!unlinkat(group.root, name, AT_REMOVEDIR) || errno != EBUSY)
			break;
		usleep(10000);
	}
	if (*undo && strcmp(undo, V1))
		write_in(group.root, "cgroup.subtree_control", undo);
	/*
	 * cpuset goes back to version 2 with the last file of version 1, unless
	 * the group is not gone yet, as it seems gone some time before it is.
	 */
	for (tries = 0; tries < 100 && !strcmp(undo, V1) && in_v1(); tries++) {
		close(group.root);
		usleep(10000);
		if (in_v1())
			group.root = mount_nowhere("cgroup", "cpuset");
	}
	_exit(0);
}

void group_leave(void)
{
	if (group.reaper <= 0)
		return;
	write_in(group.root, "cgroup.procs", "0");
	if (group.dir >= 0)
		close(group.dir);
	close(group.root);
	close(group.reap);
	waitpid(group.reaper, NULL, 0);
}

static bool make(const char *undo)
{
	char name[48];

	snprintf(name, sizeof(name), "migrate_lost_write-%d", getpid());
	if (!fork_reaper(name, undo) || mkdirat(group.root, name, 0755))
		return false;
	group.dir = openat(group.root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return group.dir >= 0;
}

/* Whether it is not for want of something in the kernel: NULL, or a line. */
static const char *mount_lacks(int error, const char *need)
{
	static char why[96];

	if (error != EROFS && error != EACCES && error != EPERM)
		return need;
	snprintf(why, sizeof(why), "cannot mount cgroups: %s", strerror(error));
	return why;
}

const char *group_lacks(const char *controller, const char *need)
{
	char line[256], change[16], undo[16] = "";

	group.root = mount_nowhere("cgroup2", NULL);
	if (group.root < 0)
		return mount_lacks(-group.root, "needs CONFIG_CGROUPS");
	read_in(group.root, "cgroup.controllers", line, sizeof(line));
	if (!strstr(line, controller))
		return need;
	read_in(group.root, "cgroup.subtree_control", line, sizeof(line));
	if (!strstr(line, controller)) {
		snprintf(change, sizeof(change), "+%s", controller);
		snprintf(undo, sizeof(undo), "-%s", controller);
		if (write_in(group.root, "cgroup.subtree_control", change))
			return "the controller cannot be enabled for cgroups";
	}
	if (!make(undo))
		return "cannot make a cgroup";
	return write_in(group.dir, "cgroup.procs", "0") ?
	       "cannot enter a cgroup" : NULL;
}

/* There nobody can enter before it has CPUs and nodes, and pages stay by default. */
const char *group_lacks_v1(const char *need)
{
	char cpus[256], nodes[256];
	bool was = in_v1();

	group.root = mount_nowhere("cgroup", "cpuset");
	if (group.root < 0)
		return mount_lacks(-group.root, need);
	if (!read_in(group.root, "cpuset.cpus", cpus, sizeof(cpus)) ||
	    !read_in(group.root, "cpuset.mems", nodes, sizeof(nodes)))
		return "cpuset of cgroups of version 1 says no CPUs";
	if (!make(was ? "" : V1))
		return "cannot make a cgroup of version 1";
	return group_write("cpuset.cpus", cpus) ||
	       group_write("cpuset.mems", nodes) ||
	       group_write("cpuset.memory_migrate", "1") ||
	       group_write("cgroup.procs", "0") ?
	       "cannot enter a cgroup of version 1" : NULL;
}

bool group_has(const char *name)
{
	return !faccessat(group.dir, name, W_OK, 0);
}

int group_write(const char *name, const char *value)
{
	return write_in(group.dir, name, value);
}
