// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#ifndef IN_TREE
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#endif

#ifndef IN_TREE
#include "kselftest.h"
#endif
#include "migrate_mount.h"

#ifndef IN_TREE
/* A folder that is always there, in no use by who mounts. */
#define MOUNT_AT	"/proc"
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
