/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Shared PMD page tables of hugetlb, and what takes pages and tables from the
 * processes that use them. The parameters below choose a locking scheme of the
 * kernel. spin then tries every order of the steps.
 *
 * What is modelled: N processes that map the same PUD of a file, each on a CPU of
 * its own with its own TLB, and the first on a second CPU, too, where that is switched
 * on; two huge pages; page tables that a process may share with others; the locks. A step of a kernel function that others can come
 * between is a step here. README says what is left out.
 *
 * What a process does next is open: it stores to a page, or does one of the
 * operations that are switched on, of which it has BUDGET, or ends.
 *
 * What may go wrong has a number (the BUG_ names). LOOK_FOR chooses the one that
 * is looked for: a run that meets another one goes no further on that way.
 */

/* ---- parameters ------------------------------------------------------------ */

#ifndef N
#define N		2	/* processes */
#endif
#ifndef BUDGET
#define BUDGET		1	/* operations of each beside stores, which have no end */
#endif
#ifndef STORES
#define STORES		1	/* 0: nobody stores, and nobody faults for it */
#endif
#ifndef STORES_TO
#define STORES_TO	2	/* the page that all store to; 2: to both */
#endif
#ifndef STORERS
#define STORERS		N	/* processes that store, the first ones */
#endif
#ifndef WALKERS
#define WALKERS		1	/* migrations, each of a page of its own: up to 2 */
#endif

/* How the reverse map walk of a migration treats a shared table. */
#define BY_MAPCOUNT	0	/* believes the map count: one entry, one mapping */
#define BY_UNSHARING	1	/* takes the table from each sharer but the last */
#define BY_FLUSHING	2	/* leaves the table shared and flushes all sharers */
#ifndef WALK
#define WALK		BY_MAPCOUNT
#endif

/* When a walk that flushes does it. */
#ifndef FLUSH_AFTER
#define FLUSH_AFTER	0	/* after all of it, all that have a migration entry */
#endif

/* How that walk holds i_mmap_rwsem. */
#define READ		0
#define WRITE		1	/* waits for it */
#define TRY_WRITE	2	/* gives up where somebody has it */
#ifndef WALK_LOCK
#define WALK_LOCK	READ
#endif

/* What a fault holds from before it looks up its table until it has written. */
#define NOTHING		0
#define I_MMAP		1
#define VMA_LOCK	2
#ifndef FAULT_HOLDS
#define FAULT_HOLDS	NOTHING
#endif

/* Operations that processes make beside stores and faults; 1 where they do. */
#ifndef MPROTECT
#define MPROTECT	0	/* unshares its table */
#endif
#ifndef UNMAP
#define UNMAP		0	/* unmaps all and exits */
#endif
#ifndef UNMAP_PART
#define UNMAP_PART	0	/* of the PUD: the table has to be unshared */
#endif
#ifndef DONTNEED
#define DONTNEED	0	/* takes page 0 out of its mapping, and has no BUDGET for it */
#endif
#ifndef SPLIT
#define SPLIT		0	/* cuts its mapping in two, neither covers the PUD */
#endif
#ifndef PUNCH
#define PUNCH		0	/* a hole where page 0 is */
#endif
#ifndef PUNCH_PART
#define PUNCH_PART	0	/* of page 0, which is zeroed: 1; 2: with i_mmap_rwsem held */
#endif
#ifndef TRUNCATE
#define TRUNCATE	0	/* the file ends before page 1 then; with VMA_LOCK only */
#endif
#ifndef POISON
#define POISON		0	/* a memory error in page 0 */
#endif
#ifndef GUP
#define GUP		0	/* looks a page up without a lock, IRQs off */
#endif
#ifndef GUP_THREAD
#define GUP_THREAD	0	/* so does a second thread of process 0, and writes to page 1 */
#endif
#ifndef STORE_THREAD
#define STORE_THREAD	0	/* one of process 0 on another CPU stores, and never faults */
#endif
#ifndef MREMAP
#define MREMAP		0	/* moves its mapping */
#endif
#ifndef SPLIT_FAR
#define SPLIT_FAR	0	/* cuts its mapping in two: this piece covers the PUD */
#endif
#ifndef READ_ONLY
#define READ_ONLY	0	/* 1: the last process always is, and the first changes */
#endif				/* 2: the same; the first is so at first, and shares with it */
#ifndef NEWCOMER
#define NEWCOMER	0	/* 1: the last process has no table yet, as after fork() */
#endif				/* 2: the first, which a walk comes to before all others */

/* How they do it. */
#ifndef PART_FLUSHES_ALL
#define PART_FLUSHES_ALL	1	/* the whole PUD, and not the unmapped part */
#endif
#ifndef SPLIT_LOCKED
#define SPLIT_LOCKED		1	/* unshares until nobody can join any more */
#endif
#ifndef PIECE_HAS_LOCK
#define PIECE_HAS_LOCK		1	/* there is memory for the VMA lock of a piece */
#endif
#ifndef FLAGS_UNDER_LOCK
#define FLAGS_UNDER_LOCK	1	/* change with the entries: nobody joins between */
#endif
#ifndef UNSHARE_SYNCS_GUP
#define UNSHARE_SYNCS_GUP	1	/* waits for lockless walkers */
#endif
#ifndef MREMAP_SHARES
#define MREMAP_SHARES		0	/* looks for a table to share under the lock */
#endif
#ifndef JOINS_LOCKED
#define JOINS_LOCKED		0	/* joins a table under that table's lock */
#endif
#ifndef PUNCH_UNSHARES
#define PUNCH_UNSHARES		1	/* or clears the entry and flushes all sharers */
#endif
#ifndef PUNCH_KEEPS_PAGE
#define PUNCH_KEEPS_PAGE	0	/* locked while it waits for i_mmap_rwsem: 5.10 */
#endif
#ifndef POISON_FILE_FIRST
#define POISON_FILE_FIRST	0	/* i_mmap_rwsem, to write, and then the page */
#endif
#ifndef PUNCH_MAPPED_FIRST
#define PUNCH_MAPPED_FIRST	0	/* asks that, and locks the page then: up to 5.4.299 */
#endif
/* The walk's lock is held until entries are back. */
#ifndef PUT_BACK_LOCKED
#define PUT_BACK_LOCKED		(WALK_LOCK == TRY_WRITE)
#endif
#ifndef FAULT_ASKS_SIZE
#define FAULT_ASKS_SIZE		1	/* first, with the fault mutex; 0: if there is no page */
#endif
#ifndef TRUNCATE_WAITS
#define TRUNCATE_WAITS		1	/* for faults that have seen the old size */
#endif
/* Who has looked a page up keeps it from moving, and who has yet to flush it. */
#ifndef REFS
#define REFS			(GUP_THREAD || STORE_THREAD)
#endif
#ifndef GUP_LOOKS_TWICE
#define GUP_LOOKS_TWICE		1	/* at the entry, once more with the reference */
#endif
#ifndef RETRIES
#define RETRIES			0	/* a migration that gave up is tried again, for ever */
#endif

