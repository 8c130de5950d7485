// SPDX-License-Identifier: GPL-2.0
#include "migrate_virtio_mem.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "migrate_util.h"
#include "vm_util.h"

#define QMP_SECONDS	5

/* QEMU's monitor. Each answer is a line; events come in between. */

static bool qmp_line(int fd, char *line, size_t len)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	uint64_t start = cycles_clock();
	size_t nr = 0;
	char c;

	while (ms_since(start) < QMP_SECONDS * 1000) {
		if (poll(&poll_fd, 1, 100) <= 0 || read(fd, &c, 1) != 1)
			continue;
		if (c == '\r')
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

/* Returns whether there was an answer that is no error, with it in @line. */
static bool qmp(int fd, char *line, size_t len, const char *command)
{
	if (dprintf(fd, "%s\n", command) < 0)
		return false;
	while (qmp_line(fd, line, len)) {
		if (strstr(line, "\"return\""))
			return true;
		if (strstr(line, "\"error\""))
			return false;
	}
	return false;
}

/* Read and forget, until nothing has come for a while. */
static void qmp_drain(int fd)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	char buf[256];

	while (poll(&poll_fd, 1, 200) > 0 && read(fd, buf, sizeof(buf)) > 0)
		;
}

static int qmp_open(const char *path)
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
	 * The monitor has greeted us, and the line, not yet raw, may have
	 * echoed a part of that: 0xff makes it forget what it has got so far.
	 */
	qmp_drain(fd);
	if (write(fd, "\xff\n", 2) != 2) {
		close(fd);
		return -1;
	}
	qmp_drain(fd);
	/* Said once to a monitor, and then again: an error, and no matter. */
	qmp(fd, line, sizeof(line), "{'execute':'qmp_capabilities'}");
	if (!qmp(fd, line, sizeof(line), "{'execute':'query-status'}")) {
		close(fd);
		return -1;
	}
	return fd;
}

/* The device. */

static const char *device_id(void)
{
	const char *id = getenv("VIRTIO_MEM_ID");

	return id ? id : "vm0";
}

static long long device_size(const struct virtio_mem *vm)
{
	char line[1024], command[256], *at;

	snprintf(command, sizeof(command),
		 "{'execute':'qom-get','arguments':{'path':'%s','property':'size'}}",
		 device_id());
	if (!qmp(vm->qmp, line, sizeof(line), command))
		return -1;
	at = strstr(line, "\"return\":");
	return at ? strtoll(at + strlen("\"return\":"), NULL, 10) : -1;
}

/* Where its memory is: nothing else in the machine says it. */
static bool device_range(struct virtio_mem *vm)
{
	char line[1024], id[64], *at, *addr, *size, *on;

	if (!qmp(vm->qmp, line, sizeof(line), "{'execute':'query-memory-devices'}"))
		return false;
	snprintf(id, sizeof(id), "\"id\": \"%s\"", device_id());
	at = strstr(line, id);
	addr = strstr(line, "\"memaddr\":");
	size = strstr(line, "\"max-size\":");
	on = strstr(line, "\"node\":");
	if (!at || !addr || !size || !on)
		return false;
	vm->first_pfn = strtoull(addr + strlen("\"memaddr\":"), NULL, 10) / psize();
	vm->last_pfn = vm->first_pfn - 1 +
		       strtoull(size + strlen("\"max-size\":"), NULL, 10) / psize();
	vm->node = atoi(on + strlen("\"node\":"));
	return true;
}

static uint64_t total_ram(void)
{
	return sysconf(_SC_PHYS_PAGES) * psize();
}

const char *virtio_mem_lacks(struct virtio_mem *vm)
{
	const char *path = getenv("VIRTIO_MEM_QMP");
	static char why[128];

	if (!path)
		return "needs virtio-mem, and VIRTIO_MEM_QMP=/dev/tty...";
	vm->qmp = qmp_open(path);
	if (vm->qmp < 0) {
		vm->qmp = 0;
		snprintf(why, sizeof(why), "no monitor of QEMU's answers at %s", path);
		return why;
	}
	if (device_range(vm)) {
		vm->without = total_ram() - device_size(vm);
		return NULL;
	}
	snprintf(why, sizeof(why), "QEMU has no virtio-mem device %s", device_id());
	return why;
}

bool virtio_mem_request(const struct virtio_mem *vm, uint64_t bytes, int seconds)
{
	uint64_t start = cycles_clock();
	char line[1024], command[256];

	snprintf(command, sizeof(command),
		 "{'execute':'qom-set','arguments':{'path':'%s',%s,'value':%llu}}",
		 device_id(), "'property':'requested-size'",
		 (unsigned long long)bytes);
	if (!qmp(vm->qmp, line, sizeof(line), command))
		return false;
	do {
		if (device_size(vm) == (long long)bytes)
			return true;
		usleep(20 * 1000);
	} while (ms_since(start) < seconds * 1000);
	return false;
}

bool virtio_mem_plug(const struct virtio_mem *vm, uint64_t bytes, int seconds)
{
	uint64_t start;

	if (!virtio_mem_request(vm, bytes, seconds))
		return false;
	/* Plugged is not yet online, and a part of it may be for its own pages. */
	start = cycles_clock();
	while (total_ram() < vm->without + bytes / 10 * 9) {
		if (ms_since(start) >= seconds * 1000)
			return false;
		usleep(20 * 1000);
	}
	return true;
}

void virtio_mem_close(struct virtio_mem *vm, int seconds)
{
	if (!vm->qmp)
		return;
	virtio_mem_request(vm, 0, seconds);
	close(vm->qmp);
	vm->qmp = 0;
}
