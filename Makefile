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
IMAGE ?=
RUNNING ?=
SYMBOLS ?=
ACCEPT ?=
ARCH ?=
BOOTS ?=
ACCEL ?=
DEBUG ?=
WITNESS ?=
KCONFIG ?=
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
HOSTS ?=
HARNESS ?=
LTP ?=
FORM ?=
FAST ?=
ROUNDS ?=
FROM ?=
TO ?=
SCHEME ?=
SERIES ?=
UPSTREAM ?=
PLAN ?=
FORCE ?=

# All of these go to each verb, which refuses what means nothing to it. What comes from the
# environment is marked with `?`, and a verb that does not know it does without.
VARIABLES := DEFECT BASE KERNEL ARCH IMAGE RUNNING SYMBOLS ACCEPT BOOTS ACCEL DEBUG TIMEOUT TESTS OUT VARIANT MUTANT RESUME DEST O \
	     AUDIT HARNESS LTP FORM ROUNDS SCHEME FULL SERIES UPSTREAM PLAN FORCE WITNESS KCONFIG HOSTS TREES \
	     FROM TO
quoted = '$(subst ','\'',$(1))'
words = $(foreach name,$(VARIABLES),$(if $($(name)),$(call quoted,$(name)$(if \
	$(filter command,$(firstword $(origin $(name)))),,?)=$($(name)))))

# What else may stand after make: what the lab, its tests and the selftests have from the environment.
ELSE := PYTHON FAST LAB_CACHE XDG_CACHE_HOME TMPDIR HOME PATH LANG LANGUAGE LC_% TERM NO_COLOR SHELL \
	KERNELCI KIRK NODE_MODULES SPARSE_SRC SOURCE_DATE_EPOCH PYTHON% PYTEST_% DEBIAN_FRONTEND %_proxy \
	V HUGETLB_% MIGRATE_% THP_% EXEC_TEMP_STACK_%
comma := ,
strange := $(filter-out $(VARIABLES) $(ELSE),$(foreach name,$(.VARIABLES),$(if \
	$(filter command,$(firstword $(origin $(name)))),$(name))))

.PHONY: help prove matrix mutants steps bench model audit shell selftests kselftest hosttest series report record docs package list install check clean

# `make help prove` tells of prove, and runs nothing.
asks := $(filter help,$(MAKECMDGOALS))
asked := $(filter-out help,$(MAKECMDGOALS))

help:
ifneq ($(and $(asks),$(asked)),)
	@$(LAB) help $(foreach name,$(asked),$(call quoted,$(name)))
else
	@echo 'make VERB VARIABLE=value ...     `make help VERB`: all of one verb, with its variables'
	@echo
	@echo 'Without building anything'
	@echo '  make audit KERNEL=DIR        say which defects a kernel has, and what to apply'
	@echo '  make audit RUNNING=1         the same of the kernel that runs; IMAGE=/boot: of those there'
	@echo '  make series KERNEL=DIR SERIES=fixes O=DIR    write the patches that fix it'
	@echo '  make list                    name the defects; DEFECT=NAME or BASE=5.15: more of them'
	@echo '  make model                   try every order of the steps of each locking scheme, with spin'
	@echo 'With two kernels that are built and booted under QEMU'
	@echo '  make prove                   show that a fix is what keeps writes from being lost'
	@echo '  make matrix                  prove what is missing of all; HOSTS=file: on many machines'
	@echo '  make mutants                 break the fix in many ways: do the tests see it?'
	@echo '  make steps                   build and boot after each patch of a queue, and say what is new'
	@echo '  make bench                   count what migration costs with each form of a fix'
	@echo '  make shell                   boot one of the two kernels to a prompt'
	@echo 'On this machine, or another one'
	@echo '  sudo make kselftest          run the selftests here; in a guest with BASE= or KERNEL='
	@echo '  sudo make hosttest PLAN=1    say what they would do to a machine in use; then without'
	@echo '  make selftests DEST=DIR      build them, static, to copy elsewhere'
	@echo '  make package                 a .deb and .rpm of them and of the audit'
	@echo 'Results'
	@echo '  make report                  one page of HTML, of the records, and of runs in out/'
	@echo '  make record   make docs      write the last result into the records; render Documentation/'
	@echo 'This project'
	@echo '  make install                 install what the lab needs, with apt (others do it too)'
	@echo '  make check                   its own tests. FAST=1: a minute or two; FULL=1: hours'
	@echo '  make clean                   remove out/; the cache is ~/.cache/pmd-share-lab ($$LAB_CACHE)'
	@echo
	@echo 'Variables'
	@echo '  DEFECT=pmd-share-flush       which defect; pmd-share-migrate by default'
	@echo '  BASE=6.1   KERNEL=DIR        a base (Debian'"'"'s 6.12), or a tree, which is only read'
	@echo '  ARCH=arm64                   cross-built and booted; this machine'"'"'s by default'
	@echo '  BOOTS=20   TIMEOUT=300       boots of each kernel; seconds for each boot'
	@echo '  DEBUG=1    ACCEL=kvm|tcg     lockdep, KASAN and more; how QEMU runs'
	@echo '  WITNESS=1  KCONFIG=OPTIONS   kernels check what migration unmaps; more .config options'
	@echo '  OUT=DIR    O=PATH  DEST=DIR  where results go; what series, docs, report, bench write; selftests'
	@echo '  FORM=flush|unshare|unmapped  another queue/BASE/series.FORM. ROUNDS=3: bench'
	@echo "  TESTS='-t name'              arguments for the selftest"
	@echo '  VARIANT=fixed                of shell and kselftest: vulnerable, fixed, series'
	@echo '  MUTANT=name  RESUME=1        of mutants: this one; also of steps: continue. FROM=3 TO=9: steps'
	@echo '  SERIES=fixes|all|stable|ltp  of series: what is mailed on its own; UPSTREAM=DIR: with its text'
	@echo '  SCHEME=flush-6.12  FULL=1    of model: this one; what takes long. FULL=1 of list: all of it'
	@echo '  PLAN=1|json|check  FORCE=1   of hosttest (1), matrix: only say what; do it all the same'
	@echo '  HOSTS=FILE  TREES=DIR        of matrix: machines, one a line; trees, as DIR/4.14 (also of check)'
	@echo '  AUDIT=json|nrpe|prometheus   of audit; SYMBOLS=FILE: names of an image; ACCEPT=NAMES: no alarm'
	@echo '  HARNESS=DIR|ltp  LTP=DIR     whose harness the selftests use; or of prove, the tests for LTP'
endif

# A word with a typo in it is not to start what takes hours, or changes the machine.
.PHONY: known
known:
	@$(if $(strange),echo 'error: $(firstword $(strange))=: there is no such variable; `make` lists them$(comma) and \
		`make help $(firstword $(MAKECMDGOALS))` those of it' >&2; exit 2,:)

ifeq ($(asks),)
prove matrix mutants steps bench model audit shell selftests kselftest hosttest series report record docs package list install: known
	@$(LAB) $@ $(words)

check: known
	@$(if $(filter-out 0 1,$(FULL) $(FAST)),echo 'error: FULL= and FAST=: 0 or 1 is wanted' >&2; exit 2,:)
	@$(LAB) install --check $(if $(ARCH),$(call quoted,ARCH=$(ARCH)))
	@CHECK_ARCH='$(ARCH)' FULL='$(FULL)' FAST='$(FAST)' TREES='$(TREES)' $(PYTHON) -B -m pytest -n 2 --durations=20 --durations-min=15 tools/testing/migration/tests

clean: known
	rm -rf out
else ifneq ($(asked),)
$(asked):
	@:
endif
