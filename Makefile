# SPDX-License-Identifier: GPL-2.0
#
# The front door. `make` lists what there is to do; the work is done by
# tools/testing/migration.

# Debian's own Python: another one in PATH need not have pytest.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
LAB := $(PYTHON) -B tools/testing/migration/migration.py

DEFECT ?=
BASE ?=
KERNEL ?=
BOOTS ?=
ACCEL ?=
DEBUG ?=
TIMEOUT ?=
TESTS ?=
OUT ?=
VARIANT ?=
MUTANT ?=
RESUME ?=
DEST ?=
O ?=
AUDIT ?=
FULL ?=
TREES ?=
HARNESS ?=
FORM ?=
FAST ?=
ROUNDS ?=

# $(call option,NAME,--name): nothing where the variable is empty.
option = $(if $($(1)),$(2)='$($(1))')
WANTED = $(call option,DEFECT,--defect) $(call option,BASE,--base) \
	 $(call option,KERNEL,--kernel) $(call option,BOOTS,--boots) \
	 $(call option,ACCEL,--accel) $(call option,DEBUG,--debug) \
	 $(call option,TIMEOUT,--timeout) $(call option,TESTS,--tests) \
	 $(call option,OUT,--out) $(call option,HARNESS,--harness) $(call option,FORM,--form)

.PHONY: help prove mutants bench audit shell selftests kselftest series report record docs list install check clean

help:
	@echo 'make prove     Build a kernel with and without the protection, boot both, and say'
	@echo '               whether that is what decides if migration loses writes.'
	@echo '               Exit status 0 only for PROVED.'
	@echo '                 make prove'
	@echo '                 make prove KERNEL=/path/to/linux BOOTS=20'
	@echo 'make mutants   Break the fix in one way at a time, and say whether a test or the kernel sees it.'
	@echo '               Exit status 0 only if everything was seen that can be.'
	@echo '                 make mutants'
	@echo '                 make mutants MUTANT=no-tlb-flush BOOTS=1'
	@echo '                 make mutants RESUME=1    goes on with a run that was interrupted'
	@echo 'make bench     Count what it takes to migrate pages of shared tables (calls that moved one, IPIs,'
	@echo '               faults, times), with each form of a queue, side by side.'
	@echo '                 make bench BASE=6.12 ROUNDS=3 O=/tmp/6.12.rst'
	@echo 'make audit     Say from the source of a kernel alone which of the defects it has, where, and'
	@echo '               what to apply. Exit status 0 only if it has none for certain.'
	@echo '                 make audit KERNEL=/path/to/linux'
	@echo '                 make audit KERNEL=/path/to/linux AUDIT=json'
	@echo 'make shell     Boot one of the two kernels to a prompt, on two NUMA nodes.'
	@echo '                 make shell VARIANT=fixed BASE=6.1'
	@echo 'make selftests Build the selftests, static, to run on any machine of this kind.'
	@echo '                 make selftests DEST=/tmp/selftests'
	@echo 'make kselftest Build the selftests and run them on this machine, as root, with the kernel'"'"'s own'
	@echo '               runner: KTAP on standard output. Needs two NUMA nodes, or skips and says so.'
	@echo '                 sudo make kselftest'
	@echo "                 sudo make kselftest DEFECT=pmd-share-flush TESTS='-v munmap_first'"
	@echo '                 make kselftest BASE=6.12     in the guest, with the fixed kernel'
	@echo 'make series    Write the patches that fix a kernel, and after them, for 6.12 and 7.3, those'
	@echo '               that add the tests, with a cover letter, for git am and git send-email.'
	@echo '               With KERNEL= see first if they apply. Beside them report-<defect>.txt: the mail'
	@echo '               to the maintainers of a kernel that has the defect today.'
	@echo '                 make series BASE=4.14 O=/tmp/series'
	@echo '                 make series BASE=7.3 O=/tmp/series'
	@echo '                 make series KERNEL=/path/to/linux O=/tmp/series'
	@echo 'make report    Write all that the runs in out/ and the records show to one page of HTML.'
	@echo '                 make report OUT=/tmp/out O=/tmp/report.html'
	@echo 'make record    Write what the last proof, or run of mutants, showed into Documentation/.'
	@echo '                 make record OUT=/tmp/out'
	@echo 'make docs      Render Documentation/ to HTML, with Sphinx; a warning is an error.'
	@echo '                 make docs O=/tmp/docs'
	@echo 'make list      The defects, the bases and the mutants that the lab knows.'
	@echo 'make install   Install what the lab needs, with apt (make prove does so by itself).'
	@echo "make check     This project's own tests, a proof on 6.12 among them."
	@echo '                 make check FULL=1    also 6.1, 5.10 and DEBUG=1; takes hours'
	@echo '                 make check FAST=1    only what needs no kernel tree: a minute or two'
	@echo '                 make check TREES=/dir    with the kernel trees /dir/4.14 and so on'
	@echo 'make clean     Remove out/. The cache is in ~/.cache/pmd-share-lab ($$LAB_CACHE).'
	@echo
	@echo 'Variables of prove, mutants and shell'
	@echo '  DEFECT=name       which defect; pmd-share-migrate if not named   (make list)'
	@echo '  BASE=6.12         which kernel; Debian'"'"'s 6.12 if not named         (make list)'
	@echo '  KERNEL=/path      any kernel tree in place of a base; it is only read'
	@echo '  BOOTS=20          boots of each kernel; 1 if not named, 5 of a mutant'
	@echo '  ACCEL=kvm|tcg     KVM where a guest comes up with it, else TCG, if not named'
	@echo '  DEBUG=1           lockdep, KASAN and more in both kernels; several times slower'
	@echo '  TIMEOUT=300       seconds that a boot may take'
	@echo "  TESTS='-t name'   arguments for the selftest: -f, -v, -t, -r (see its -h)"
	@echo '  FORM=unshare      another form of the fix, queue/<base>/series.unshare; of 6.12 to 7.3,'
	@echo '                    flush is migration that does not unshare. Of series, too'
	@echo '  OUT=dir           where results go; out/ if not named'
	@echo '  VARIANT=fixed     of shell: which kernel, vulnerable if not named; of kselftest with'
	@echo '                    BASE= or KERNEL= as well, and there fixed if not named; series is'
	@echo '                    the base with all that make series adds to it, and KUnit'
	@echo '  MUTANT=name       of mutants: this one alone                     (make list)'
	@echo '  RESUME=1          of mutants: boot no kernel again that an earlier run in OUT has booted'
	@echo '  ROUNDS=3          of bench: boots of each kernel, in turn; 3 if not named'
	@echo '  DEST=dir          of selftests: where they go'
	@echo '  HARNESS=/path     of these, selftests and kselftest: the kernel tree (6.10 or later) whose'
	@echo '                    harness the selftests are built with; that of KERNEL= or of the base'
	@echo "                    if not named and it is new enough, else Debian's 6.12"
	@echo '  O=dir             of series: where it goes; an empty folder or none'
	@echo '                    of docs: where they go; out/docs if not named'
	@echo '                    of report: a file; report.html in out/ if not named'
	@echo '                    of bench: a file for the tables, as reStructuredText'

