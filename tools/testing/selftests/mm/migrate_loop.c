// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "migrate_loop.h"

int loop_open(int file, char path[LOOP_PATH_LEN], int flags)
{
	struct loop_info64 info = { .lo_flags = LO_FLAGS_AUTOCLEAR };
	int control, nr, fd = -1, tries, error = EBUSY;

	control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	if (control < 0)
		return -errno;
	/* Another may take the one that is free. */
	for (tries = 0; error == EBUSY && tries < 10; tries++) {
		nr = ioctl(control, LOOP_CTL_GET_FREE);
		snprintf(path, LOOP_PATH_LEN, "/dev/loop%d", nr);
		fd = nr < 0 ? -1 : open(path, O_RDWR | O_CLOEXEC | flags);
		error = fd < 0 || ioctl(fd, LOOP_SET_FD, file) ? errno : 0;
		if (error && fd >= 0)
			close(fd);
	}
	if (!error && ioctl(fd, LOOP_SET_STATUS64, &info)) {
		error = errno;
		ioctl(fd, LOOP_CLR_FD, 0);
		close(fd);
	}
	close(control);
	return error ? -error : fd;
}