/* Mutants: ways to get it wrong. */
#ifndef NO_FLUSH
#define NO_FLUSH	0
#endif
#ifndef MOVES_HELD
#define MOVES_HELD	0	/* nobody asks for references before the copy */
#endif
#ifndef FLUSH_FIRST
#define FLUSH_FIRST	0	/* of the sharers only who was found first */
#endif
#ifndef FLUSH_BEFORE_ENTRY
#define FLUSH_BEFORE_ENTRY	0	/* flushes, and then takes the entry out */
#endif
#ifndef ENTRY_AFTER_FLUSH
#define ENTRY_AFTER_FLUSH	0	/* of a migration: until then there is none */
#endif
#ifndef ASKS_EARLY
#define ASKS_EARLY	0	/* before the walk, and without a lock: is a table shared? */
#endif
#ifndef UNSHARE_STOPS
#define UNSHARE_STOPS	0	/* the walk, with the first table that it takes away */
#endif
#ifndef JOIN_UNSEEN
#define JOIN_UNSEEN	0	/* others see late that a process has joined: weak order */
#endif
#ifndef UNSHARE_UNMAPS
#define UNSHARE_UNMAPS	0	/* to unshare a table takes from the page's map count */
#endif
#ifndef UNSHARE_DROPS
#define UNSHARE_DROPS	1	/* references of the table that unsharing gives up */
#endif
#ifndef UNSHARE_FLUSHES_ALL
#define UNSHARE_FLUSHES_ALL	1	/* in the walk: the whole PUD, and not the page */
#endif
#ifndef MPROTECT_FLUSHES_ALL
#define MPROTECT_FLUSHES_ALL	1	/* the whole PUD, where only page 0 is changed */
#endif
#ifndef FLUSH_LEAVES_CPU_OUT
#define FLUSH_LEAVES_CPU_OUT	0	/* the second one of process 0 */
#endif
#ifndef UNMAP_KEEPS_PAGES
#define UNMAP_KEEPS_PAGES	1	/* until they are flushed, which is after the locks */
#endif
#ifndef TABLE_FREED_FIRST
#define TABLE_FREED_FIRST	0	/* by munmap(), and then all is flushed */
#endif
#ifndef SPLIT_FLUSHES
#define SPLIT_FLUSHES	1
#endif
#ifndef PUNCH_FLUSHES
#define PUNCH_FLUSHES	1
#endif

/* ---- what may go wrong -------------------------------------------------------- */

#define BUG_LOST_WRITE	1	/* a store to the old page after the copy began */
#define BUG_COUNT	2	/* the share count is not the number of sharers */
#define BUG_FREED	3	/* a table is freed while somebody maps it */
#define BUG_USED	4	/* a table is used after it was freed */
#define BUG_NOT_MINE	5	/* a fault writes to a table that is not its own any more */
#define BUG_SPLIT	6	/* a piece of a mapping shares a table */
#define BUG_GUP		7	/* a lockless walker reads a table that was freed */
#define BUG_PUNCHED	8	/* a page goes from the file while it is mapped */
#define BUG_DEADLOCK	9	/* spin finds it: not all come to their end */
#define BUG_STARVED	10	/* spin finds it: migration is tried for ever */
#define BUG_PROTECT	11	/* a store through a read-only mapping */
#define BUG_TRUNCATED	12	/* a page is in the file, past its end */
#define BUG_REMAINS	13	/* a migration entry is left, or a map count is wrong */
#define BUG_GAVE_UP	14	/* a migration fails that nobody disturbs */

#ifndef LOOK_FOR
#define LOOK_FOR	BUG_LOST_WRITE
#endif

/*
 * LOOK_FOR 0 is: any. Where spin itself looks (deadlock, starvation), nothing else
 * may stop a process, so other bugs are passed over.
 */
#if LOOK_FOR == BUG_DEADLOCK || LOOK_FOR == BUG_STARVED
#define CHECK(which, good)	skip
#else
#define CHECK(which, good)					\
	if							\
	:: good -> skip						\
	:: else -> assert(LOOK_FOR && which != LOOK_FOR); hushed = true	\
	fi
#endif

/* ---- the machine ---------------------------------------------------------------- */

#define PAGES	2
#define NONE	255

/* What an entry holds, and a TLB. */
#define EMPTY	0
#define OLD	1	/* the page where it was */
#define NEW	2	/* the page where it goes */
#define MOVING	3	/* a migration entry: wait */

typedef per_page {
	byte at[PAGES]
};

byte pud[N];			/* the table that a process uses, or NONE */
per_page entry[N];		/* of each table: there are as many as processes */
per_page tlb[N];		/* of each process */
byte count[N];			/* of each table: sharers beyond the first */
bool in_use[N];			/* of each table */
bool joinable[N];		/* of each process: its mapping covers the PUD */
bool mapped[N];			/* of each process: it is in the interval tree */
bool walking[N];		/* of each process: its IRQs are off, in GUP */
byte mapcount[PAGES];		/* entries that map the page */
byte where[PAGES];		/* OLD or NEW: what the page cache says */
bool copied[PAGES];		/* the copy has begun */
bool gone[PAGES];		/* no page of the file any more */
#if TRUNCATE
bool absent[PAGES];		/* the file has no such page yet, or no more */
bool cut, cut_done;		/* i_size is before page 1; and all is removed */
#define ABSENT(p)	absent[p]
#else
#define ABSENT(p)	false
#endif
#if REFS
byte refs[PAGES];		/* of who has looked the page up: faults, GUP */
#define REF(p)		refs[p]++
#define UNREF(p)	refs[p]--
#define HELD(p)		(!MOVES_HELD && refs[p] > 0)
#else
#define REF(p)		skip
#define UNREF(p)	skip
#define HELD(p)		false
#endif
byte joining[N];		/* who has counted himself in, and not joined yet */
#if SPLIT_FAR
bool lockless[N];		/* of each process: its VMA has no lock */
#define LOCKLESS(i)	lockless[i]
#else
#define LOCKLESS(i)	false
#endif
#if READ_ONLY
typedef per_page_bool {
	bool at[PAGES]
};
bool read_only[N];		/* of each process: its VMA says so */
per_page_bool entry_ro[N];	/* of each table */
per_page_bool tlb_ro[N];	/* of each process */
#define ALIKE(i, j)	(read_only[i] == read_only[j])
mtype = { PROT_READ, PROT_WRITE };
#define PROT(i)		(read_only[i] -> PROT_READ : PROT_WRITE)
#else
#define ALIKE(i, j)	true
#endif
#if JOIN_UNSEEN
bool unseen[N];			/* of each process: it has joined, and others do not see it */
#define SEEN(i)		(!unseen[i])
#define BE_SEEN(i)	unseen[i] = false
#else
#define SEEN(i)		true
#define BE_SEEN(i)	skip
#endif
#if STORE_THREAD
per_page cpu_tlb;		/* of the second CPU of process 0 */
byte cpu_pud = NONE;		/* what it has read in the PUD, and may keep: a table */
#if READ_ONLY
per_page_bool cpu_tlb_ro;
bool protecting;		/* mprotect() of process 0 has not come to its end */
#endif
#endif
bool hushed;			/* another bug than LOOK_FOR came first */

