// SPDX-License-Identifier: GPL-2.0
#include "migrate_virtio_mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migrate_qmp.h"
#include "migrate_util.h"
#include "vm_util.h"

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
	if (!qmp_ask(vm->qmp, command, line, sizeof(line)))
		return -1;
	at = strstr(line, "\"return\":");
	return at ? strtoll(at + strlen("\"return\":"), NULL, 10) : -1;
}

/* Where its memory is: nothing else in the machine says it. */
static bool device_range(struct virtio_mem *vm)
{
	char line[1024], id[64], *at, *addr, *size, *on;

	if (!qmp_ask(vm->qmp, "{'execute':'query-memory-devices'}", line,
		     sizeof(line)))
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
	if (!qmp_ask(vm->qmp, command, line, sizeof(line)))
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
