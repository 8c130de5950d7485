// SPDX-License-Identifier: GPL-2.0
/*
 * Writes to a journal as a writer does, but for the writes FROM..TO, which go
 * astray, and says how many the check finds: journal_main WRITES FROM TO
 */
#include <stdio.h>
#include <stdlib.h>

#include "migrate_journal.h"

int main(int argc, char **argv)
{
	static unsigned long long journal[JOURNAL_WORDS], old[JOURNAL_WORDS];
	unsigned long long n, writes, from, to;

	if (argc != 4)
		return 2;
	writes = strtoull(argv[1], NULL, 0);
	from = strtoull(argv[2], NULL, 0);
	to = strtoull(argv[3], NULL, 0);
	for (n = 1; n <= writes; n++)
		journal_write((void *)(n >= from && n <= to ? old : journal),
			      3, n);
	printf("%zu\n",
	       journal_check((void *)journal, 3, writes, NULL, NULL));
	return 0;
}
