// SPDX-License-Identifier: GPL-2.0
#include <string.h>

#include "migrate_journal.h"

size_t journal_check(const uint64_t *journal, unsigned int writer,
		     uint64_t last,
		     void (*lost)(const struct journal_loss *loss, void *arg),
		     void *arg)
{
	struct journal_loss loss;
	size_t count = 0;
	uint64_t slot;
	int ring;

	for (ring = 0; ring < JOURNAL_RINGS; ring++) {
		uint64_t nr = last >> (ring * JOURNAL_SHIFT);

		for (slot = 0; slot < JOURNAL_SLOTS; slot++) {
			/* The last number up to @nr that used this slot. */
			uint64_t back = (nr - slot) % JOURNAL_SLOTS;
			uint64_t want = 0;

			if (back < nr)
				want = journal_word(writer, nr - back);
			if (journal[slot] == want)
				continue;
			count++;
			if (!lost)
				continue;
			loss.word = ring * JOURNAL_SLOTS + slot;
			loss.write = (nr - back) << (ring * JOURNAL_SHIFT);
			loss.wrote = want;
			loss.found = journal[slot];
			lost(&loss, arg);
		}
		journal += JOURNAL_SLOTS;
	}
	return count;
}

/* The oldest number that @ring still holds after write @last. */
static uint64_t journal_oldest(int ring, uint64_t last)
{
	uint64_t nr = last >> (ring * JOURNAL_SHIFT);

	return nr < JOURNAL_SLOTS ? 1 : nr - JOURNAL_SLOTS + 1;
}

size_t journal_samples(const uint64_t *journal, const uint64_t *stamps,
		       unsigned int writer, uint64_t first, uint64_t last,
		       struct journal_sample *samples)
{
	size_t count = 0;
	int ring;

	for (ring = JOURNAL_RINGS - 1; ring > 0; ring--) {
		int shift = ring * JOURNAL_SHIFT;
		uint64_t nr = journal_oldest(ring, last), end = last + 1;

		/* From there on the ring below tells more. */
		if (ring > 1)
			end = journal_oldest(ring - 1, last) <<
			      (shift - JOURNAL_SHIFT);
		for (; nr << shift < end; nr++) {
			size_t slot = ring * JOURNAL_SLOTS + nr % JOURNAL_SLOTS;

			if (nr << shift < first)
				continue;
			samples[count].stamp = stamps[slot];
			samples[count].write = nr << shift;
			samples[count].lost = journal[slot] !=
					      journal_word(writer, nr);
			count++;
		}
	}
	return count;
}

size_t journal_thin(struct journal_sample *samples, size_t nr, size_t max)
{
	/* The first and the last stay: they say how long it was. */
	while (nr > max && nr > 2) {
		uint64_t shortest = UINT64_MAX;
		bool differs = true;
		size_t i, out = 1;

		for (i = 1; i < nr - 1; i++) {
			const struct journal_sample *s = &samples[i];
			uint64_t gap = s[1].stamp - s[-1].stamp;
			bool edge = s[-1].lost != s->lost ||
				    s[1].lost != s->lost;

			if (edge > differs)
				continue;
			if (edge == differs && gap >= shortest)
				continue;
			out = i;
			shortest = gap;
			differs = edge;
		}
		memmove(&samples[out], &samples[out + 1],
			(nr - out - 1) * sizeof(*samples));
		nr--;
	}
	return nr;
}
