/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The journal of a writer, inside the page that it writes to.
 *
 * A writer numbers its writes 1, 2, 3, ... and knows nothing but the number of
 * the last. Write n goes to slot n % SLOTS of the first ring; every 16th write
 * goes to the second ring as well, every 256th to the third and every 4096th to
 * the fourth. From the last number follows what every slot has to hold, so a
 * lost write is seen until its slot is used again, and the further back writes
 * were lost, the more of them it takes for one to be still there:
 *
 *	ring 0  | n-127 ...    n-2   n-1      n |	every write
 *	ring 1  | n-2032 ...  n-32  n-16      n |	every 16th
 *	ring 2  | n-32512 ... n-512 n-256     n |	every 256th
 *	ring 3  | n-520192 ...     n-4096     n |	every 4096th
 *
 * The whole of it is 4 KiB, so that one TLB entry covers it even where huge
 * pages are cached in small pieces, as QEMU's TCG does: a writer that misses
 * the TLB meets the migration entry and waits, and writes nothing to be lost.
 */
#ifndef _MIGRATE_JOURNAL_H
#define _MIGRATE_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JOURNAL_RINGS	4
#define JOURNAL_SHIFT	4
#define JOURNAL_SLOTS	128
#define JOURNAL_WORDS	(JOURNAL_RINGS * JOURNAL_SLOTS)
#define JOURNAL_BYTES	(JOURNAL_WORDS * sizeof(uint64_t))

/* What is written: who in the top byte, then the number within the ring. */
static inline uint64_t journal_word(unsigned int writer, uint64_t nr)
{
	return (uint64_t)(writer + 1) << 56 | nr;
}

static inline void journal_write(uint64_t *journal, unsigned int writer,
				 uint64_t n)
{
	int ring;

	for (ring = 0; ring < JOURNAL_RINGS; ring++) {
		__atomic_store_n(&journal[n % JOURNAL_SLOTS],
				 journal_word(writer, n), __ATOMIC_RELAXED);
		if (n & ((1 << JOURNAL_SHIFT) - 1))
			break;
		n >>= JOURNAL_SHIFT;
		journal += JOURNAL_SLOTS;
	}
}

struct journal_loss {
	size_t word;		/* index into the journal */
	uint64_t write;		/* number of the lost write */
	uint64_t wrote;
	uint64_t found;
};

/*
 * Compare @journal with what must be there after write number @last, calling
 * @lost for every slot that holds something else. Returns how many.
 */
size_t journal_check(const uint64_t *journal, unsigned int writer,
		     uint64_t last,
		     void (*lost)(const struct journal_loss *loss, void *arg),
		     void *arg);

/*
 * When writes were made: an array like the journal, but not in the page. Every
 * 16th write is stamped, in each ring that it goes to but the first.
 */
static inline void journal_stamp(uint64_t *stamps, uint64_t n, uint64_t now)
{
	int ring;

	for (ring = 1; ring < JOURNAL_RINGS; ring++) {
		n >>= JOURNAL_SHIFT;
		stamps[ring * JOURNAL_SLOTS + n % JOURNAL_SLOTS] = now;
		if (n % (1 << JOURNAL_SHIFT))
			break;
	}
}

/* A write of which both is known: when it was made, and if it is there. */
struct journal_sample {
	uint64_t stamp;
	uint64_t write;		/* its number */
	bool lost;
};

#define JOURNAL_SAMPLES	((JOURNAL_RINGS - 1) * JOURNAL_SLOTS)

/*
 * What a journal and its stamps still know of the writes @first to @last, the
 * oldest first: every 16th of the latest 2048, every 256th of the latest 32768,
 * every 4096th before. To be asked before anything in @journal is made good.
 * @samples has room for JOURNAL_SAMPLES. Returns how many there are.
 */
size_t journal_samples(const uint64_t *journal, const uint64_t *stamps,
		       unsigned int writer, uint64_t first, uint64_t last,
		       struct journal_sample *samples);

/*
 * Leave out samples until @max are left: those of the shortest time between
 * their neighbours go first, so pauses stay as they are, and none goes that
 * differs from a neighbour as long as there is another. Returns how many are
 * left.
 */
size_t journal_thin(struct journal_sample *samples, size_t nr, size_t max);

#endif /* _MIGRATE_JOURNAL_H */