/* ---- locks ------------------------------------------------------------------- */

byte i_mmap_readers, i_mmap_queued;
bool i_mmap_writer;
bool inode_locked;
bool mutex_locked[PAGES];	/* the fault mutex of the page */
bool page_locked[PAGES];
bool table_locked[N];
byte vma_readers[N];
bool vma_writer[N];

inline i_mmap_lock_read()
{
	atomic { !hushed && !i_mmap_writer && i_mmap_queued == 0 -> i_mmap_readers++ }
}

inline i_mmap_unlock_read()
{
	i_mmap_readers--
}

inline i_mmap_lock_write()
{
	i_mmap_queued++;
	atomic { !hushed && !i_mmap_writer && i_mmap_readers == 0 ->
		 i_mmap_writer = true; i_mmap_queued-- }
}

inline i_mmap_unlock_write()
{
	i_mmap_writer = false
}

inline lock_mutex(p)
{
	atomic { !hushed && !mutex_locked[p] -> mutex_locked[p] = true }
}

inline unlock_mutex(p)
{
	mutex_locked[p] = false
}

inline lock_page(p)
{
	atomic { !hushed && !page_locked[p] -> page_locked[p] = true }
}

inline unlock_page(p)
{
	page_locked[p] = false
}

inline lock_table(t)
{
	atomic {
		!hushed && !table_locked[t] -> table_locked[t] = true;
		CHECK(BUG_USED, in_use[t])
	}
}

inline unlock_table(t)
{
	table_locked[t] = false
}

#if FAULT_HOLDS == VMA_LOCK
#define vma_lock_read(i)	\
	atomic { !hushed && (LOCKLESS(i) || !vma_writer[i]) ->	\
		 vma_readers[i] = vma_readers[i] + (LOCKLESS(i) -> 0 : 1) }
#define vma_unlock_read(i)	vma_readers[i] = vma_readers[i] - (LOCKLESS(i) -> 0 : 1)
/* Where there is no lock, who tries for it always has it. */
#define vma_lock_taken(i)	(!LOCKLESS(i) && (vma_writer[i] || vma_readers[i] > 0))
#define vma_lock_write(i)	\
	atomic { !hushed && !vma_writer[i] && vma_readers[i] == 0 -> vma_writer[i] = true }
#define vma_unlock_write(i)	vma_writer[i] = false
#else
#define vma_lock_read(i)	skip
#define vma_unlock_read(i)	skip
#define vma_lock_write(i)	skip
#define vma_unlock_write(i)	skip
#endif

/* ---- what several do --------------------------------------------------------- */

#if STORE_THREAD
/*
 * The second CPU that process i has, or has not. Each CPU is interrupted, and flushes
 * at a time of its own; who asked waits for all. On some architectures a flush of one
 * page leaves what a CPU keeps of the tables above it.
 */
#if FLUSH_LEAVES_CPU_OUT
inline flush_cpu_all(i)
{
	if
	:: i == 0 -> printf("%d: flush_tlb_mm_range() leaves out the other CPU of process 0\n", _pid)
	:: else
	fi
}

inline flush_cpu_page(i, p)
{
	flush_cpu_all(i)
}
#else
inline flush_cpu_all(i)
{
	d_step {
		if
		:: i == 0 ->
			cpu_tlb.at[0] = EMPTY;
			cpu_tlb.at[1] = EMPTY;
			cpu_pud = NONE
		:: else
		fi
	}
}

inline flush_cpu_page(i, p)
{
	d_step {
		if
		:: i == 0 -> cpu_tlb.at[p] = EMPTY
		:: else
		fi
	}
}
#endif
#endif

inline flush_all(i)
{
	d_step { tlb[i].at[0] = EMPTY; tlb[i].at[1] = EMPTY }
#if STORE_THREAD
	; flush_cpu_all(i)
#endif
}

inline flush_page(i, p)
{
	tlb[i].at[p] = EMPTY
#if STORE_THREAD
	; flush_cpu_page(i, p)
#endif
}

/* Into users: how many processes use table t, or are about to. */
inline count_users(t)
{
	users = joining[t];
	k = 0;
	do
	:: k < N -> users = users + (pud[k] == t -> 1 : 0); k++
	:: else -> break
	od;
	k = 0
}

/*
 * Take table t from process i; the table's lock is held, its count is not 0. t was
 * looked up before that, and nobody asks here whether i still uses it.
 */
inline huge_pmd_unshare(i, t)
{
	atomic {
		printf("%d: huge_pmd_unshare() takes table %d from process %d, its count was %d\n",
		       _pid, t, i, count[t]);
		pud[i] = NONE;
		count[t] = count[t] - UNSHARE_DROPS;
		count_users(t);
		/* A wrong count does no harm yet: go on, to see what comes of it. */
		assert((LOOK_FOR && LOOK_FOR != BUG_COUNT) || users == count[t] + 1);
		users = 0
	}
#if UNSHARE_SYNCS_GUP
	/* An IPI to every CPU: it comes back when none has its IRQs off. */
	do
	:: atomic { k < N && count[t] == 0 && !walking[k] -> k++ }
	:: atomic { k == N || count[t] > 0 -> k = 0; break }
	od
#endif
}

/* The last user of a table gives it up. */
inline free_table(i, t)
{
	atomic {
		printf("%d: free_pmd_range() frees table %d\n", _pid, t);
		pud[i] = NONE;
		count_users(t);
		CHECK(BUG_FREED, users == 0 && in_use[t]);
		users = 0;
		in_use[t] = false;
		t = NONE
	}
}

/* ---- processes --------------------------------------------------------------- */


/* huge_pte_alloc(): a table for who has none. Sets t. */
inline find_table()
{
#if FAULT_HOLDS != I_MMAP
	i_mmap_lock_read();
#endif
	d_step {
		j = 0;
		t = NONE;
		do
		:: j < N && t == NONE ->
			if
			:: j != me && joinable[j] && mapped[j] && joinable[me] &&
			   ALIKE(j, me) -> t = pud[j]
			:: else
			fi;
			j++
		:: else -> break
		od;
		j = 0
	};
	if
	:: t != NONE ->
		/* get_page() on a table that somebody may have freed meanwhile */
		atomic {
			printf("%d: huge_pmd_share() counts itself in at table %d\n", _pid, t);
			CHECK(BUG_USED, in_use[t]);
			count[t]++;
			joining[t]++
		};
#if JOINS_LOCKED
		lock_table(t);
#endif
		atomic {
			printf("%d: huge_pmd_share() joins table %d\n", _pid, t);
			pud[me] = t;
			joining[t]--;
#if JOIN_UNSEEN
			/* Who has the lock after that sees what was done with it. */
			unseen[me] = !JOINS_LOCKED;
#endif
#if JOINS_LOCKED
			unlock_table(t)
#endif
		}
	:: else ->
		atomic {
			t = 0;
			do
			:: in_use[t] -> t++
			:: else -> break
			od;
			in_use[t] = true;
			count[t] = 0;
			entry[t].at[0] = EMPTY;
			entry[t].at[1] = EMPTY;
			pud[me] = t
		}
	fi;
#if FAULT_HOLDS != I_MMAP
	i_mmap_unlock_read()
#else
	skip
#endif
}

