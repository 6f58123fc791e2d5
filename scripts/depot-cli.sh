#!/usr/bin/env bash
# Installs the real Depot CLI, which the tests hold the local cloud and our own programs against, at one exact version
# from npm as .cache/depot/depot. Does nothing when it is there.
set -euo pipefail
cd "$(dirname "$0")/.."

package=@depot/cli-linux-x64@0.0.1-cli.2.102.12
sha256=ea084fde31e371b14416f28c28f3671d5f41829b3827f3e4ef3b1f1364cde078
program=.cache/depot/depot

fail() {
	echo "depot-cli: $*" >&2
	exit 1
}

installed() { echo "$sha256  ${1:-$program}" | sha256sum --check --status 2>/dev/null; }

if installed; then
	exit 0
fi
[[ "$(uname -sm)" == "Linux x86_64" ]] || fail "only the CLI for Linux on x86_64 is pinned here, this is $(uname -sm)"
command -v npm >/dev/null || fail "npm is missing: apt-get install -y --no-install-recommends npm"

echo "depot-cli: installing $package from npm"
mkdir -p "$(dirname "$program")"
unpacked=$(mktemp -d "$(dirname "$program")/unpack.XXXXXX")
trap 'rm -rf "$unpacked"' EXIT
npm pack --silent --pack-destination "$unpacked" "$package" >/dev/null || fail "npm has no $package, or cannot be reached"
tar -xzf "$unpacked"/*.tgz -C "$unpacked" package/bin/depot
installed "$unpacked/package/bin/depot" || fail "$package is not the program whose checksum is pinned here"
mv "$unpacked/package/bin/depot" "$program"
