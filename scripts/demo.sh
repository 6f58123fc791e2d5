#!/usr/bin/env bash
# Takes the sandbox image from source to something a team can run, against the local cloud and as a workflow would: GitHub OIDC, Depot's
# API, a BuildKit behind mTLS, a Docker Engine, Daytona, Doppler. Everything is done twice: the second time it is there already.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(mktemp -d "${TMPDIR:-/tmp}/sandbox-demo-XXXXXX")
cloud=''
finish() {
	trap - EXIT INT TERM
	[[ -z $cloud ]] || { kill "$cloud" 2>/dev/null && wait "$cloud" 2>/dev/null; } || true
	rm -rf "$folder"
}
trap finish EXIT
trap 'exit 130' INT TERM

go build -o "$folder/" ./internal/localcloud/cmd/localcloud ./action-build ./action-test ./action-snapshot
echo "demo: starting the local cloud: Depot, GitHub, Doppler, Daytona, registries, two builders, two Docker Engines"
"$folder/localcloud" --env "$folder/env" --engine current >"$folder/cloud.log" 2>&1 &
cloud=$!
until [[ -s $folder/env ]]; do
	kill -0 "$cloud" 2>/dev/null || {
		cat "$folder/cloud.log" >&2
		exit 1
	}
	sleep 0.1
done
# shellcheck disable=SC1091 # made just now
source "$folder/env"
unset DEPOT_TOKEN DAYTONA_API_KEY # the job's OIDC token opens Depot, and Doppler has Daytona's key
export GITHUB_REPOSITORY=org/sandbox-actions

# run NAME PROGRAM ARGUMENTS… keeps a program's results as NAME. What it shows is for a terminal; elsewhere it is shown when it fails.
run() {
	local name=$1 began
	shift
	began=$(date +%s.%N)
	if [[ -t 2 ]]; then
		"$folder/$1" "${@:2}" >"$folder/$name"
	elif ! "$folder/$1" "${@:2}" >"$folder/$name" 2>"$folder/log"; then
		tail -n 40 "$folder/log" >&2
		return 1
	fi
	awk -v name="$name" -v began="$began" -v ended="$(date +%s.%N)" 'BEGIN { printf "demo: %s: %.1f s\n", name, ended - began }'
}
result() { sed -n "s/^$2=//p" "$folder/$1"; }
same() {
	[[ $(result "$1" "$3") == "$(result "$2" "$3")" ]] || {
		echo "demo: the $3 of $1 and $2 differ" >&2
		exit 1
	}
}
# pushed is how many bytes Daytona's registry has been sent by now.
pushed() {
	local before
	before=$(grep -c '^pushed ' "$folder/cloud.log" || true)
	kill -USR1 "$cloud"
	while [[ $(grep -c '^pushed ' "$folder/cloud.log" || true) == "$before" ]]; do sleep 0.05; done
	sed -n 's/^pushed //p' "$folder/cloud.log" | tail -n 1
}

built=(--git-context git --build-args GITHUB_REPOSITORY)
for build in 'first build' 'second build'; do
	run "$build" action-build "${built[@]}" --image-name iterate-sandbox:local
	echo "      $(result "$build" cached_steps) of $(result "$build" total_steps) steps cached, digest $(result "$build" digest)"
done
same 'first build' 'second build' digest
docker run --rm iterate-sandbox:local sh -c 'echo "demo: in the image: $(git --version), node $(node --version), $(git status --short | wc -l) changed files at $(git rev-parse --short HEAD)"'

GITHUB_STEP_SUMMARY=$folder/summary run 'test suite' action-test --report-dir "$folder/results"
echo "      $(result 'test suite' tests_passed) of $(result 'test suite' tests_total) passed, $(result 'test suite' tests_failed) failed, $(result 'test suite' tests_skipped) skipped"
grep '^|' "$folder/summary" | grep -v 'Image built' | cut -c1-60 | pr -2 -t -w 126 -l 1000 | sed 's/^/      /'

sent=0
for snapshot in 'first snapshot' 'second snapshot'; do
	run "$snapshot" action-snapshot --image= "${built[@]}"
	now=$(pushed)
	echo "      $(result "$snapshot" snapshot_name) is $(result "$snapshot" snapshot_state), reused: $(result "$snapshot" reused), bytes pushed: $((now - sent))"
	sent=$now
done
same 'first snapshot' 'second snapshot' snapshot_name
same 'first snapshot' 'second build' image_id
echo "demo: the image of the snapshot is the one that was built: $(result 'first snapshot' image_id)"
echo "demo: its digest in Daytona's registry is the one that the builder made: $(result 'first snapshot' digest)"
HOME=$folder .cache/bin/doppler --api-host "$DOPPLER_API_HOST" --token "$DOPPLER_TOKEN" --no-check-version secrets get DAYTONA_SNAPSHOT_NAME --plain | sed 's/^/demo: Doppler names /'
