#!/usr/bin/env bash
# Installs the Debian packages that tests, lint and the demo need. Says nothing when all are there.
set -euo pipefail

packages=(ca-certificates curl debootstrap docker.io gcc git iproute2 iptables libc6-dev libseccomp-dev libxml2-utils make pkg-config runc shellcheck)
command -v npm >/dev/null || packages+=(npm) # fetches the Depot CLI; any npm will do

missing=()
for package in "${packages[@]}"; do
	[[ $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) == *' installed' ]] || missing+=("$package")
done
((${#missing[@]})) || exit 0

install=(apt-get install -y --no-install-recommends "${missing[@]}")
if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
	echo "packages: missing: ${missing[*]}; on Debian: sudo ${install[*]}" >&2
	exit 1
fi
echo "packages: installing ${missing[*]}"
# Docker's package would start its daemon; ours are started by the tests that need them.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
	trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
quiet=$(dirname "$0")/quiet.sh
"$quiet" packages apt-get update -q
"$quiet" packages "${install[@]}"