/* hugetlb_no_page(), with the fault mutex. Sets dead where there is no such page. */
inline no_page(p)
{
#if TRUNCATE
	atomic {
		if
		:: absent[p] && cut && p == 1 -> dead = true
		:: else
		fi
	};
	/* Here it gets a page and clears it. */
	atomic {
		if
		:: absent[p] && !dead ->
			printf("%d: hugetlb_no_page() adds page %d to the file\n", _pid, p);
			CHECK(BUG_TRUNCATED, !(p == 1 && cut_done));
			absent[p] = false
		:: else
		fi
	};
#endif
	if
	:: dead
	:: else ->
		atomic {
			printf("%d: hugetlb_no_page() locks page %d\n", _pid, p);
			REF(p)
		};
		lock_page(p);
		if
		:: gone[p] || ABSENT(p) -> dead = true	/* SIGBUS */
		:: else ->
			lock_table(t);
			atomic {
				printf("%d: hugetlb_fault() maps page %d in table %d\n",
				       _pid, p, t);
				if
				:: entry[t].at[p] == EMPTY ->
					CHECK(BUG_NOT_MINE, pud[me] == t);
					entry[t].at[p] = where[p];
#if READ_ONLY
					entry_ro[t].at[p] = read_only[me];
#endif
					mapcount[p]++
				:: else
				fi;
				BE_SEEN(me);
				unlock_table(t)
			}
		fi;
		atomic { UNREF(p); unlock_page(p) }
	fi
}

/* hugetlb_fault() on page p. */
inline fault(p)
{
#if FAULT_HOLDS == VMA_LOCK
	lock_mutex(p);
#if TRUNCATE && FAULT_ASKS_SIZE
	dead = cut && p == 1;
#endif
	if
	:: dead
	:: else ->
#endif
	vma_lock_read(me);
#if FAULT_HOLDS == I_MMAP
	i_mmap_lock_read();
#endif
	t = pud[me];
	if
	:: t == NONE -> find_table()
	:: else -> printf("%d: hugetlb_fault() looks up table %d\n", _pid, t)
	fi;
#if FAULT_HOLDS != VMA_LOCK
	lock_mutex(p);
#endif
	/* From here on the pointer into the table is not looked up again. */
	if
	:: entry[t].at[p] == EMPTY -> no_page(p)
	:: else
	fi;
#if FAULT_HOLDS == I_MMAP
	atomic { unlock_mutex(p); i_mmap_unlock_read() };
#endif
	vma_unlock_read(me);
	t = NONE
#if FAULT_HOLDS == VMA_LOCK
	fi;
#else
	;
#endif
#if FAULT_HOLDS != I_MMAP
	unlock_mutex(p);
#endif
	/* A migration entry is waited for. */
	!hushed && (pud[me] == NONE || entry[pud[me]].at[p] != MOVING)
}

/* A store to page p: by the TLB, or after a walk, or after a fault. */
inline store(p)
{
	do
#if JOIN_UNSEEN
	/* Sooner or later. The entry may have been read before that, and no later. */
	:: atomic { !SEEN(me) -> BE_SEEN(me) }
#endif
	:: atomic {
		tlb[me].at[p] != EMPTY && SEEN(me) ->
#if READ_ONLY
		if
		:: read_only[me] && tlb_ro[me].at[p] -> break	/* SIGSEGV */
		:: !read_only[me] && tlb_ro[me].at[p] ->
			/* hugetlb_wp() */
			tlb[me].at[p] = EMPTY;
			if
			:: pud[me] != NONE -> entry_ro[pud[me]].at[p] = false
			:: else
			fi;
			break
		:: read_only[me] && !tlb_ro[me].at[p] ->
			printf("%d: stores to page %d through its read-only mapping\n", _pid, p);
			CHECK(BUG_PROTECT, false)
		:: else
		fi;
#endif
		if
		:: tlb[me].at[p] == OLD -> printf("%d: writes to the old page %d\n", _pid, p)
		:: else -> printf("%d: writes to the new page %d\n", _pid, p)
		fi;
		CHECK(BUG_LOST_WRITE, !(tlb[me].at[p] == OLD && copied[p]));
		CHECK(BUG_PUNCHED, !gone[p] && !ABSENT(p));
		break
	   }
	:: atomic {
		tlb[me].at[p] == EMPTY && pud[me] != NONE &&
		(entry[pud[me]].at[p] == OLD || entry[pud[me]].at[p] == NEW) ->
#if JOIN_UNSEEN
		if
		:: !SEEN(me) -> printf("%d: reads the entry of page %d, and others do not see yet that it joined\n",
				       _pid, p)
		:: else
		fi;
#endif
		tlb[me].at[p] = entry[pud[me]].at[p];
#if READ_ONLY
		tlb_ro[me].at[p] = entry_ro[pud[me]].at[p]
#endif
	   }
	:: atomic {
		tlb[me].at[p] == EMPTY &&
		(pud[me] == NONE || entry[pud[me]].at[p] == EMPTY ||
		 entry[pud[me]].at[p] == MOVING) -> skip
	   };
		fault(p);
		if
		:: dead -> break
		:: else
		fi
	od
}

/* The start and end of all that takes the own table away, or its entries. */
inline begin_change()
{
	vma_lock_write(me);
	i_mmap_lock_write();
	t = pud[me]
}

inline end_change()
{
	atomic { t = NONE; i_mmap_unlock_write(); vma_unlock_write(me) }
}

/* Unshare the own table if it is shared. Sets shared. */
inline unshare_own()
{
	shared = false;
	if
	:: t != NONE ->
		lock_table(t);
		if
		:: count[t] > 0 -> shared = true; huge_pmd_unshare(me, t)
		:: else
		fi;
		unlock_table(t)
	:: else
	fi
}

inline clear_entry(p)
{
	d_step {
		if
		:: entry[t].at[p] == OLD || entry[t].at[p] == NEW -> mapcount[p]--
		:: else
		fi;
		entry[t].at[p] = EMPTY
	}
}

inline clear_own(p)
{
	if
	:: t != NONE && !shared ->
		lock_table(t);
#if STORE_THREAD && UNMAP_KEEPS_PAGES
		/* The reference that the entry had is the gather's then. */
		d_step {
			if
			:: entry[t].at[p] == OLD || entry[t].at[p] == NEW -> REF(p); kept[p] = true
			:: else
			fi
		};
#endif
		clear_entry(p);
		unlock_table(t)
	:: else
	fi
}

/* Of the own mapping, with the locks held: what is due before they are let go of. */
inline flush_unmapped()
{
#if STORE_THREAD
	/* x86 puts off what it can. Who gave a table up has to flush: others may free it. */
	if
	:: shared -> flush_all(me)
	:: else
	fi
#else
	flush_all(me)
#endif
}

