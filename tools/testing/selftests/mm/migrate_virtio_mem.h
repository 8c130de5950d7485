/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Memory that a virtual machine gets and gives back, by a virtio-mem device of
 * QEMU. Nothing inside the machine can ask for that: it is QEMU that is told, by
 * its monitor (QMP) on a serial line.
 *
 *	requested size	0 ---> 256 MiB ---------------> 0
 *	the kernel	       has the memory	       migrates what is in it
 *
 * Environment:
 *	VIRTIO_MEM_QMP=/dev/ttyS2	the line
 *	VIRTIO_MEM_ID=vm0		the device, as QEMU calls it
 */
#ifndef _MIGRATE_VIRTIO_MEM_H
#define _MIGRATE_VIRTIO_MEM_H

#include <stdbool.h>
#include <stdint.h>

struct virtio_mem {
	int qmp;			/* 0: none */
	int node;
	uint64_t first_pfn, last_pfn;	/* of all that it may have */
	uint64_t without;		/* bytes of memory, if it has none */
};

/*
 * Find the device. Returns NULL, or a line that says what is missing.
 *
 * virtio_mem_request() asks for a size, and returns whether the machine has it
 * within @seconds. virtio_mem_plug() also waits as long until all is online.
 * virtio_mem_close() gives back what there is, which may take @seconds.
 */
const char *virtio_mem_lacks(struct virtio_mem *vm);
bool virtio_mem_request(const struct virtio_mem *vm, uint64_t bytes, int seconds);
bool virtio_mem_plug(const struct virtio_mem *vm, uint64_t bytes, int seconds);
void virtio_mem_close(struct virtio_mem *vm, int seconds);

#endif
