#!/usr/bin/env bash
# Builds the sandbox image, runs its test suite and creates a Daytona snapshot, as a workflow would. The services are
# those of internal/localcloud: GitHub OIDC, Depot's API, BuildKit behind mTLS, a Docker Engine, Daytona, Doppler. The
# build and the snapshot run twice; the second run reuses the results of the first one. Then three runs fail on purpose.
#
# The summaries of the runs, a report and a recording of a terminal are in demo-results afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."

echo 'demo: builds the sandbox image, runs its test suite and creates a Daytona snapshot, twice, on this machine only'
if [[ -x .cache/demo/localcloud && -x .cache/bin/buildkitd && -f .cache/base/bookworm-slim.tar ]]; then
	echo 'demo: all dependencies are in .cache: this takes about 2 minutes, or 4 minutes if the image must be rebuilt'
else
	echo 'demo: the first run installs Debian packages (docker.io, debootstrap, asciinema), builds BuildKit and the'
	echo 'demo: programs, and creates debian:bookworm-slim. It takes 6 to 8 minutes on 2 cores; later runs take about'
	echo 'demo: 2 minutes'
fi
scripts/setup.sh demo

root=$PWD
programs=$root/.cache/demo
results=$root/demo-results
rm -rf "$results"
mkdir "$results"
dir=$(mktemp -d "${TMPDIR:-/tmp}/sandbox-demo-XXXXXX")
cloud=''
finish() {
	trap - EXIT INT TERM
	if [[ $cloud ]]; then
		kill "$cloud" 2>/dev/null || true
		wait "$cloud" 2>/dev/null || true
	fi
	rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT TERM

# The oldest engine is a Debian package and does not have to be built.
echo 'demo: starting Depot, GitHub, Doppler, Daytona, registries, two BuildKit daemons and two Docker Engines'
"$programs/localcloud" --env "$dir/env" --engine oldest >"$dir/cloud.log" 2>&1 &
cloud=$!
until [[ -s $dir/env ]]; do
	kill -0 "$cloud" 2>/dev/null || {
		cat "$dir/cloud.log" >&2
		exit 1
	}
	sleep 0.1
done
# shellcheck disable=SC1091 # written by localcloud
source "$dir/env"
# Use the job's OIDC token for Depot, and the Daytona API key in Doppler.
unset DEPOT_TOKEN DAYTONA_API_KEY
export GITHUB_REPOSITORY=org/sandbox-actions GITHUB_ACTOR=demo

# run NAME PROGRAM ARGUMENT… runs a program, stores its outputs and its summary as NAME, and prints its duration. It
# shows the program's log on a terminal, and otherwise the end of the log if the program fails.
run() {
	local name=$1 program=$programs/$2 began
	shift 2
	began=$(date +%s.%N)
	local -x GITHUB_STEP_SUMMARY=$results/${name// /-}.md
	if [[ -t 2 ]]; then
		"$program" "$@" >"$dir/$name"
	elif ! "$program" "$@" >"$dir/$name" 2>"$dir/log"; then
		tail -n 40 "$dir/log" >&2
		return 1
	fi
	awk -v name="$name" -v began="$began" -v ended="$(date +%s.%N)" \
		'BEGIN { printf "demo: %s: %.1f s\n", name, ended - began }'
}

# output NAME OUTPUT prints an output of the run NAME.
output() { sed -n "s/^$2=//p" "$dir/$1"; }

# require_same NAME NAME OUTPUT fails unless the output of both runs is the same.
require_same() {
	[[ $(output "$1" "$3") == "$(output "$2" "$3")" ]] || {
		echo "demo: $3 differs between $1 and $2" >&2
		exit 1
	}
}

# pushed_bytes prints the number of bytes pushed to Daytona's registry so far.
pushed_bytes() {
	local before
	before=$(grep -c '^pushed ' "$dir/cloud.log" || true)
	kill -USR1 "$cloud"
	while [[ $(grep -c '^pushed ' "$dir/cloud.log" || true) == "$before" ]]; do sleep 0.05; done
	sed -n 's/^pushed //p' "$dir/cloud.log" | tail -n 1
}

# fail NAME PROGRAM ARGUMENT… runs a program that must fail, and prints its error.
fail() {
	local name=$1 program=$programs/$2
	shift 2
	if GITHUB_STEP_SUMMARY=$results/${name// /-}.md "$program" "$@" >"$dir/$name" 2>"$dir/log"; then
		echo "demo: $name: the program did not fail" >&2
		exit 1
	fi
	printf 'demo: %s: %s\n' "$name" "$(sed -n 's/^error: //p' "$dir/log" | tail -n 1)"
}

build_arguments=(--git-context git --build-args GITHUB_REPOSITORY)
if command -v npm >/dev/null && [[ -f $(npm config get userconfig) ]]; then
	build_arguments+=(--secret-files "npmrc=$(npm config get userconfig)")
fi
for build in 'first build' 'second build'; do
	run "$build" action-build "${build_arguments[@]}"
	printf '      %s of %s steps cached, digest %s\n' \
		"$(output "$build" cached_steps)" "$(output "$build" total_steps)" "$(output "$build" digest)"
done
require_same 'first build' 'second build' digest
docker run --rm "$(output 'second build' image_name)" sh -c 'printf \
	"demo: in the image: %s, node %s, %s changed files at %s\n" \
	"$(git --version)" "$(node --version)" "$(git status --short | wc -l)" "$(git rev-parse --short HEAD)"'

run 'test suite' action-test --report-dir "$dir/results"
printf '      %s of %s passed, %s failed, %s skipped\n' "$(output 'test suite' tests_passed)" \
	"$(output 'test suite' tests_total)" "$(output 'test suite' tests_failed)" "$(output 'test suite' tests_skipped)"
grep -E '^\|[^|]+\|[^|]+\| [0-9.]+ s \|' "$results/test-suite.md" | cut -c1-60 |
	pr -2 -t -w 126 -l 1000 | sed 's/^/      /'

before=0
verify=suite # in sandboxes of the snapshot; the second run reuses a snapshot that Doppler names already
report=(--report --report-dir "$results")
for snapshot in 'first snapshot' 'second snapshot'; do
	run "$snapshot" action-snapshot --image= "${build_arguments[@]}" --verify "$verify" "${report[@]}"
	after=$(pushed_bytes)
	printf '      %s is %s, verified: %s, reused: %s, bytes pushed: %d\n' "$(output "$snapshot" snapshot_name)" \
		"$(output "$snapshot" snapshot_state)" "$(output "$snapshot" verified)" "$(output "$snapshot" reused)" \
		$((after - before))
	before=$after verify='' report=()
done
require_same 'first snapshot' 'second snapshot' snapshot_name
require_same 'first snapshot' 'second build' image_id
echo "demo: the snapshot contains the built image: $(output 'first snapshot' image_id)"
echo "demo: the image in Daytona's registry has the digest from the builder: $(output 'first snapshot' digest)"
named=$(curl -fsS --config - "$DOPPLER_API_HOST/v3/configs/config/secrets/download?format=docker" \
	<<<"header = \"Authorization: Bearer $DOPPLER_TOKEN\"" | sed -n 's/^DAYTONA_SNAPSHOT_NAME=//p')
[[ $named == "$(output 'first snapshot' snapshot_name)" ]] || {
	echo "demo: Doppler names '$named' instead of '$(output 'first snapshot' snapshot_name)'" >&2
	exit 1
}
echo "demo: Doppler names $named"

run 'another snapshot' action-snapshot --image= "${build_arguments[@]}" --cpu 1
for snapshot in 'first snapshot' 'another snapshot'; do
	run "promotion of the $snapshot" action-snapshot promote "$(output "$snapshot" snapshot_name)" --to prd \
		--to-token "$DOPPLER_TOKEN_PRD"
done
DOPPLER_TOKEN=$DOPPLER_TOKEN_PRD run 'rollback of prd' action-snapshot rollback
require_same 'first snapshot' 'rollback of prd' snapshot_name
DOPPLER_TOKEN=$DOPPLER_TOKEN_PRD "$programs/action-snapshot" history 2>/dev/null | sed 's/^/      /'

# Another repository: a snapshot of a changed image, and runs that fail.
cp -R examples/build-test-snapshot "$dir/app"
cd "$dir/app"
commit() { git add --all && git -c user.name=demo -c user.email=demo@example.com commit --quiet --message="$1"; }
git init --quiet --initial-branch=main
git remote add origin "$GITHUB_SERVER_URL/acme/app"
commit 'Add the sandbox'
export GITHUB_REPOSITORY=acme/app
run 'build of app' action-build --report --report-dir "$dir/app-report"
printf '#!/bin/sh\necho "agent 1.0"\n' >agent
sed -i 's|^USER|COPY --chmod=755 agent /usr/local/bin/\n&|' Dockerfile
commit 'Add the agent'
run 'snapshot of app' action-snapshot --image= --verify suite --report --report-dir "$dir/app-report"
sed -i 's/vi\$/nano$/' sandbox/tests.yaml
commit 'Expect another editor'
fail 'failed test' action-test --image= --report-dir "$dir/app-results"
fail 'refused snapshot' action-snapshot --image= --cpu 64
sed -i 's/^USER/RUN agnet --version\n&/' Dockerfile
fail 'failed step' action-build
cd "$root"

GITHUB_REPOSITORY=org/sandbox-actions PATH=$programs:$PATH LC_ALL=C.UTF-8 TERM=xterm-256color \
	asciinema rec --quiet --idle-time-limit 1 --cols 100 --rows 30 --command scripts/demo-session.sh \
	"$results/session.cast" </dev/null >/dev/null
if command -v chromium >/dev/null && [[ -f .cache/githubpage/mermaid.min.js ]]; then
	scripts/pictures.sh
fi
echo 'demo: results are in demo-results:'
(cd "$results" && ls) | sed 's/^/      /'