#if STORE_THREAD
/* tlb_finish_mmu(), without any lock: the pages that were unmapped are let go of. */
inline finish_unmap()
{
	if
	:: !shared ->
		printf("%d: tlb_finish_mmu() flushes the process\n", _pid);
		flush_all(me)
	:: else
	fi;
#if UNMAP_KEEPS_PAGES
	atomic {
		for (k : 0 .. PAGES - 1) {
			if
			:: kept[k] -> UNREF(k); kept[k] = false
			:: else
			fi
		};
		k = 0
	}
#else
	skip
#endif
}
#endif

/* unmap_hugepage_range() of page p in process i, whose table t was looked up. */
inline zap(i, p)
{
	lock_table(t);
#if PUNCH_UNSHARES
	if
	:: count[t] > 0 -> huge_pmd_unshare(i, t)
	:: else -> clear_entry(p)
	fi;
#if PUNCH_FLUSHES
	flush_all(i);
#endif
#else
	clear_entry(p);
#if PUNCH_FLUSHES
	do
#if STORE_THREAD
	:: atomic { k < N && mapped[k] && pud[k] == t -> k++ };
		flush_page((k - 1), p)
#else
	:: atomic { k < N && mapped[k] && pud[k] == t -> tlb[k].at[p] = EMPTY; k++ }
#endif
	:: atomic { k < N && !(mapped[k] && pud[k] == t) -> k++ }
	:: atomic { k == N -> k = 0; break }
	od;
#endif
#endif
	unlock_table(t)
}

#define MAPS(i, p)	(mapped[i] && pud[i] != NONE &&		\
			 (entry[pud[i]].at[p] == OLD || entry[pud[i]].at[p] == NEW))

/*
 * hugetlb_vmdelete_list(), or hugetlb_unmap_file_folio(), of page p. What waits for a
 * VMA lock has the page locked, and the fault mutex: see mm/rmap.c.
 */
inline unmap_file(p, waits)
{
	i_mmap_lock_write();
	do
	:: atomic { j < N && MAPS(j, p) -> t = pud[j]; j++ };
#if FAULT_HOLDS == VMA_LOCK
		atomic {
			shared = vma_lock_taken((j - 1));
			if
			:: !shared -> vma_writer[j - 1] = true
			:: else
			fi
		};
		if
		:: shared && waits ->
			printf("%d: hugetlb_unmap_file_folio() waits for the VMA lock of process %d\n",
			       _pid, j - 1);
			i_mmap_unlock_write();
			vma_lock_write((j - 1));
			i_mmap_lock_write();
			if
			:: MAPS(j - 1, p) -> t = pud[j - 1]; zap((j - 1), p)
			:: else
			fi;
			atomic { vma_unlock_write((j - 1)); j = 0 }
		:: shared && !waits
		:: !shared -> zap((j - 1), p); vma_unlock_write((j - 1))
		fi
#else
		zap((j - 1), p)
#endif
	:: atomic { j < N && !MAPS(j, p) -> j++ }
	:: atomic { j == N -> j = 0; t = NONE; shared = false; i_mmap_unlock_write(); break }
	od
}

inline lock_inode()
{
	atomic { !hushed && !inode_locked -> inode_locked = true }
}

/* remove_inode_hugepages(), of page p, with the inode's lock */
inline remove_page(p)
{
	lock_mutex(p);
#if FAULT_HOLDS == NOTHING
#if !PUNCH_MAPPED_FIRST
	lock_page(p);
#endif
	if
	:: mapcount[p] > 0 -> unmap_file(p, false)
	:: else
	fi
#if PUNCH_MAPPED_FIRST
	; lock_page(p)
#endif
#elif FAULT_HOLDS == I_MMAP
	lock_page(p);
	printf("%d: remove_inode_hugepages() has page %d locked\n", _pid, p);
	do
	:: mapcount[p] == 0 -> break
	:: else ->
		/* A fault takes the mutex with i_mmap_rwsem held. */
#if !PUNCH_KEEPS_PAGE
		unlock_page(p);
#endif
		unlock_mutex(p);
		i_mmap_lock_write();
		lock_mutex(p);
		do
		:: atomic { j < N && MAPS(j, p) -> t = pud[j]; j++ };
			zap((j - 1), p)
		:: atomic { j < N && !MAPS(j, p) -> j++ }
		:: atomic { j == N -> j = 0; t = NONE; i_mmap_unlock_write(); break }
		od
#if !PUNCH_KEEPS_PAGE
		; lock_page(p)
#endif
	od
#else
	lock_page(p);
	printf("%d: remove_inode_single_folio() has page %d locked\n", _pid, p);
	if
	:: mapcount[p] > 0 -> unmap_file(p, true)
	:: else
	fi
#endif
	;
	atomic {
		printf("%d: page %d goes from the file\n", _pid, p);
		CHECK(BUG_PUNCHED, mapcount[p] == 0);
#if TRUNCATE
		absent[p] = true;
#endif
#if PUNCH
		gone[p] = p == 0;
#endif
		unlock_page(p);
		unlock_mutex(p)
	}
}

/* hugetlb_vmtruncate(), to where page 1 begins */
inline truncate()
{
	printf("%d: hugetlb_vmtruncate() sets i_size\n", _pid);
	cut = true;
#if TRUNCATE_WAITS
	lock_mutex(1);
	unlock_mutex(1);
#endif
	unmap_file(1, false);
	if
	:: !absent[1] -> remove_page(1)
	:: else
	fi;
	atomic {
		printf("%d: hugetlb_vmtruncate() is done\n", _pid);
		cut_done = true;
		CHECK(BUG_TRUNCATED, absent[1])
	}
}

