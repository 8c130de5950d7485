// SPDX-License-Identifier: GPL-2.0
/*
 * A migration without a kernel, for the selftest's own writers, notes and
 * lines: two threads write as sharers do, and in between page 0 is copied.
 * "lose" takes the copy for the page in use, and the writers do not know of it;
 * "keep" the page that they write to. Also says when the copy was made.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migrate_journal.h"
#include "migrate_page.h"
#include "migrate_timeline.h"
#include "migrate_util.h"

#define NR_PAGES	4

int main(int argc, char **argv)
{
	struct memory mem = { .nr_pages = NR_PAGES, .page = pmd_size() };
	struct writers w = { .mem = &mem, .nr = 2 };
	struct place from = { 1, 0x178200 }, to = { 0, 0x138400 };
	struct call call = { .nr = 3, .hot = true };
	char *pages = calloc(NR_PAGES, pmd_size());
	char *copy = malloc(pmd_size());
	bool lose = argc == 2 && !strcmp(argv[1], "lose");
	unsigned long long begin, end;
	size_t len = MAX_WRITERS * JOURNAL_BYTES;
	int cpus[] = { 0, 0 };

	if (argc != 2 || !pages || !copy)
		return 2;
	mem.there = pages;
	cycles_start();
	if (writers_thread(&w, cpus, 2) ||
	    !writers_order(&w, WRITE, 0))
		return 2;
	w.each[0].cpu = 5;
	w.each[1].cpu = 6;
	usleep(20000);
	call.began = cycles();
	usleep(3000);
	begin = cycles();
	memcpy(copy, pages, len);
	end = cycles();
	usleep(5000);
	call.ended = cycles();
	if (!writers_order(&w, STOP, 0))
		return 2;
	if (!lose)
		memcpy(copy, pages, len);

	timeline_note(&w, &call, 0, &from, &to, copy);
	/* No news: one that lost nothing is shown for want of a better one. */
	call.nr = 4;
	timeline_note(&w, &call, 0, &from, &to, pages);
	timeline_print(&w);
	printf("copied %.0f %.0f\n", timeline_us(begin), timeline_us(end));
	return 0;
}
