/* SPDX-License-Identifier: GPL-2.0 */
/* DAMON is told to migrate the page frames that the memory lies in. */
#ifndef _MIGRATE_DAMON_H
#define _MIGRATE_DAMON_H

#include "migrate_triggers.h"

extern const struct trigger trigger_damon;

#endif /* _MIGRATE_DAMON_H */