prove:
	@$(LAB) prove $(WANTED)

mutants:
	@$(LAB) mutants $(WANTED) $(call option,MUTANT,--mutant) $(call option,RESUME,--resume)

bench:
	@$(LAB) bench $(WANTED) $(call option,ROUNDS,--rounds) $(call option,O,--file)

audit:
	@$(LAB) audit $(call option,KERNEL,--kernel) $(call option,AUDIT,--format)

shell:
	@$(LAB) shell $(WANTED) $(call option,VARIANT,--variant)

selftests:
	@$(LAB) selftests $(call option,DEST,--dest) $(call option,HARNESS,--harness)

kselftest:
	@$(LAB) kselftest $(WANTED) $(call option,VARIANT,--variant)

series:
	@$(LAB) series $(call option,BASE,--base) $(call option,KERNEL,--kernel) \
		$(call option,FORM,--form) $(call option,O,--out)

report:
	@$(LAB) report $(call option,OUT,--out) $(call option,O,--file)

record:
	@$(LAB) record $(call option,OUT,--out)

docs:
	@$(LAB) docs $(call option,O,--out)

list:
	@$(LAB) list

install:
	@$(LAB) install

check:
	@$(LAB) install --check
	@FULL='$(FULL)' FAST='$(FAST)' TREES='$(TREES)' $(PYTHON) -B -m pytest tools/testing/migration/tests

clean:
	rm -rf out
