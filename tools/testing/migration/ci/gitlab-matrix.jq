# SPDX-License-Identifier: GPL-2.0
#
# jq -f gitlab-matrix.jq plan.json: the child pipeline of a plan of make matrix PLAN=json.
def lab: {
	image: "debian:12",
	before_script: [
		"apt-get update",
		"apt-get install -y --no-install-recommends ca-certificates git make python3"
	]
};
{ stages: ["prove", "check"] }
+ (.jobs | map({
	key: .name,
	value: (lab + {
		stage: "prove",
		# A runner that builds it itself: its tag is the name of the architecture.
		tags: [.arch],
		variables: { LAB_CACHE: "$CI_PROJECT_DIR/.cache/pmd-share-lab" },
		cache: { key: .name, paths: [".cache/pmd-share-lab"] },
		# Four times what it is thought to take, and an hour at least.
		timeout: "\([.seconds * 4 / 60, 60] | max | ceil) minutes",
		script: [.command + " OUT=out"],
		# A runner that was lost, and not a verdict that is not PROVED.
		retry: { max: 2, when: ["runner_system_failure", "stuck_or_timeout_failure"] },
		artifacts: { when: "always", paths: ["out"] }
	})
}) | from_entries)
+ { check: (lab + {
	stage: "check",
	when: "always",
	# All results, of all jobs, are in out/ then.
	script: [
		"make --no-print-directory report OUT=out O=page/index.html || true",
		"make --no-print-directory matrix PLAN=check OUT=out $SCOPE"
	],
	artifacts: { when: "always", paths: ["out", "page"] }
}) }
