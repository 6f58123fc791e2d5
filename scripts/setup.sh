#!/usr/bin/env bash
# Installs and builds the dependencies of a make target: scripts/setup.sh demo|test|lint
#
# It installs Debian packages with apt-get, and everything else in .cache. It rebuilds a part only if its pinned version
# changes. It uses the mirrors and credentials in the configuration of apt, debootstrap, Go and npm.
set -euo pipefail
cd "$(dirname "$0")/.."

main() {
	# Some parts wait for the network, others for the CPU, so independent parts run concurrently.
	case ${1:-} in
	demo)
		require_go
		build_in_background build_tools bin internal/tools github.com/moby/buildkit/cmd/buildkitd
		build_in_background build_programs
		install_packages asciinema ca-certificates curl debootstrap docker.io git iproute2 iptables runc
		create_base_image
		;;
	test)
		require_go
		build_in_background build_all_tools
		install_packages ca-certificates chromium curl debootstrap docker.io fish fonts-liberation \
			fonts-noto-color-emoji gcc git iproute2 iptables libc6-dev libseccomp-dev libxml2-utils make pkg-config runc \
			shellcheck zsh
		command -v npm >/dev/null || install_packages npm
		build_in_background install_depot_cli
		build_in_background scripts/report.sh --install
		build_in_background install_page_assets
		build_in_background build_engine
		quiet go mod download
		create_base_image
		;;
	lint)
		require_go
		install_packages git shellcheck
		build_tools bin internal/tools github.com/rhysd/actionlint/cmd/actionlint honnef.co/go/tools/cmd/staticcheck
		;;
	*) fail "usage: scripts/setup.sh demo|test|lint" ;;
	esac
	wait_for_builds
}

# quiet COMMAND… runs a command, and shows the end of its output if it fails.
quiet() { scripts/quiet.sh setup "$@"; }

fail() {
	echo "setup: $*" >&2
	exit 1
}

cleanup=''
on_exit() { # COMMAND
	cleanup="$1; $cleanup"
	# shellcheck disable=SC2064 # the command may use variables that are out of scope when the trap runs
	trap "$cleanup" EXIT
}

builds=()
build_in_background() {
	"$@" &
	builds+=($!)
}

wait_for_builds() {
	local build
	for build in "${builds[@]}"; do
		wait "$build" || exit 1
	done
}

# is_current STAMP VERSION succeeds if the stamp file contains the version.
is_current() { [[ $(cat "$1" 2>/dev/null) == "$2" ]]; }

require_go() {
	command -v go >/dev/null ||
		fail "cannot find Go: install Go $(sed -n 's/^go //p' go.mod) or newer from https://go.dev/dl"
}

