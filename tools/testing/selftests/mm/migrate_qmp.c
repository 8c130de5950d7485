// SPDX-License-Identifier: GPL-2.0
#include "migrate_qmp.h"

#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "migrate_util.h"

#define QMP_MS		5000	/* for one answer */
#define QUIET_MS	200	/* is all that was to come, if nothing comes for so long */

/* One that is too long is cut off. */
static bool qmp_line(int fd, char *line, size_t len)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	uint64_t start = cycles_clock();
	size_t nr = 0;
	char c;

	while (ms_since(start) < QMP_MS) {
		if (poll(&poll_fd, 1, 100) <= 0 || read(fd, &c, 1) != 1 ||
		    c == '\r')
			continue;
		if (c == '\n') {
			line[nr] = '\0';
			return true;
		}
		if (nr < len - 1)
			line[nr++] = c;
	}
	return false;
}

bool qmp_ask(int fd, const char *command, char *line, size_t len)
{
	if (dprintf(fd, "%s\n", command) < 0)
		return false;
	/* Events come in between. */
	while (qmp_line(fd, line, len)) {
		if (strstr(line, "\"return\""))
			return true;
		if (strstr(line, "\"error\""))
			return false;
	}
	return false;
}

static void qmp_drain(int fd)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	char buf[256];

	while (poll(&poll_fd, 1, QUIET_MS) > 0 && read(fd, buf, sizeof(buf)) > 0)
		;
}

int qmp_open(const char *path)
{
	struct termios tio;
	char line[1024];
	int fd;

	fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	if (!tcgetattr(fd, &tio)) {
		cfmakeraw(&tio);
		tcsetattr(fd, TCSANOW, &tio);
	}
	/*
	 * The greeting is there already, and a line that was not raw yet may have
	 * sent some of it back. 0xff makes the monitor forget that.
	 */
	qmp_drain(fd);
	if (write(fd, "\xff\n", 2) == 2) {
		qmp_drain(fd);
		/* An error if a test before this one has said it: no matter. */
		qmp_ask(fd, "{'execute':'qmp_capabilities'}", line, sizeof(line));
		if (qmp_ask(fd, "{'execute':'query-status'}", line, sizeof(line)))
			return fd;
	}
	close(fd);
	return -1;
}
