// SPDX-License-Identifier: GPL-2.0
/*
 * Is any write of a virtual machine lost while its memory is migrated?
 *
 * KVM has page tables of its own for a machine, and fills them with what it finds
 * in those of the process that runs it. When the kernel takes a page away from the
 * process, an MMU notifier has to tell KVM, which makes the processors leave the
 * machine, and takes the page away from that. A machine whose KVM was told too
 * little, or too late, goes on writing to what was copied already:
 *
 *	machine				who migrates
 *	writes 1 to the page
 *					take the page from the process
 *					(tell KVM)
 *	writes 2			copy the page
 *	writes 3: to the old page, if KVM was not told
 *
 * No processor's TLB has a part in it: to flush those of the process does not help.
 *
 * Hugetlb memory of processes that share a PMD page table (see
 * hugetlb_pmd_migrate.c) can go wrong in two ways. The kernel may stop after the
 * first of the processes, so that KVM of the others is told nothing. And when it
 * unshares the table, a process loses all pages in it, but its KVM may be told of
 * one of them, and keeps the others. When such a page is migrated later, the
 * kernel looks for those who map it, in the order of their first pages, until it
 * has found as many as the map count says. This process does not count any more.
 *
 * Here one or two processes map the memory, and run a machine of one processor.
 * That executes the few instructions below: it writes a journal (see
 * migrate_journal.h) into a page. One round of the test is
 *
 *	map	the memory anew, in each: one fault for all pages is the proof of a
 *		shared table
 *	run	the machines, until each has written
 *	move	the page that they write to
 *	stop	them, somewhat later
 *	compare	the journal with the number of the last write
 *
 * and where a neighbour of the page is moved first, with one machine,
 *
 *	move	the neighbour: the first process to map the table loses it
 *	unmap	by the other one, which had it last
 *	touch	the page, by the test, whose mapping begins at an earlier page and
 *		shares no table
 *	move	the page: who maps it, by its map count, is the test alone
 *
 * A move counts if each machine wrote between its begin and its end.
 *
 * Environment:
 *	MIGRATE_KVM_ROUNDS=n	how often
 */
#include "kselftest_harness.h"

#include <fcntl.h>
#include <numa.h>
#include <numaif.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_journal.h"
#include "migrate_page.h"
#include "migrate_thp.h"
#include "migrate_util.h"

#ifdef __x86_64__

#include <linux/stddef.h>

/* Not in tools/ of each kernel. */
#ifndef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(type, name)	\
	struct {				\
		struct { } __empty_ ## name;	\
		type name[];			\
	}
#endif

#include <linux/kvm.h>

#define MAX_MACHINES	2
#define NR_PAGES	4	/* populated, so that sharing can be told */
#define PAGE		1	/* that machines write to */
#define NEIGHBOUR	0
#define SPARE		2	/* free pages of a node, above what is needed */
#define ROUNDS		10
#define MIN_MOVES	3	/* fewer are no evidence */
#define WRITES		2000	/* before and after a move */
#define REPLY_MS	30000
#define RUN_MS		10000
#define TEST_MS		120000	/* no round begins later */
#define TRIES		3	/* mappings, to touch all pages with one fault */

/* The code below knows that, too. */
#if JOURNAL_RINGS != 4 || JOURNAL_SHIFT != 4 || JOURNAL_SLOTS != 128
#error "what machine_code[] writes is no journal"
#endif

/* Memory of a machine: a page with its code, and that which is migrated. */
#define CODE_AT		0u
#define MAILBOX_AT	2048u
#define MEMORY_AT	0x40000000u
#define STOP_PORT	0x80

/* What the machine and the test tell each other. The code below has its layout. */
struct mailbox {
	uint32_t wrote;		/* number of the last write */
	uint32_t stop;
};

/*
 * What the machine executes, in 32-bit protected mode without paging: what
 * journal_write() does, for ever.
 *
 *	%ebx	the journal		%esi	number of the last write
 *	%ebp	the mailbox		%edi	upper half of each word: who
 *
 *	1:	incl	%esi
 *		movl	%esi, %edx	# number within the ring
 *		movl	%ebx, %ecx	# the ring
 *	2:	movl	%edx, %eax
 *		andl	$0x7f, %eax	# JOURNAL_SLOTS - 1
 *		movl	%edi, 4(%ecx, %eax, 8)
 *		movl	%edx, (%ecx, %eax, 8)
 *		testb	$0xf, %dl	# JOURNAL_SHIFT bits
 *		jne	3f
 *		shrl	$4, %edx	# JOURNAL_SHIFT
 *		addl	$0x400, %ecx	# JOURNAL_SLOTS words
 *		leal	0x1000(%ebx), %eax	# JOURNAL_BYTES
 *		cmpl	%eax, %ecx
 *		jb	2b
 *	3:	movl	%esi, (%ebp)	# mailbox->wrote
 *		cmpl	$0, 4(%ebp)	# mailbox->stop
 *		je	1b
 *		outb	%al, $0x80	# STOP_PORT
 *		jmp	1b
 */
