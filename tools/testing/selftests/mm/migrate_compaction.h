/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Compaction moves pages from the low end of a zone to holes at its high end. So
 * before each call ours are taken to low frames, and holes are made above them. It
 * leaves pages alone that are as large as a PMD maps.
 */
#ifndef _MIGRATE_COMPACTION_H
#define _MIGRATE_COMPACTION_H

#include "migrate_triggers.h"

extern const struct trigger trigger_compaction;

#endif /* _MIGRATE_COMPACTION_H */
