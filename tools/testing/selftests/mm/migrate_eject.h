/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Memory that is removed by ACPI: a DIMM which holds pages is ejected. The kernel
 * takes each block of it offline, migrates what is in them, removes the blocks,
 * and has the firmware take the DIMM.
 *
 *	the test		the kernel		QEMU
 *	plug the DIMM (QMP) --------------------------> adds it to its node
 *				has blocks of it <----- notifies
 *	have them movable
 *	move pages there
 *	write 1 to eject -----> migrates the pages,
 *				removes the blocks ---> takes it (_EJ0)
 *	see them gone
 *
 * Nothing inside a machine brings a DIMM back, so each is ejected once, if the
 * test has no monitor of QEMU. That gives the DIMM a node that has no other
 * memory, and none of it is there before the test and after it.
 *
 * Environment, one of these:
 *	MIGRATE_EJECT=PNP0C80:02	a device of /sys/bus/acpi/devices that may
 *					be taken away for good
 *	MIGRATE_EJECT_QMP=/dev/ttyS2	a line to the monitor of a QEMU with
 *					-object memory-backend-ram,id=eject0,size=256M,
 *					a slot for it, and a node without memory
 */
#ifndef _MIGRATE_EJECT_H
#define _MIGRATE_EJECT_H

#include "migrate_triggers.h"

extern const struct trigger trigger_acpi_eject;

/* Take away what the test has plugged, once its pages are free. */
void eject_end(void);

#endif /* _MIGRATE_EJECT_H */
