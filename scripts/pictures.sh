#!/usr/bin/env bash
# Creates pictures of the summaries in demo-results, light and dark, as GitHub shows them: scripts/pictures.sh [docs]
#
# With docs, it also updates the pictures in docs/images. It needs what scripts/setup.sh test installs: Chromium,
# GitHub's style and Mermaid.
set -euo pipefail
cd "$(dirname "$0")/.."

results=$PWD/demo-results
[[ -d $results ]] || scripts/demo.sh
program=$(mktemp "${TMPDIR:-/tmp}/sandbox-pictures-XXXXXX")
trap 'rm -f "$program"' EXIT
go test -c -o "$program" ./internal/githubpage
for summary in "$results"/*.md; do
	(cd internal/githubpage &&
		"$program" -test.run 'TestPicture$' -markdown "$summary" -picture "${summary%.md}") >/dev/null
done
[[ ${1:-} == docs ]] || exit 0
mkdir -p docs/images
cp "$results/snapshot-of-app-light.png" docs/images/summary-light.png
cp "$results/snapshot-of-app-dark.png" docs/images/summary-dark.png