# install_packages PACKAGE… installs the Debian packages that are missing.
install_packages() {
	local package missing=() policy=/usr/sbin/policy-rc.d
	for package in "$@"; do
		[[ $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) == *' installed' ]] || missing+=("$package")
	done
	((${#missing[@]})) || return 0
	if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
		fail "missing Debian packages: run sudo apt-get install -y --no-install-recommends ${missing[*]}"
	fi
	echo "setup: installing Debian packages: ${missing[*]}"
	# Keep docker.io from starting its daemon: tests and the demo start their own.
	if [[ ! -e $policy ]]; then
		on_exit "rm -f $policy"
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod +x "$policy"
	fi
	quiet apt-get update -q
	quiet env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
}

# build_tools DIRECTORY MODULE PACKAGE… builds programs in .cache/DIRECTORY, at the versions that the module pins.
build_tools() {
	local bin=$PWD/.cache/$1 module=$2 version package missing=()
	shift 2
	version=$(cat "$module"/go.{mod,sum} | sha256sum)
	for package in "$@"; do
		is_current "$bin/.${package##*/}" "$version" || missing+=("$package")
	done
	((${#missing[@]})) || return 0
	echo "setup: building ${missing[*]##*/} in ${bin#"$PWD"/}"
	mkdir -p "$bin"
	CGO_ENABLED=0 GOBIN=$bin quiet go -C "$module" install -trimpath -ldflags='-s -w' "${missing[@]}"
	for package in "${missing[@]}"; do
		[[ $package != */DopplerHQ/cli ]] || mv "$bin/cli" "$bin/doppler"
		echo "$version" >"$bin/.${package##*/}"
	done
}

build_all_tools() {
	build_tools bin internal/tools \
		github.com/google/go-containerregistry/cmd/crane \
		github.com/moby/buildkit/cmd/buildctl \
		github.com/moby/buildkit/cmd/buildkitd \
		github.com/rhysd/actionlint/cmd/actionlint \
		gotest.tools/gotestsum \
		honnef.co/go/tools/cmd/staticcheck
	build_tools bin internal/tools/act github.com/nektos/act
	build_tools bin internal/tools/doppler github.com/DopplerHQ/cli
	build_tools buildkit-v0.11 internal/tools/old/buildkit github.com/moby/buildkit/cmd/buildkitd
}

# build_programs builds the programs of the demo with the settings of a release.
build_programs() {
	# shellcheck source=actions/buildenv.sh
	. actions/buildenv.sh
	mkdir -p .cache/demo
	quiet go build -ldflags="$(link_flags '')" -o .cache/demo/ \
		./internal/localcloud/cmd/localcloud ./action-build ./action-test ./action-snapshot
}

# build_engine builds the current Docker Engine (dockerd, docker-proxy, containerd, its shim, runc) in .cache/engine.
build_engine() {
	local bin=$PWD/.cache/engine module=internal/tools/engine version
	version=$(cat "$module"/go.{mod,sum} | sha256sum)
	! is_current "$bin/.built" "$version" || return 0
	echo "setup: building the current Docker Engine (about 5 minutes on 2 cores)"
	mkdir -p "$bin"
	# runc requires cgo for seccomp.
	CGO_ENABLED=1 GOBIN=$bin quiet go -C "$module" install -trimpath -tags seccomp -ldflags='-s -w' \
		github.com/opencontainers/runc
	CGO_ENABLED=0 GOBIN=$bin quiet go -C "$module" install -trimpath -ldflags='-s -w' \
		github.com/containerd/containerd/v2/cmd/containerd \
		github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2 \
		github.com/moby/moby/v2/cmd/docker-proxy \
		github.com/moby/moby/v2/cmd/dockerd
	echo "$version" >"$bin/.built"
}

# install_depot_cli installs the Depot CLI, which tests compare with the local cloud and our programs.
install_depot_cli() {
	[[ $(uname -sm) == "Linux x86_64" ]] || fail "no Depot CLI is pinned for $(uname -sm): run the tests on Linux x86_64"
	install_npm_file @depot/cli-linux-x64@0.0.1-cli.2.102.12 bin/depot .cache/depot/depot \
		ea084fde31e371b14416f28c28f3671d5f41829b3827f3e4ef3b1f1364cde078
}

# install_page_assets installs Mermaid and GitHub's style for Markdown, with which tests display summaries.
install_page_assets() {
	install_npm_file mermaid@11.17.2 dist/mermaid.min.js .cache/githubpage/mermaid.min.js \
		581ed7d74bd9048d0e3a91363927d72ef22942d7722546b27f7cc29e35390eb8
	install_npm_file github-markdown-css@5.9.0 github-markdown.css .cache/githubpage/github-markdown.css \
		6112686f954db5d3806fb96116d2ab20ad3018469ab1015c587fd8efe7d25cf4
}

# install_npm_file PACKAGE FILE TARGET SHA256 installs one file of an npm package.
install_npm_file() {
	local package=$1 file=$2 target=$3 sha256=$4 unpacked
	! sha256sum --check --status <<<"$sha256  $target" 2>/dev/null || return 0
	echo "setup: installing $package"
	mkdir -p "${target%/*}"
	unpacked=$(mktemp -d "${target%/*}/unpack.XXXXXX")
	quiet npm pack --pack-destination "$unpacked" "$package"
	tar -xzf "$unpacked"/*.tgz -C "$unpacked" "package/$file"
	sha256sum --check --status <<<"$sha256  $unpacked/package/$file" ||
		fail "checksum mismatch for $package: expected $sha256"
	mv "$unpacked/package/$file" "$target"
	rm -r "$unpacked"
}

# debian_sources prints this machine's apt sources for Debian bookworm in the one-line format, if it has any.
debian_sources() {
	# shellcheck disable=SC2016 # apt-get expands these
	apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' |
		grep -E ' bookworm(-updates|-security)? main$' | sort -u || true
}

# create_base_image creates the root file system of debian:bookworm-slim, which the local cloud serves instead of Docker
# Hub: .cache/base/bookworm-slim.tar, .tar.gz, and .tar.sums with the SHA-256 of both. It installs packages from the
# mirror that this machine's apt uses.
create_base_image() {
	local tar=$PWD/.cache/base/bookworm-slim.tar sources mirror root version
	sources=$(debian_sources)
	version=$(declare -f create_base_image trim_base_image | cat - <(echo "$sources") | sha256sum)
	! is_current "$tar.made" "$version" || return 0
	[[ $(id -u) == 0 ]] || fail "debootstrap needs root: run sudo scripts/setup.sh"
	echo "setup: creating debian:bookworm-slim with debootstrap (half a minute)"
	mkdir -p "${tar%/*}"
	root=$(mktemp -d)
	# debootstrap leaves these mounted when it is interrupted.
	on_exit "umount '$root/proc' '$root/sys' 2>/dev/null || true; rm -rf --one-file-system '$root'"
	mirror=$(awk '$3 == "bookworm" { print $2 }' <<<"$sources")
	quiet debootstrap --variant=minbase --include=ca-certificates bookworm "$root" ${mirror:+"$mirror"}
	[[ ! $sources ]] || echo "$sources" >"$root/etc/apt/sources.list"
	# Make builds trust the certificate authorities that this machine's administrator added.
	find /usr/local/share/ca-certificates -name '*.crt' -exec cp -t "$root/usr/local/share/ca-certificates" {} +
	chroot "$root" update-ca-certificates >/dev/null 2>&1
	trim_base_image "$root"
	tar --one-file-system --sort=name --mtime=@0 --numeric-owner --format=gnu -C "$root" -cf "$tar.new" .
	mv "$tar.new" "$tar"
	gzip --no-name <"$tar" >"$tar.gz"
	(cd "${tar%/*}" && sha256sum "${tar##*/}" "${tar##*/}.gz" >"$tar.sums")
	echo "$version" >"$tar.made"
}

# trim_base_image ROOT removes files that the slim image excludes, and files that differ between debootstrap runs.
trim_base_image() {
	find "$1/usr/share/doc" -type f ! -name copyright -delete
	find "$1/usr/share/doc" -type l -delete
	find "$1/usr/share/locale" -mindepth 1 -maxdepth 1 -exec rm -rf {} +
	find "$1/var/log" -type f -delete
	rm -rf "$1"/usr/share/{man,info,groff,lintian,linda}/* "${1:?}"/{debootstrap,dev/*} \
		"$1"/etc/{hostname,resolv.conf,machine-id} "$1"/var/lib/apt/lists/* "$1"/var/lib/dpkg/*-old \
		"$1"/var/cache/{man,apt/*.bin,apt/archives/*.deb,debconf/*-old,ldconfig/aux-cache}
	: >"$1/etc/machine-id"
	chmod 755 "$1" # mktemp -d creates it with 0700
}

main "$@"