proctype process(byte me)
{
	byte left = BUDGET, j, k, t = NONE, users, first;
	bool dead, shared;
#if STORE_THREAD && UNMAP_KEEPS_PAGES
	bool kept[PAGES];
#endif

	do
#if !RETRIES
	:: break
#endif
#if STORES
#if STORES_TO != 1
	:: !hushed && !dead && me < STORERS && first == 0 -> store(0)
#endif
#if STORES_TO != 0
	:: !hushed && !dead && me < STORERS -> store(1)
#endif
#endif
#if MPROTECT
	:: atomic { !hushed && !dead && left > 0 -> left-- };
		begin_change();
		printf("%d: mprotect() of page 0\n", _pid);
		unshare_own();
#if MPROTECT_FLUSHES_ALL
		flush_all(me);
#else
		flush_page(me, 0);
#endif
		end_change()
#endif
#if UNMAP_PART
	:: atomic { !hushed && !dead && left > 0 && first == 0 -> left--; first = 1 };
		begin_change();
		printf("%d: munmap() of page 0\n", _pid);
		unshare_own();
		clear_own(0);
#if PART_FLUSHES_ALL
		flush_unmapped();
#else
		flush_page(me, 0);
#endif
		joinable[me] = false;
		end_change()
#if STORE_THREAD
		; finish_unmap()
#endif
#endif
#if DONTNEED
	:: !hushed && !dead ->
		begin_change();
		printf("%d: madvise() takes page 0 out\n", _pid);
		unshare_own();
		clear_own(0);
		flush_unmapped();
		end_change()
#if STORE_THREAD
		; finish_unmap()
#endif
#endif
#if SPLIT
	:: atomic { !hushed && !dead && left > 0 && joinable[me] -> left-- };
		begin_change();
		printf("%d: splits its mapping\n", _pid);
		unshare_own();
#if SPLIT_FLUSHES
		flush_all(me);
#endif
#if SPLIT_LOCKED
		joinable[me] = false;
		end_change();
#else
		end_change();
		joinable[me] = false;
#endif
		atomic {
			shared = false;
			if
			:: pud[me] != NONE -> shared = count[pud[me]] > 0
			:: else
			fi;
			CHECK(BUG_SPLIT, !shared)
		}
#endif
#if SPLIT_FAR
	:: atomic { !hushed && !dead && left > 0 -> left-- };
		begin_change();
#if PIECE_HAS_LOCK
		printf("%d: splits its mapping elsewhere\n", _pid);
#else
		printf("%d: splits its mapping elsewhere, and has no VMA lock from then on\n",
		       _pid);
#endif
		end_change();
#if !PIECE_HAS_LOCK
		atomic { joinable[me] = false; lockless[me] = true }
#endif
#endif
#if READ_ONLY
	:: atomic { !hushed && !dead && left > 0 && me == 0 -> left-- };
#if STORE_THREAD
		protecting = true;
#endif
#if !FLAGS_UNDER_LOCK
		atomic {
			read_only[me] = !read_only[me];
			printf("%d: mprotect_fixup() gives its mapping %e\n", _pid, PROT(me))
		};
#endif
		begin_change();
#if FLAGS_UNDER_LOCK
		read_only[me] = !read_only[me];
#endif
		printf("%d: hugetlb_change_protection() has i_mmap_rwsem\n", _pid);
		unshare_own();
		if
		:: t != NONE && !shared ->
			lock_table(t);
			d_step {
				entry_ro[t].at[0] = read_only[me];
				entry_ro[t].at[1] = read_only[me]
			};
			unlock_table(t)
		:: else
		fi;
		flush_all(me);
		end_change()
#if STORE_THREAD
		; protecting = false
#endif
#endif
#if GUP
	:: atomic { !hushed && !dead && left > 0 -> left--; walking[me] = true;
		    t = pud[me] };
		if
		:: t != NONE ->
			printf("%d: get_user_pages_fast() has looked up table %d\n", _pid, t);
			CHECK(BUG_GUP, in_use[t])
		:: else
		fi;
		atomic { t = NONE; walking[me] = false }
#endif
#if MREMAP
	:: atomic { !hushed && !dead && left > 0 -> left-- };
		begin_change();
		printf("%d: mremap() holds i_mmap_rwsem for writing\n", _pid);
		unshare_own();
		flush_all(me);
#if MREMAP_SHARES
		printf("%d: huge_pmd_share() waits for it for reading\n", _pid);
		i_mmap_lock_read();
		i_mmap_unlock_read();
#endif
		end_change()
#endif
#if PUNCH
	:: atomic { !hushed && !dead && left > 0 && !gone[0] -> left--; shared = false };
		lock_inode();
		if
		:: !gone[0] -> remove_page(0)
		:: else
		fi;
		inode_locked = false
#endif
#if PUNCH_PART
	:: atomic { !hushed && !dead && left > 0 -> left-- };
		lock_inode();
#if PUNCH_PART == 2
		i_mmap_lock_write();
		printf("%d: hugetlbfs_punch_hole() has i_mmap_rwsem\n", _pid);
#endif
		lock_page(0);
		printf("%d: hugetlbfs_zero_partial_page() has page 0 locked\n", _pid);
		unlock_page(0);
#if PUNCH_PART == 2
		i_mmap_unlock_write();
#endif
		inode_locked = false
#endif
#if TRUNCATE
	:: atomic { !hushed && !dead && left > 0 -> left--; shared = false };
		lock_inode();
		if
		:: !cut -> truncate()
		:: else
		fi;
		inode_locked = false
#endif
#if UNMAP
	:: atomic { !hushed && !dead && left > 0 -> left = 0; dead = true };
		begin_change();
		printf("%d: munmap() of all\n", _pid);
		unshare_own();
		clear_own(0);
		clear_own(1);
		flush_unmapped();
		atomic { joinable[me] = false; mapped[me] = false };
		end_change();
		t = pud[me];
		if
		:: t != NONE ->
#if GUP_THREAD
			/* tlb_remove_table() waits for the CPUs that use this mm, and no others. */
			pud[me] = NONE;
			!walking[me];
#endif
#if STORE_THREAD && !TABLE_FREED_FIRST
			pud[me] = NONE;
			finish_unmap();
#endif
			free_table(me, t)
#if STORE_THREAD && TABLE_FREED_FIRST
			; finish_unmap()
#endif
		:: else
		fi
#endif
	od
}

/* ---- migration --------------------------------------------------------------- */


#if WALK_LOCK == READ
#define walk_lock()	i_mmap_lock_read()
#define walk_unlock()	i_mmap_unlock_read()
#else
#define walk_unlock()	i_mmap_unlock_write()
#if WALK_LOCK == WRITE
#define walk_lock()	i_mmap_lock_write()
#endif
#endif

/* Since 5.14, but nothing of what is modelled differs in 5.15. */
#define HAS_TRY_TO_MIGRATE	(FAULT_HOLDS == VMA_LOCK)

/* The page is no longer mapped by the entry of table t, whose lock is held. */
inline take_entry()
{
	d_step {
#if HAS_TRY_TO_MIGRATE
		printf("%d: try_to_migrate_one() writes a migration entry to table %d\n", _pid, t);
#else
		printf("%d: try_to_unmap_one() writes a migration entry to table %d\n", _pid, t);
#endif
		entry[t].at[me] = MOVING;
		mapcount[me]--
	}
}

inline flush_one(i)
{
#if !NO_FLUSH
	d_step {
#if WALK == BY_FLUSHING
		printf("%d: hugetlb_sharers_flush() flushes the page in process %d\n", _pid, i);
#elif HAS_TRY_TO_MIGRATE
		printf("%d: try_to_migrate_one() flushes the page in process %d\n", _pid, i);
#else
		printf("%d: try_to_unmap_one() flushes the page in process %d\n", _pid, i);
#endif
		tlb[i].at[me] = EMPTY
	}
#if STORE_THREAD
	; flush_cpu_page(i, me)
#endif
#else
	skip
#endif
}

inline flush_sharers()
{
	do
	:: j < N && mapped[j] && SEEN(j) && pud[j] == t && (!FLUSH_FIRST || j == i - 1) ->
		flush_one(j);
		j++
	:: atomic { j < N && !(mapped[j] && SEEN(j) && pud[j] == t && (!FLUSH_FIRST || j == i - 1)) ->
		    j++ }
	:: atomic { j == N -> j = 0; break }
	od
}

