// SPDX-License-Identifier: GPL-2.0
/*
 * Writes to a journal as a writer does, ten ticks a write and STALL more before
 * write AT; the writes FROM..TO go astray. Says what is known of the writes
 * from FIRST on, MAX of them at most, one a line: time, number, kept or lost.
 *
 *	samples_main WRITES FROM TO AT STALL FIRST MAX
 */
#include <stdio.h>
#include <stdlib.h>

#include "migrate_journal.h"

int main(int argc, char **argv)
{
	static unsigned long long journal[JOURNAL_WORDS], old[JOURNAL_WORDS];
	static struct journal_sample samples[JOURNAL_SAMPLES];
	static unsigned long long stamps[JOURNAL_WORDS];
	unsigned long long arg[7], n, now = 0;
	size_t i, nr;

	if (argc != 8)
		return 2;
	for (i = 0; i < 7; i++)
		arg[i] = strtoull(argv[i + 1], NULL, 0);
	for (n = 1; n <= arg[0]; n++) {
		now += 10;
		if (n == arg[3])
			now += arg[4];
		journal_write((void *)(n >= arg[1] && n <= arg[2] ? old :
								    journal),
			      2, n);
		if (!(n % (1 << JOURNAL_SHIFT)))
			journal_stamp((void *)stamps, n, now);
	}
	nr = journal_samples((void *)journal, (void *)stamps, 2, arg[5], arg[0],
			     samples);
	nr = journal_thin(samples, nr, arg[6]);
	for (i = 0; i < nr; i++)
		printf("%llu %llu %s\n", (unsigned long long)samples[i].stamp,
		       (unsigned long long)samples[i].write,
		       samples[i].lost ? "lost" : "kept");
	return 0;
}
