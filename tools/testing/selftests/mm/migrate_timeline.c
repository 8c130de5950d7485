// SPDX-License-Identifier: GPL-2.0
#include <stdio.h>

#include "migrate_journal.h"
#include "migrate_timeline.h"
#include "migrate_util.h"

#define SAMPLES_MAX	60	/* writes told of, a writer */

/* Each test is a process of its own. */
static struct {
	enum { NONE, RESTED, HOT, LOSSY } what;	/* the last is wanted most */
	struct call call;
	int page;
	struct place from, to;
	size_t lost;		/* words of the journals */
	struct {
		size_t nr;
		uint64_t first;	/* write of the round */
		uint64_t last;
		long faults;
		struct journal_sample samples[JOURNAL_SAMPLES];
	} writers[MAX_WRITERS];
} noted;

static const uint64_t *journal_of(const struct writers *w, int page, int writer,
				  const char *view)
{
	return (const uint64_t *)(view + writers_offset(w, page, writer));
}

void timeline_note(const struct writers *w, const struct call *call, int page,
		   const struct place *from, const struct place *to,
		   const char *view)
{
	size_t lost = 0;
	int what, i;

	for (i = 0; i < w->nr; i++)
		lost += journal_check(journal_of(w, page, i, view), i,
				      w->each[i].last, NULL, NULL);
	what = lost ? LOSSY : call->hot ? HOT : RESTED;
	if (what <= (int)noted.what)
		return;

	noted.what = what;
	noted.call = *call;
	noted.page = page;
	noted.from = *from;
	noted.to = *to;
	noted.lost = lost;
	for (i = 0; i < w->nr; i++) {
		const struct writer *one = &w->each[i];

		noted.writers[i].first = one->first;
		noted.writers[i].last = one->last;
		noted.writers[i].faults = one->write_faults;
		noted.writers[i].nr =
			journal_samples(journal_of(w, page, i, view),
					one->stamps, i, one->first, one->last,
					noted.writers[i].samples);
	}
}

double timeline_us(uint64_t stamp)
{
	uint64_t began = noted.call.began;

	return stamp < began ? -cycles_to_us(began - stamp) :
			       cycles_to_us(stamp - began);
}

/* The samples that are @lost, or those that are not, as time:write,... */
static void print_list(const char *key, const struct journal_sample *samples,
		       size_t nr, uint64_t first, bool lost)
{
	const char *comma = "";
	size_t i;

	printf(" %s=", key);
	for (i = 0; i < nr; i++) {
		if (samples[i].lost != lost)
			continue;
		printf("%s%.0f:%llu", comma, timeline_us(samples[i].stamp),
		       (unsigned long long)(samples[i].write - first + 1));
		comma = ",";
	}
}

void timeline_print(const struct writers *w)
{
	const struct call *call = &noted.call;
	/* A while before the call shows what is usual. */
	uint64_t since = call->began - (call->ended - call->began) / 2;
	int i;

	if (noted.what == NONE)
		return;
	printf("# timeline call=%ld page=%d node=%d->%d pfn=0x%llx->0x%llx",
	       call->nr, noted.page, noted.from.node, noted.to.node,
	       (unsigned long long)noted.from.pfn,
	       (unsigned long long)noted.to.pfn);
	printf(" call_us=%.0f hot=%s lost_words=%zu writers=%d\n",
	       timeline_us(call->ended), call->hot ? "yes" : "no", noted.lost,
	       w->nr);
	for (i = 0; i < w->nr; i++) {
		struct journal_sample *samples = noted.writers[i].samples;
		uint64_t first = noted.writers[i].first;
		size_t nr = noted.writers[i].nr;

		for (; nr && samples->stamp < since; nr--)
			samples++;
		nr = journal_thin(samples, nr, SAMPLES_MAX);
		printf("# timeline writer=%d cpu=%d faults=%ld writes=%llu",
		       i + 1, w->each[i].cpu, noted.writers[i].faults,
		       (unsigned long long)(noted.writers[i].last - first + 1));
		print_list("kept", samples, nr, first, false);
		print_list("lost", samples, nr, first, true);
		printf("\n");
	}
}