/* What try_to_migrate_one() does to a shared or unshared table of process i. */
inline unmap_one()
{
#if WALK == BY_MAPCOUNT
	take_entry();
	flush_one((i - 1))
#endif
#if WALK == BY_UNSHARING
	if
	:: count[t] > 0 ->
		huge_pmd_unshare((i - 1), t);
#if UNSHARE_STOPS
		failed = true;
#endif
#if UNSHARE_UNMAPS
		mapcount[me]--;
#endif
#if NO_FLUSH
		skip
#elif UNSHARE_FLUSHES_ALL
		flush_all((i - 1))
#else
		flush_one((i - 1))
#endif
	:: else ->
		take_entry();
		flush_one((i - 1))
	fi
#endif
#if WALK == BY_FLUSHING
#if ENTRY_AFTER_FLUSH
	d_step { entry[t].at[me] = EMPTY; mapcount[me]-- };
	flush_sharers();
	entry[t].at[me] = MOVING
#elif FLUSH_AFTER
	take_entry()
#elif FLUSH_BEFORE_ENTRY
	flush_sharers();
	take_entry()
#else
	take_entry();
	flush_sharers()
#endif
#endif
}

#if FLUSH_AFTER
/*
 * hugetlb_sharers_flush(): whose table has a migration entry, or the old one if it is
 * flushed before that is written. No lock of a table is held.
 */
#define FLUSHED		(FLUSH_BEFORE_ENTRY -> OLD : MOVING)
inline flush_all_of_page()
{
	do
	:: atomic {
		j < N ->
		t = (mapped[j] && SEEN(j) -> pud[j] : NONE);
		if
		:: t != NONE -> stale = entry[t].at[me] == FLUSHED
		:: else -> stale = false
		fi;
		t = NONE
	   };
		if
		:: stale ->
			flush_one(j);
			j = (FLUSH_FIRST || !all -> N : j + 1)
		:: else -> j++
		fi
	:: atomic { j == N -> j = 0; stale = false; break }
	od
}
#endif

/* Process i - 1 as the walk meets it. Sets failed where it has to give up. */
inline visit()
{
	if
	:: t == NONE
	:: else ->
#if WALK == BY_UNSHARING && FAULT_HOLDS == VMA_LOCK
		atomic {
			if
			:: vma_lock_taken((i - 1)) -> failed = true
			:: else -> vma_writer[i - 1] = true
			fi
		};
		if
		:: failed
		:: else ->
#endif
		lock_table(t);
		if
		:: entry[t].at[me] == OLD -> unmap_one(); unlock_table(t)
		:: atomic { else -> unlock_table(t) }
		fi
#if WALK == BY_UNSHARING && FAULT_HOLDS == VMA_LOCK
		; vma_unlock_write((i - 1))
		fi
#endif
	fi
}

/* remove_migration_ptes(): to is where the page is now. */
inline put_back(to)
{
#if !PUT_BACK_LOCKED
	i_mmap_lock_read();
#endif
	do
	:: atomic { i < N -> t = (mapped[i] -> pud[i] : NONE); i++ };
		if
		:: t == NONE
		:: else ->
			lock_table(t);
			d_step {
				if
				:: entry[t].at[me] == MOVING ->
#if READ_ONLY
					printf("%d: remove_migration_pte() is at process %d, whose mapping has %e\n",
					       _pid, i - 1, PROT(i - 1));
					entry_ro[t].at[me] = read_only[i - 1];
#endif
					entry[t].at[me] = to;
					mapcount[me]++
				:: else
				fi;
				unlock_table(t)
			}
		fi
#if PUT_BACK_LOCKED
	:: atomic { i == N -> i = 0; t = NONE; walk_unlock(); break }
#else
	:: atomic { i == N -> i = 0; t = NONE; i_mmap_unlock_read(); break }
#endif
	od
}

#if GUP_THREAD
/*
 * get_user_pages_fast() of page 1, which the first migration moves: it looks up the
 * table, reads the entry, takes a reference, and reads the entry again. The PUD is not
 * read again. The caller writes to the page, and lets go of it.
 */
proctype gup_thread(byte i)
{
	byte t = NONE;
	byte had = EMPTY;

	atomic { !hushed -> walking[i] = true; t = pud[i] };
	if
	:: t != NONE ->
		atomic {
			printf("%d: get_user_pages_fast() has looked up table %d\n", _pid, t);
			CHECK(BUG_GUP, in_use[t])
		};
		atomic {
			had = entry[t].at[1];
			CHECK(BUG_GUP, in_use[t])
		};
		/* Nothing is looked for on the new page. */
		if
		:: had == OLD ->
			REF(1);
#if GUP_LOOKS_TWICE
			atomic {
				CHECK(BUG_GUP, in_use[t]);
				if
				:: entry[t].at[1] != OLD -> UNREF(1); had = EMPTY
				:: else
				fi
			}
#endif
		:: else -> had = EMPTY
		fi
	:: else
	fi;
	walking[i] = false;
	if
	:: had == OLD ->
		atomic {
			printf("%d: writes to the old page 1, of which get_user_pages_fast() has a reference\n",
			       _pid);
			CHECK(BUG_LOST_WRITE, !copied[1])
		};
		UNREF(1)
	:: else
	fi
}
#endif

#if STORE_THREAD
/*
 * A store to page p by the second CPU of process 0. Its walk is in two steps, between
 * which the table may go. Where there is no entry, the program waits until its other
 * thread or a migration has put one there.
 */
inline store_elsewhere(p)
{
	if
	:: atomic {
		!hushed && cpu_tlb.at[p] == EMPTY && cpu_pud != NONE ->
		printf("%d: reads the entry of page %d in table %d\n", _pid, p, cpu_pud);
		CHECK(BUG_USED, in_use[cpu_pud]);
		if
		:: entry[cpu_pud].at[p] == OLD || entry[cpu_pud].at[p] == NEW ->
			cpu_tlb.at[p] = entry[cpu_pud].at[p];
#if READ_ONLY
			cpu_tlb_ro.at[p] = entry_ro[cpu_pud].at[p]
#endif
		:: else
		fi
	   }
	:: atomic {
		!hushed && cpu_tlb.at[p] != EMPTY ->
#if READ_ONLY
		if
		:: cpu_tlb_ro.at[p] -> cpu_tlb.at[p] = EMPTY	/* it faults: the CPU drops it */
		:: else ->
			/* Up to the end of mprotect() it may. */
			if
			:: read_only[0] && !protecting ->
				printf("%d: stores to page %d through its read-only mapping\n",
				       _pid, p);
				CHECK(BUG_PROTECT, false)
			:: else
			fi;
#endif
		if
		:: cpu_tlb.at[p] == OLD -> printf("%d: writes to the old page %d\n", _pid, p)
		:: else -> printf("%d: writes to the new page %d\n", _pid, p)
		fi;
		CHECK(BUG_LOST_WRITE, !(cpu_tlb.at[p] == OLD && copied[p]));
		CHECK(BUG_PUNCHED, !gone[p] && !ABSENT(p))
#if READ_ONLY
		fi
#endif
	   }
	fi
}

