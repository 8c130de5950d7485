#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# For Slurm: a job array with a task for each base and architecture of which anything is missing or
# stale, and a job after it that says what is missing then.  Run it in the lab's folder, which all
# nodes must see at the same path, as they must the folder OUT:
#
#	OUT=/shared/out tools/testing/migration/ci/slurm-matrix.sh ARCH=x86_64 BOOTS=20
#
# SBATCH has further options of sbatch, such as --partition=big.
set -euo pipefail
: "${OUT:?names a folder that all nodes see}"
# Tasks run in a folder of their own, where another path would be meant.
OUT=$(realpath -m -- "$OUT")
mkdir -p "$OUT"
scope=("$@")
# The plan is made of what is here, and tasks of what is committed.
if changes=$(git status --porcelain -- . ':!tools/testing/migration/records') && [[ $changes ]]; then
	changes=${changes%%$'\n'*}
	echo "error: ${changes:3} is in no commit, and a commit is what tasks get" >&2
	exit 2
fi
make --no-print-directory matrix PLAN=json OUT="$OUT" "${scope[@]}" > "$OUT/plan.json"
mapfile -t commands < <(jq -r '.jobs[].command' "$OUT/plan.json")
if ((${#commands[@]} == 0)); then
	exec make --no-print-directory matrix PLAN=check OUT="$OUT" "${scope[@]}"
fi
# Four times what the longest is thought to take, and an hour at least, in minutes.
minutes=$(jq '[.jobs[].seconds * 4 / 60, 60] | max | ceil' "$OUT/plan.json")
printf '%s\n' "${commands[@]}" > "$OUT/commands"
# Each task has its own clone, as it writes the records there; the results go to OUT.
array=$(sbatch --parsable ${SBATCH-} --array="1-${#commands[@]}" --time="$minutes" \
	--cpus-per-task=2 --requeue --output="$OUT/slurm-%a.log" <<EOF
#!/bin/bash
set -e
work=\$(mktemp -d)
trap 'rm -rf "\$work"' EXIT
git clone -q '$PWD' "\$work/lab"
git -C "\$work/lab" checkout -q --detach $(git rev-parse HEAD)
cd "\$work/lab"
command=\$(sed -n "\${SLURM_ARRAY_TASK_ID}p" '$OUT/commands')
test -n "\$command" || { echo "error: $OUT/commands has no line \$SLURM_ARRAY_TASK_ID" >&2; exit 2; }
eval "\$command OUT='$OUT'"
EOF
)
# Also where a task failed: what it did not bring is missing, and the check says so.
printf -v words '%q ' "${scope[@]}"
sbatch --parsable ${SBATCH-} --wait --dependency="afterany:$array" --output="$OUT/check.log" <<EOF > /dev/null || status=$?
#!/bin/bash
cd '$PWD' && make --no-print-directory matrix PLAN=check OUT='$OUT' $words
EOF
cat "$OUT/check.log"
exit "${status:-0}"
