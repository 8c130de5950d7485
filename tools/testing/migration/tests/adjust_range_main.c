// SPDX-License-Identifier: GPL-2.0
/*
 * Compares a kernel's adjust_range_if_pmd_sharing_possible(), whose text is in
 * adjust_range.inc, with what it has to do: widen [start, end) by every PUD
 * that it touches and that lies whole inside a VMA with VM_MAYSHARE.
 *
 *	adjust_range_main			every case, PUD_SHIFT of 2
 *	adjust_range_main SEED COUNT BITS	random cases, any PUD_SHIFT, in an
 *						address space of so many bits
 *
 * With -DANYWHERE also for ranges that are not inside the VMA, with -DNOT_AT_END
 * not for those at the end of the address space, where a loop in steps of a PUD
 * never ends.  Says how many cases there were and how many were wrong, and shows
 * the first few of these.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define PUD_MASK (~(PUD_SIZE - 1))
#define VM_MAYSHARE 0x80UL

static const unsigned long PUD_SIZE = 1UL << PUD_SHIFT;

struct vm_area_struct {
	unsigned long vm_start;
	unsigned long vm_end;
	unsigned long vm_flags;
};

/* What the kernel's headers have; like theirs, these overflow silently. */
static inline unsigned long round_down(unsigned long x, unsigned long size)
{
	return x & ~(size - 1);
}

static inline unsigned long round_up(unsigned long x, unsigned long size)
{
	return round_down(x + size - 1, size);
}

#define ALIGN round_up
#define ALIGN_DOWN round_down

static inline bool range_in_vma(struct vm_area_struct *vma,
				unsigned long start, unsigned long end)
{
	return vma && vma->vm_start <= start && end <= vma->vm_end;
}

#include "adjust_range.inc"

static unsigned long cases, wrong;

/* PUD by PUD.  Its last byte instead of its end: that is never beyond 64 bits. */
static void expect(struct vm_area_struct *vma, unsigned long *start,
		   unsigned long *end)
{
	unsigned long first = *start, last = *end - 1, pud;

	if (!(vma->vm_flags & VM_MAYSHARE))
		return;
	for (pud = first >> PUD_SHIFT; pud <= last >> PUD_SHIFT; pud++) {
		unsigned long low = pud << PUD_SHIFT, high = low + (PUD_SIZE - 1);

		if (low < vma->vm_start || high > vma->vm_end - 1)
			continue;
		if (low < *start)
			*start = low;
		if (high > *end - 1)
			*end = high + 1;
	}
}

static void try_one(struct vm_area_struct vma, unsigned long start,
		    unsigned long end)
{
	unsigned long is_start = start, is_end = end;
	unsigned long to_start = start, to_end = end;

	cases++;
	expect(&vma, &to_start, &to_end);
	adjust_range_if_pmd_sharing_possible(&vma, &is_start, &is_end);
	if (is_start == to_start && is_end == to_end)
		return;
	if (wrong++ < 5)
		printf("vma %#lx-%#lx%s range %#lx-%#lx: %#lx-%#lx, not %#lx-%#lx\n",
		       vma.vm_start, vma.vm_end,
		       vma.vm_flags & VM_MAYSHARE ? " shared" : "", start, end,
		       is_start, is_end, to_start, to_end);
}

/* Every VMA and every range in the COUNT units from base on. */
static void try_all(unsigned long base, unsigned long count)
{
	unsigned long a, b, start, end;

	for (a = 0; a < count; a++)
		for (b = a + 1; b <= count; b++)
			for (start = 0; start < count; start++)
				for (end = start + 1; end <= count; end++) {
					struct vm_area_struct vma = {
						base + a, base + b, VM_MAYSHARE
					};

#ifndef ANYWHERE
					if (start < a || end > b)
						continue;
#endif
					try_one(vma, base + start, base + end);
					vma.vm_flags = ~VM_MAYSHARE;
					try_one(vma, base + start, base + end);
				}
}

/* xorshift64: what comes out is the same everywhere. */
static unsigned long random_number(void)
{
	static unsigned long state;

	if (!state)
		state = strtoul(getenv("SEED"), NULL, 0) | 1;
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* Where the address space ends; of one of 64 bits, the last page is no use. */
static unsigned long top;

static unsigned long below(unsigned long limit)
{
	return random_number() % limit;
}

/* Somewhere near a boundary of a PUD, often right at it, never past the end. */
static unsigned long near(unsigned long address)
{
	unsigned long wobble = below(3) ? (below(PUD_SIZE) & ~4095UL) : 0;

	if (address + wobble < address || address + wobble > top)
		return top;
	return address + wobble;
}

static void try_random(void)
{
	/* The last PUD of 64 bits is not counted, as it is not whole. */
	unsigned long all = top >> PUD_SHIFT, i, address[4];
	unsigned long first = below(all) << PUD_SHIFT;
	unsigned long puds = 1 + below(all < 40 ? all : 40);
	/* With the end of the last, unless that is beyond 64 bits. */
	unsigned long borders = puds + (top != -4096UL);
	struct vm_area_struct vma;

#ifdef NOT_AT_END
	first >>= 1;
#else
	/* One in four at the very end of the address space. */
	if (!below(4))
		first = top - (top & (PUD_SIZE - 1) ? -4096UL : 0) -
			(puds << PUD_SHIFT);
#endif
	/* Four sorted addresses; the middle two are the range. */
	for (i = 0; i < 4; i++) {
		unsigned long new = near(first +
				(below(borders) << PUD_SHIFT)), j;

		for (j = i; j && address[j - 1] > new; j--)
			address[j] = address[j - 1];
		address[j] = new;
	}
	if (address[1] == address[2])
		return;
	vma = (struct vm_area_struct){ address[0], address[3], random_number() };
	try_one(vma, address[1], address[2]);
#ifdef ANYWHERE
	if (address[0] < address[1] && address[2] < address[3]) {
		vma.vm_start = address[1];
		vma.vm_end = address[2];
		try_one(vma, address[0], address[3]);
		vma.vm_end = address[3];
		try_one(vma, address[0], address[2]);
	}
#endif
}

int main(int argc, char **argv)
{
	unsigned long count;

	if (argc > 3) {
		setenv("SEED", argv[1], 1);
		top = argv[3][0] == '6' ? -4096UL : 1UL << atoi(argv[3]);
		for (count = strtoul(argv[2], NULL, 0); count; count--)
			try_random();
	} else {
		try_all(0, 24);
#ifndef NOT_AT_END
		/* Its last unit cannot be in a VMA: vm_end would be 0. */
		try_all(-24UL, 23);
#endif
	}
	printf("%lu cases, %lu wrong\n", cases, wrong);
	return wrong != 0;
}
