#!/usr/bin/env bash
# Builds the sandbox image twice against the local cloud, as a workflow would: GitHub OIDC, Depot's API, a BuildKit behind mTLS,
# a Docker Engine. The second time everything is cached, and the digest is the same.
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

go build -o "$folder/localcloud" ./internal/localcloud/cmd/localcloud
go build -o "$folder/action-build" ./action-build
echo "demo: starting the local cloud: Depot, GitHub, a registry, two builders, a Docker Engine"
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
unset DEPOT_TOKEN # the job's OIDC token opens Depot
export GITHUB_REPOSITORY=org/sandbox-actions

for run in first second; do
	echo
	echo "demo: the $run build"
	began=$(date +%s.%N)
	"$folder/action-build" --git-context git --build-args GITHUB_REPOSITORY --image-name iterate-sandbox:ci >"$folder/$run"
	awk -v began="$began" -v ended="$(date +%s.%N)" 'BEGIN { printf "demo: %.1f s\n", ended - began }'
	grep -E '^(digest|image_ref|git_sha|cached_steps|total_steps)=' "$folder/$run"
done
echo
docker run --rm iterate-sandbox:ci sh -c 'echo "demo: in the image: $(git --version), node $(node --version), $(git status --short | wc -l) changed files at $(git rev-parse --short HEAD)"'
[[ $(grep ^digest= "$folder/first") == "$(grep ^digest= "$folder/second")" ]] || {
	echo "demo: the digests differ" >&2
	exit 1
}
echo "demo: the same digest twice"
