# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# start.sh UNIT COMMIT: where a job begins on a host, in the folder that GNU parallel put the files
# of this run into. The lab that does the work is a clone of the commit that asked, and no other.
set -e
unit=$1 commit=$2 work=work/$1
umask 022
rm -rf "$work" "results/$unit"
mkdir -p "$work" "results/$unit"
# Nobody's hooks and line ends.
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
git init -q "$work/lab"
# A clone without history has only a bundle without history to give.
test ! -s shallow || cp shallow "$work/lab/.git/shallow"
git -C "$work/lab" fetch -q "$PWD/bundle" HEAD
git -C "$work/lab" -c advice.detachedHead=false checkout -q --detach "$commit"
# Debian's own: another one in PATH need not have what the lab needs.
python=/usr/bin/python3
test -x $python || python=python3
PYTHONPATH=$work/lab/tools/testing/migration \
	$python -B -m lab.matrix.job "units/$unit.json" "$work" "results/$unit"