static const uint8_t machine_code[] = {
	0x46,
	0x89, 0xf2,
	0x89, 0xd9,
	0x89, 0xd0,
	0x83, 0xe0, 0x7f,
	0x89, 0x7c, 0xc1, 0x04,
	0x89, 0x14, 0xc1,
	0xf6, 0xc2, 0x0f,
	0x75, 0x13,
	0xc1, 0xea, 0x04,
	0x81, 0xc1, 0x00, 0x04, 0x00, 0x00,
	0x8d, 0x83, 0x00, 0x10, 0x00, 0x00,
	0x39, 0xc1,
	0x72, 0xdc,
	0x89, 0x75, 0x00,
	0x83, 0x7d, 0x04, 0x00,
	0x74, 0xce,
	0xe6, 0x80,
	0xeb, 0xca,
};

enum backing {
	HUGETLB,	/* pages of a PUD, whose table can be shared */
	ANON_THP,
	ANON,
};

enum step { STEP_MAP, STEP_RUN, STEP_UNMAP };

static const char * const step_name[] = { "map memory", "run", "unmap memory" };

/* A process that may run a machine, in memory that it shares with the test. */
struct machine {
	pid_t pid;
	uint32_t asked;		/* how many steps, and */
	uint32_t done;
	enum step step;
	int error;
	long faults;		/* that it took to touch all pages */
	bool huge;		/* they are */
	uint32_t exit_reason;	/* of KVM_RUN */
	bool strange;		/* it was not told to */
	bool slow;		/* it writes, but not often enough */
	bool stopped;		/* it does not write */
	size_t lost;		/* writes that can be seen to be missing */
	uint64_t example;	/* number of one of them */
	char *code;		/* the page with its code and the mailbox */
	struct mailbox *mailbox;
};

FIXTURE(migrate_kvm)
{
	struct machine *machines;
	struct crew crew;
	int fd;
	int nodes[2];
	int cpus[CPU_SETSIZE];
	int nr_cpus;
	size_t page;		/* bytes in one */
	char *area;		/* where processes map it */
	char *view;		/* where the test maps the file, or NULL */
	/* What came of it. */
	long calls, failed_calls;
	long moves, lost_moves;
	long idle;		/* moves while a machine did not write */
	long lost;		/* writes */
};

FIXTURE_VARIANT(migrate_kvm)
{
	enum backing backing;
	int processes;
	bool neighbour;	/* moves first; only the first has a machine */
};

FIXTURE_VARIANT_ADD(migrate_kvm, hugetlb_shared) {
	.backing = HUGETLB, .processes = 2 };
FIXTURE_VARIANT_ADD(migrate_kvm, hugetlb_neighbour) {
	.backing = HUGETLB, .processes = 2, .neighbour = true };
FIXTURE_VARIANT_ADD(migrate_kvm, hugetlb_alone) {
	.backing = HUGETLB, .processes = 1 };
FIXTURE_VARIANT_ADD(migrate_kvm, anon_thp) {
	.backing = ANON_THP, .processes = 1 };
FIXTURE_VARIANT_ADD(migrate_kvm, anon) {
	.backing = ANON, .processes = 1 };

/* The process of a machine. */

static size_t area_bytes(enum backing backing, size_t page)
{
	return backing == HUGETLB ? pud_size() : NR_PAGES * page;
}

/* The second PUD of the file. */
static int map_file(int fd, char *addr)
{
	return mmap(addr, pud_size(), PROT_READ | PROT_WRITE,
		    MAP_FIXED | MAP_SHARED | MAP_NORESERVE, fd,
		    pud_size()) == MAP_FAILED ? errno : 0;
}

