#!/usr/bin/env bash
# Searches the code that the three programs call for known vulnerabilities (govulncheck), with the Go that releases are
# built with. Exits with 1 if there are any.
#
#   scripts/vuln.sh          with a pinned copy of the database, which is a Go module: no other network access is needed
#   scripts/vuln.sh latest   with https://vuln.go.dev, as CI on GitHub does every week
set -euo pipefail
cd "$(dirname "$0")/.."

# To update the copy, write another version and its checksum.
database_module=golang.org/x/vulndb@v0.0.0-20261105234957-e22db6528018
database_sum=h1:mfngRv0Yoh0VApsXKEN82CjD99kl7mtparN3bs3JnqI=

fail() {
	echo "vuln: $*" >&2
	exit 1
}

if [[ ${1:-} == latest ]]; then
	database=https://vuln.go.dev
else
	download=$(go mod download -json "$database_module") ||
		fail "cannot download $database_module: check the connection to the Go module proxy"
	[[ $download == *"\"Sum\": \"$database_sum\""* ]] ||
		fail "checksum mismatch for $database_module: scripts/vuln.sh pins $database_sum"
	database=file://$(sed -n 's/^\t"Dir": "\(.*\)",$/\1/p' <<<"$download")/data/osv
fi

mkdir -p .cache/vuln
GOBIN=$PWD/.cache/vuln scripts/quiet.sh vuln go -C internal/tools/vuln install -trimpath tool
# The standard library is that of the release's Go, not of the Go that runs this script.
# shellcheck source=actions/buildenv.sh
release_toolchain=$(. actions/buildenv.sh && echo "$go_toolchain")
report=$(mktemp)
trap 'rm -f "$report"' EXIT
if ! GOTOOLCHAIN=$release_toolchain .cache/vuln/govulncheck -db "$database" \
	./action-build ./action-snapshot ./action-test >"$report" 2>&1; then
	grep -v '^      #[0-9][0-9]' "$report" >&2
	fail "update the module (go get MODULE@VERSION) or Go (go mod edit -toolchain=goN.N.N) to a fixed version; see above"
fi
