// SPDX-License-Identifier: GPL-2.0
/*
 * A migration without a kernel, for the selftest's own writers, notes and
 * lines: two threads write as sharers do, and in between page 0 is copied.
 * "lose" takes the copy for the page in use, and the writers do not know of it;
 * "keep" the page that they write to. Also says when the copy was made.
 */
#include "hugetlb_pmd_migrate.c"

#include <pthread.h>

static void *writer_main(void *arg)
{
	struct sharer *me = arg;

	write_pages(me, me->maps, me->cmd);
	return NULL;
}

int main(int argc, char **argv)
{
	static struct sharer sharers[MAX_WRITERS];
	struct state st = { .sharers = sharers, .nr_writers = 2 };
	struct place from = { 1, 0x178200 }, to = { 0, 0x138400 };
	struct call call = { .nr = 3, .hot = true };
	size_t len = MAX_WRITERS * JOURNAL_BYTES;
	static unsigned long long copy[MAX_WRITERS * JOURNAL_WORDS];
	char *pages = calloc(NR_PAGES, pmd_size());
	bool lose = argc == 2 && !strcmp(argv[1], "lose");
	unsigned long long begin, end;
	pthread_t threads[2];
	int i;

	if (argc != 2 || !pages)
		return 2;
	cycles_start();
	for (i = 0; i < st.nr_writers; i++) {
		/* The second has written before. */
		sharers[i].last = i * 1000;
		sharers[i].addr = pages;
		sharers[i].cpu = 5 + i;
		sharers[i].maps = i;
		sharers[i].cmd = OP_WRITE;
		pthread_create(&threads[i], NULL, writer_main, &sharers[i]);
	}
	usleep(20000);
	call.began = cycles();
	usleep(3000);
	begin = cycles();
	memcpy(copy, journal_of(pages, 0, 0), len);
	end = cycles();
	usleep(5000);
	call.ended = cycles();
	for (i = 0; i < st.nr_writers; i++)
		set_and_wake(&sharers[i].cmd, 1 << 4 | OP_STOP);
	for (i = 0; i < st.nr_writers; i++)
		pthread_join(threads[i], NULL);
	if (!lose)
		memcpy(copy, journal_of(pages, 0, 0), len);

	timeline_note(&st, &call, 0, &from, &to, (void *)copy);
	/* No news: one that lost nothing is shown for want of a better one. */
	call.nr = 4;
	timeline_note(&st, &call, 0, &from, &to, journal_of(pages, 0, 0));
	timeline_print(&st);
	printf("copied %.0f %.0f\n", timeline_us(begin), timeline_us(end));
	free(pages);
	return 0;
}