static int map_anon(char *addr, size_t bytes, bool huge)
{
	if (mmap(addr, bytes, PROT_READ | PROT_WRITE,
		 MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
		return errno;
	if (madvise(addr, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
		return errno == EINVAL && !huge ? 0 : errno;
	return 0;
}

static bool is_huge(const char *addr, size_t page)
{
	int flags = thp_flags_open();
	bool is = flags >= 0 && thp_is_one(flags, addr, page);

	if (flags >= 0)
		close(flags);
	return is;
}

static int step_map(const FIXTURE_DATA(migrate_kvm) * self,
		    enum backing backing, struct machine *m, int nr)
{
	size_t bytes = area_bytes(backing, self->page);
	int tries, error, i;

	m->faults = 0;
	for (tries = 0; tries < TRIES; tries++) {
		unmap_pud(self->area);
		error = backing == HUGETLB ? map_file(self->fd, self->area) :
			map_anon(self->area, bytes, backing == ANON_THP);
		if (error)
			return error;
		if (backing != HUGETLB)
			break;
		m->faults = touch_pages(self->area, NR_PAGES);
		/* A fault that has nothing to do with these may be counted. */
		if (!nr || m->faults == 1)
			break;
	}
	/* The first fills the table that others share. */
	for (i = 0; i < NR_PAGES; i++)
		memset(self->area + i * self->page + nr * JOURNAL_BYTES, 0,
		       JOURNAL_BYTES);
	m->huge = backing != ANON_THP ||
		  is_huge(self->area + PAGE * self->page, self->page);
	return 0;
}

/* Create a machine; the descriptor of its processor, or -errno. */
static int machine_new(const FIXTURE_DATA(migrate_kvm) * self,
		       enum backing backing, struct machine *m)
{
	struct kvm_userspace_memory_region code = {
		.slot = 0, .guest_phys_addr = CODE_AT,
		.memory_size = getpagesize(),
		.userspace_addr = (uintptr_t)m->code,
	};
	struct kvm_userspace_memory_region memory = {
		.slot = 1, .guest_phys_addr = MEMORY_AT,
		.memory_size = area_bytes(backing, self->page),
		.userspace_addr = (uintptr_t)self->area,
	};
	struct kvm_sregs sregs;
	int kvm, vm, cpu;

	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		return -errno;
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0)
		return -errno;
	/* Intel's processors need three pages for what they cannot do. */
	if (ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000ul) ||
	    ioctl(vm, KVM_SET_USER_MEMORY_REGION, &code) ||
	    ioctl(vm, KVM_SET_USER_MEMORY_REGION, &memory))
		return -errno;
	cpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	if (cpu < 0 || ioctl(cpu, KVM_GET_SREGS, &sregs))
		return -errno;
	sregs.cs = (struct kvm_segment) {
		.limit = ~0u, .selector = 8, .type = 11, .present = 1,
		.s = 1, .db = 1, .g = 1,
	};
	sregs.ds = sregs.cs;
	sregs.ds.type = 3;
	sregs.ds.selector = 16;
	sregs.es = sregs.ds;
	sregs.ss = sregs.ds;
	sregs.fs = sregs.ds;
	sregs.gs = sregs.ds;
	sregs.cr0 |= 1;		/* protected mode */
	return ioctl(cpu, KVM_SET_SREGS, &sregs) ? -errno : cpu;
}

static void note_loss(const struct journal_loss *loss, void *arg)
{
	struct machine *m = arg;

	m->example = loss->write;
}

/*
 * As the kernel finds it in the page table. What this process has in its TLB may
 * be the old page, which has all that is missing in the new one.
 */
static int read_memory(const char *addr, void *buf, size_t len)
{
	int fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	int error = 0;

	if (fd < 0)
		return errno;
	if (pread(fd, buf, len, (off_t)addr) != (ssize_t)len)
		error = errno ?: EIO;
	close(fd);
	return error;
}

static int step_run(const FIXTURE_DATA(migrate_kvm) * self, struct machine *m,
		    int nr, int cpu, const struct kvm_run *run)
{
	size_t offset = PAGE * self->page + nr * JOURNAL_BYTES;
	uint64_t journal[JOURNAL_WORDS];
	int error;
	struct kvm_regs regs = {
		.rip = CODE_AT, .rflags = 2, .rbx = MEMORY_AT + offset,
		.rbp = MAILBOX_AT, .rdi = journal_word(nr, 0) >> 32,
	};

	if (ioctl(cpu, KVM_SET_REGS, &regs))
		return errno;
	while (ioctl(cpu, KVM_RUN, 0))
		if (errno != EINTR)
			return errno;
	m->exit_reason = run->exit_reason;
	if (run->exit_reason != KVM_EXIT_IO || run->io.port != STOP_PORT)
		m->strange = true;
	error = read_memory(self->area + offset, journal, sizeof(journal));
	if (error)
		return error;
	m->lost = journal_check(journal, nr, m->mailbox->wrote, note_loss, m);
	return 0;
}

static __noreturn void machine_main(const FIXTURE_DATA(migrate_kvm) * self,
				    enum backing backing, int nr)
{
	struct machine *m = &self->machines[nr];
	const struct kvm_run *run = NULL;
	uint32_t asked = 0;
	int cpu, kvm, size;

	/* The test is on the first. */
	pin_to_cpu(self->cpus[(nr + 1) % self->nr_cpus]);
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	size = kvm < 0 ? -1 : ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	cpu = size < 0 ? -errno : machine_new(self, backing, m);
	if (cpu >= 0) {
		run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
			   cpu, 0);
		if (run == MAP_FAILED)
			cpu = -errno;
	}
	for (;;) {
		asked = wait_for_change(&m->asked, asked);
		if (cpu < 0)
			m->error = -cpu;
		else if (m->step == STEP_MAP)
			m->error = step_map(self, backing, m, nr);
		else if (m->step == STEP_RUN)
			m->error = step_run(self, m, nr, cpu, run);
		else
			unmap_pud(self->area);
		set_and_wake(&m->done, asked);
	}
}

/* The test. */

static void ask(struct machine *m, enum step step)
{
	m->step = step;
	set_and_wake(&m->asked, m->asked + 1);
}

/* Whether the machine's process has done it; says what went wrong if not. */
static bool answered(struct machine *m)
{
	struct wait_limit limit = {};
	uint32_t done;

	while ((done = __atomic_load_n(&m->done, __ATOMIC_ACQUIRE)) != m->asked &&
	       within_limit(&limit, &m->pid, 1, REPLY_MS))
		wait_a_while(&m->done, done, 100);
	if (done != m->asked)
		ksft_print_msg("the process of a machine does not answer\n");
	else if (m->error)
		ksft_print_msg("a machine cannot %s: %s\n",
			       step_name[m->step], strerror(m->error));
	else if (m->strange)
		ksft_print_msg("a machine stops by itself: exit reason %u\n",
			       m->exit_reason);
	return done == m->asked && !m->error && !m->strange;
}

static uint32_t wrote(const struct machine *m)
{
	return __atomic_load_n(&m->mailbox->wrote, __ATOMIC_RELAXED);
}

/*
 * Whether each machine makes so many writes more, within some seconds. One that
 * still writes then is slow, and one that does not has stopped.
 */
static bool all_write(const FIXTURE_DATA(migrate_kvm) * self, int nr,
		      uint32_t more)
{
	uint32_t from[MAX_MACHINES], last[MAX_MACHINES];
	bool late[MAX_MACHINES] = {}, any = false;
	struct wait_limit limit = {};
	struct machine *m;
	int i;

	for (i = 0; i < nr; i++) {
		from[i] = wrote(&self->machines[i]);
		self->machines[i].slow = false;
		self->machines[i].stopped = false;
	}
	for (i = 0; i < nr; i++) {
		m = &self->machines[i];
		while (!late[i] && wrote(m) - from[i] < more) {
			late[i] = !within_limit(&limit, &m->pid, 1, RUN_MS);
			usleep(1000);
		}
		any = any || late[i];
	}
	if (!any)
		return true;
	for (i = 0; i < nr; i++)
		last[i] = wrote(&self->machines[i]);
	sleep(1);
	for (i = 0; i < nr; i++) {
		m = &self->machines[i];
		m->slow = late[i] && wrote(m) != last[i];
		m->stopped = wrote(m) == last[i];
	}
	return false;
}

/* The whole file, with none of its pages; where @addr is, no table can be shared. */
static bool map_view(char *addr, int fd)
{
	return mmap(addr, 2 * pud_size(), PROT_READ | PROT_WRITE,
		    MAP_FIXED | MAP_SHARED | MAP_NORESERVE, fd, 0) != MAP_FAILED;
}

/* Whether the page at @addr of a process moves to the other node, if it is there. */
static bool move(const FIXTURE_DATA(migrate_kvm) * self, pid_t pid, void *addr)
{
	int from = page_node(pid, addr), status = -EBUSY, to;

	if (from < 0)
		return false;
	to = self->nodes[from == self->nodes[0]];
	return !move_pages(pid, 1, &addr, &to, &status, MPOL_MF_MOVE_ALL) &&
	       status == to;
}

/*
 * All but the test and its machine leave the page, after the table was unshared
 * for the neighbour. Returns whether that is so.
 */
static bool move_neighbour(const FIXTURE_DATA(migrate_kvm) * self)
{
	struct machine *first = self->machines, *other = first + 1;
	char *addr = self->area + NEIGHBOUR * self->page;

	/* Asked of the last, as the first may have lost it. */
	if (!move(self, other->pid, addr))
		return false;
	ask(other, STEP_UNMAP);
	if (!answered(other))
		return false;
	touch_pages(self->view + pud_size() + PAGE * self->page, 1);
	return all_write(self, 1, WRITES);
}

enum round_end {
	ROUND_DONE, ROUND_NOT_SHARED, ROUND_NOT_HUGE, ROUND_SLOW, ROUND_BROKEN,
};

/* Returns whether the page moved; sets @idle if a machine did not write. */
static bool move_page(const FIXTURE_DATA(migrate_kvm) * self, int machines,
		      bool neighbour, bool *idle)
{
	char *addr = self->area + PAGE * self->page;
	uint32_t before[MAX_MACHINES];
	pid_t pid = self->machines->pid;
	bool moved;
	int i;

	if (neighbour) {
		if (!move_neighbour(self))
			return false;
		pid = 0;
		addr = self->view + pud_size() + PAGE * self->page;
	}
	for (i = 0; i < machines; i++)
		before[i] = wrote(&self->machines[i]);
	moved = move(self, pid, addr);
	for (i = 0; i < machines; i++)
		*idle = *idle || wrote(&self->machines[i]) == before[i];
	return moved;
}

static enum round_end run_round(FIXTURE_DATA(migrate_kvm) * self,
				const FIXTURE_VARIANT(migrate_kvm) * variant)
{
	int i, machines = variant->neighbour ? 1 : variant->processes;
	bool ok = true, moved = false, idle = false, writing;
	bool slow = false, stopped = false;
	struct machine *m;
	size_t lost = 0;

	for (i = 0; i < variant->processes; i++) {
		m = &self->machines[i];
		ask(m, STEP_MAP);
		if (!answered(m))
			return ROUND_BROKEN;
		if (i && m->faults != 1)
			return ROUND_NOT_SHARED;
		if (!m->huge)
			return ROUND_NOT_HUGE;
	}
	for (i = 0; i < machines; i++) {
		m = &self->machines[i];
		m->mailbox->wrote = 0;
		__atomic_store_n(&m->mailbox->stop, 0, __ATOMIC_RELEASE);
		ask(m, STEP_RUN);
	}
	writing = all_write(self, machines, WRITES);
	if (writing) {
		moved = move_page(self, machines, variant->neighbour, &idle);
		writing = all_write(self, machines, WRITES);
	}
	for (i = 0; i < machines; i++)
		__atomic_store_n(&self->machines[i].mailbox->stop, 1,
				 __ATOMIC_RELEASE);
	for (i = 0; i < machines; i++) {
		m = &self->machines[i];
		ok = answered(m) && ok;
		slow = slow || (!writing && m->slow);
		stopped = stopped || (!writing && m->stopped);
		if (!ok || !m->lost)
			continue;
		lost += m->lost;
		ksft_print_msg("machine %d lost write %llu of %u, and others\n",
			       i, (unsigned long long)m->example, wrote(m));
	}
	/* The page is to count as one that only the table of others has. */
	if (self->view)
		map_view(self->view, self->fd);
	if (ok && !writing)
		ksft_print_msg("a machine %s\n", stopped ? "does not write" :
							   "writes little");
	self->calls++;
	self->failed_calls += !moved;
	self->idle += moved && idle;
	self->moves += moved && (!idle || lost);
	self->lost_moves += moved && lost;
	self->lost += lost;
	if (ok && slow && !stopped)
		return ROUND_SLOW;
	return ok && writing ? ROUND_DONE : ROUND_BROKEN;
}

FIXTURE_SETUP(migrate_kvm)
{
	const char *why;
	int i, kvm;
	pid_t pid;

	self->fd = -1;
	if (geteuid())
		SKIP(return, "needs root, for MPOL_MF_MOVE_ALL");
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		SKIP(return, "no /dev/kvm (%s): needs CONFIG_KVM, and a CPU for it",
		     strerror(errno));
	i = ioctl(kvm, KVM_GET_API_VERSION, 0);
	close(kvm);
	if (i != KVM_API_VERSION)
		SKIP(return, "needs version %d of KVM's interface, not %d",
		     KVM_API_VERSION, i);
	why = nodes_lack(self->nodes, 2, sched_getcpu());
	if (why)
		SKIP(return, "%s", why);
	self->nr_cpus = cpu_list(self->cpus, CPU_SETSIZE);
	if (self->nr_cpus < 2)
		SKIP(return, "needs 2 CPUs");

	why = guard_lacks();
	if (why)
		SKIP(return, "%s", why);
	self->page = variant->backing == ANON ? getpagesize() : pmd_size();
	if (variant->backing == HUGETLB) {
		why = pool_lacks(self->nodes, 2, NR_PAGES + SPARE);
		if (why)
			SKIP(return, "%s", why);
		why = file_lacks(&self->fd, 2 * pud_size());
		if (why)
			SKIP(return, "%s", why);
	}
	if (variant->backing == ANON_THP && !thp_allow())
		SKIP(return, "needs CONFIG_TRANSPARENT_HUGEPAGE");
	/* One for the processes, and two for the view, in three. */
	why = area_lacks(&self->area, variant->neighbour ? 4 : 1);
	if (why)
		SKIP(return, "%s", why);
	if (variant->neighbour) {
		self->view = self->area + pud_size() + pmd_size();
		ASSERT_TRUE(map_view(self->view, self->fd));
	}

	self->machines = share_memory(MAX_MACHINES * sizeof(*self->machines));
	ASSERT_NE(NULL, self->machines);
	pin_to_cpu(self->cpus[0]);
	for (i = 0; i < variant->processes; i++) {
		struct machine *m = &self->machines[i];

		m->code = share_memory(getpagesize());
		ASSERT_NE(NULL, m->code);
		memcpy(m->code + CODE_AT, machine_code, sizeof(machine_code));
		m->mailbox = (struct mailbox *)(m->code + MAILBOX_AT);
		pid = crew_fork(&self->crew);
		ASSERT_GE(pid, 0);
		if (!pid)
			machine_main(self, variant->backing, i);
		/* Not by the child, which shares this. */
		m->pid = pid;
	}
}

FIXTURE_TEARDOWN(migrate_kvm)
{
	bool gone = crew_kill(&self->crew, REPLY_MS);
	const char *why;

	if (self->view)
		munmap(self->view, 2 * pud_size());
	if (self->fd >= 0)
		close(self->fd);
	/* The guardian must not wait for those who are stuck. */
	why = guard_end(gone);
	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
}

TEST_F_TIMEOUT(migrate_kvm, keeps_writes, 300)
{
	long round, rounds = env_count("MIGRATE_KVM_ROUNDS", ROUNDS);
	enum round_end end = ROUND_DONE;
	uint64_t start = cycles_clock();

	for (round = 0; round < rounds && end == ROUND_DONE &&
	     ms_since(start) < TEST_MS; round++)
		end = run_round(self, variant);

	ksft_print_msg("migrate_kvm: control=no calls=%ld failed_calls=%ld",
		       self->calls, self->failed_calls);
	printf(" migrations=%ld lost_migrations=%ld idle=%ld lost_writes=%ld\n",
	       self->moves, self->lost_moves, self->idle, self->lost);
	EXPECT_EQ(0, self->lost)
		TH_LOG("%ld of %ld moves lost writes of a machine",
		       self->lost_moves, self->moves);
	ASSERT_NE(ROUND_BROKEN, end);
	/* Not after a loss: a skip would take its place. */
	if (!self->lost && end == ROUND_NOT_SHARED)
		SKIP(return, "%s",
		     not_shared(self->machines[1].faults, NR_PAGES));
	if (!self->lost && end == ROUND_NOT_HUGE)
		SKIP(return, "no huge page to be had: free some memory, or compact it");
	if (!self->lost && end == ROUND_SLOW)
		SKIP(return, "inconclusive: a machine wrote less than %d times in %d s",
		     WRITES, RUN_MS / 1000);
	if (!self->lost && self->moves < MIN_MOVES)
		SKIP(return, "inconclusive: %ld of %ld calls moved a page while all wrote",
		     self->moves, self->calls);
}

#else

TEST(migrate_kvm)
{
	SKIP(return, "has machine code for x86_64 only");
}

#endif

TEST_HARNESS_MAIN