/* The thread takes no part in any lock: all that it does is done by the hardware. */
proctype store_thread()
{
	do
	:: break
	:: atomic {
		!hushed && cpu_pud == NONE && pud[0] != NONE ->
		printf("%d: reads the PUD, where table %d is\n", _pid, pud[0]);
		cpu_pud = pud[0]
	   }
#if STORES_TO != 1
	:: store_elsewhere(0)
#endif
#if STORES_TO != 0
	:: store_elsewhere(1)
#endif
	od
}
#endif

#if POISON
/* memory_failure() of page 0: who maps it is looked for with the page locked. */
proctype poison()
{
	lock_page(0);
	printf("%d: memory_failure() has page 0 locked\n", _pid);
#if POISON_FILE_FIRST
	/* The page says which file it is of. */
	unlock_page(0);
	i_mmap_lock_write();
	printf("%d: memory_failure() has i_mmap_rwsem\n", _pid);
	lock_page(0);
	unlock_page(0);
	i_mmap_unlock_write();
	lock_page(0);
#else
	i_mmap_lock_read();
	printf("%d: collect_procs_file() has i_mmap_rwsem\n", _pid);
	i_mmap_unlock_read();
#endif
	unlock_page(0)
}
#endif

/*
 * A walk ends where nobody maps the page any more. Only one that believes a wrong map
 * count ends too early.
 */
#define WALK_ENDS	(WALK == BY_MAPCOUNT || UNSHARE_UNMAPS)

/* Nobody does anything but the one migration. */
#define ALONE		(!STORES && BUDGET == 0 && WALKERS == 1 && !DONTNEED && !POISON && \
			 !GUP_THREAD)

/* It moves page me, once. */
proctype migration(byte me)
{
	byte i, j, k, t = NONE, users;
	bool failed;
#if FLUSH_AFTER
	bool stale;
	bool all = true;	/* that have a migration entry are flushed */
#endif

again:
	failed = false;
	lock_page(me);
#if WALK_LOCK == TRY_WRITE
	atomic {
		if
		:: i_mmap_writer || i_mmap_readers > 0 -> failed = true
		:: else -> i_mmap_writer = true
		fi
	};
#else
	walk_lock();
#endif
#if JOIN_UNSEEN
	/* Who has i_mmap_rwsem sees what others did with it. */
	d_step {
		do
		:: i < N -> BE_SEEN(i); i++
		:: else -> break
		od;
		i = 0
	};
#endif
	if
	:: failed || gone[me] || ABSENT(me) ->
		if
		:: !failed -> walk_unlock()
		:: else
		fi
	:: else ->
#if ASKS_EARLY
		atomic {
			all = false;
			do
			:: i < N ->
				t = (mapped[i] -> pud[i] : NONE);
				if
				:: t != NONE -> all = all || count[t] > 0
				:: else
				fi;
				i++
			:: else -> break
			od;
			t = NONE;
			printf("%d: asks whether a table is shared: %d\n", _pid, all)
		};
		/* Here the notifiers of all are called, which sleep. */
#endif
#if FLUSH_AFTER && FLUSH_BEFORE_ENTRY
		flush_all_of_page();
#endif
		i = 0;
		do
		:: atomic { i < N && !failed && !(WALK_ENDS && mapcount[me] == 0) ->
			    t = (mapped[i] -> pud[i] : NONE);
			    printf("%d: rmap_walk_file() comes to process %d, whose table is %d\n",
				   _pid, i, t);
			    i++ };
			visit()
#if PUT_BACK_LOCKED || FLUSH_AFTER
		:: atomic { else -> i = 0; t = NONE; break }
#else
		:: atomic { else -> i = 0; t = NONE; walk_unlock(); break }
#endif
		od;
#if FLUSH_AFTER
#if !FLUSH_BEFORE_ENTRY
		flush_all_of_page();
#endif
		walk_unlock();
#endif
		if
		:: atomic {
			mapcount[me] == 0 && !HELD(me) ->
			printf("%d: nobody maps the page: migrate_huge_page_move_mapping(), and the copy begins\n",
			       _pid);
			copied[me] = true
		   };
			where[me] = NEW;
			put_back(NEW);
			failed = false
		:: else ->
			CHECK(BUG_GAVE_UP, !ALONE);
			put_back(OLD);
			failed = true
		fi
	fi;
	unlock_page(me);
#if RETRIES
	if
	:: failed ->
		printf("%d: has to give up, and tries again\n", _pid);
accept_starved:
		failed = false;
#if REFS
		/* Who has looked the page up gets its lock first. */
		!HELD(me);
#endif
		goto again
	:: else
	fi
#endif
	skip
}

init {
	byte i, t, k, users, mapped_by[PAGES];

	d_step {
		in_use[0] = true;
		count[0] = N - 1;
		entry[0].at[0] = OLD;
		entry[0].at[1] = OLD;
		mapcount[0] = 1;
		mapcount[1] = 1;
		where[0] = OLD;
		where[1] = OLD;
#if READ_ONLY
		read_only[N - 1] = true;
#endif
#if READ_ONLY == 2
		read_only[0] = true;
		entry_ro[0].at[0] = true;
		entry_ro[0].at[1] = true;
		count[0] = 1;
#endif
		do
		:: i < N ->
			pud[i] = (READ_ONLY == 2 && i != 0 && i != N - 1 -> NONE : 0);
			mapped[i] = true;
			joinable[i] = true;
			i++
		:: else -> break
		od;
#if NEWCOMER == 2
		pud[0] = NONE;
		count[0]--;
#endif
#if NEWCOMER == 1 || READ_ONLY == 1
		pud[N - 1] = NONE;
		count[0]--;
#endif
		i = 0
	};
	atomic {
		/* Page 1 may be one that nobody has touched yet. */
		if
		:: true
		:: entry[0].at[1] = EMPTY; mapcount[1] = 0
#if TRUNCATE
		:: entry[0].at[1] = EMPTY; mapcount[1] = 0; absent[1] = true
#endif
		fi;
		do
		:: i < N -> run process(i); i++
		:: else -> break
		od;
		i = 0;
		do
		:: i < WALKERS -> i++; run migration(PAGES - i)
		:: else -> break
		od;
#if POISON
		run poison();
#endif
#if GUP_THREAD
		run gup_thread(0);
#endif
#if STORE_THREAD
		run store_thread();
#endif
		i = 0
	};
#if !RETRIES
	/* What must be so when all have come to their end. */
	atomic {
		_nr_pr == 1 ->
		do
		:: i < N ->
			count_users(i);
			CHECK(BUG_COUNT, !in_use[i] || users == 0 || users == count[i] + 1);
			for (t : 0 .. PAGES - 1) {
				CHECK(BUG_REMAINS, !in_use[i] || entry[i].at[t] != MOVING);
				mapped_by[t] = mapped_by[t] + (in_use[i] &&
					(entry[i].at[t] == OLD || entry[i].at[t] == NEW) -> 1 : 0)
			};
			i++
		:: else -> break
		od;
		CHECK(BUG_REMAINS, mapped_by[0] == mapcount[0] && mapped_by[1] == mapcount[1])
	}
#endif
}
