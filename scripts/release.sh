#!/usr/bin/env bash
# Creates a release of HEAD: scripts/release.sh v1.2.3. It needs no network if the modules are already downloaded.
#
# The result in dist/v1.2.3 consists of the compressed programs for each platform, checksums.txt for the uncompressed
# programs, sbom.cdx.json (CycloneDX), licenses.tar.gz for all modules in the programs, and changelog.md.
# scripts/release-commit.sh creates the release commit and its tag. Builds are reproducible on every machine.
# RELEASE_PLATFORMS="linux/amd64 …" limits the platforms.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
	echo "release: $*" >&2
	exit 1
}

version=${1:-}
programs=(action-build action-snapshot action-test)
packages=("${programs[@]/#/./}")
read -ra platforms <<<"${RELEASE_PLATFORMS:-linux/amd64 linux/arm64 darwin/amd64 darwin/arm64}"
number='(0|[1-9][0-9]*)'
version_pattern="^v$number\.$number\.$number(-rc\.$number)?$"
changelog_length=30

# shellcheck source=actions/buildenv.sh
. actions/buildenv.sh
export GOTOOLCHAIN="$go_toolchain" LC_ALL=C

# Manually reviewed licenses that go-licenses does not recognize: modules and the SHA-256 of their LICENSE files. Both
# files contain only the short notice of the Apache License 2.0.
reviewed_licenses=(
	github.com/in-toto/attestation b3a6ac899861c2c28a1abd5c7ea8733fefaed6938d730e099c42671386032aeb
	github.com/in-toto/in-toto-golang b5c26c8a2ad6dd7cac6646e470a32ee42d23c36124caac4e66c989b6545b2a44
)
allowed_licenses=Apache-2.0,BSD-2-Clause,BSD-3-Clause,ISC,MIT,MPL-2.0

check_version() {
	[[ $version =~ $version_pattern ]] ||
		fail "invalid version \"$version\": use VERSION=v1.2.3, or VERSION=v1.2.3-rc.1 for a candidate"
}

# check_checkout fails unless the clone is complete and HEAD contains all files in the checkout.
check_checkout() {
	git rev-parse --quiet --verify HEAD >/dev/null || fail "no commit to release: run this in a clone of the repository"
	[[ -z $(git status --porcelain) ]] ||
		fail "the checkout has uncommitted changes: commit or remove the files that \`git status\` lists"
	[[ $(git rev-parse --is-shallow-repository) == false ]] ||
		fail "the clone is shallow and the changelog needs the history: run \`git fetch --unshallow --tags\`"
	[[ -z $(git ls-tree HEAD actions/checksums.txt) ]] ||
		fail "HEAD is the commit of a release: check out its parent, HEAD^"
}

check_go() {
	command -v go >/dev/null || fail "cannot find Go: install $go_toolchain from https://go.dev/dl"
	[[ $(go env GOVERSION) == "$go_toolchain" ]] ||
		fail "cannot use $go_toolchain from go.mod: install it from https://go.dev/dl"
}

# check_tag fails if the version's tag is on the release of another commit.
check_tag() {
	git rev-parse --quiet --verify "refs/tags/$version" >/dev/null || return 0
	[[ $(git rev-parse --quiet --verify "$version^1") == "$(git rev-parse HEAD)" ]] ||
		fail "$version is a release of another commit," \
			"$(git rev-parse --short "$version^1" 2>/dev/null): release the next version"
}

# find_home sets home to the URL of the release's repository: that of the runner, or else that of the remote origin.
find_home() {
	local hint="set GITHUB_SERVER_URL and GITHUB_REPOSITORY=OWNER/NAME" origin scheme
	if [[ -n ${GITHUB_REPOSITORY:-} ]]; then
		home=${GITHUB_SERVER_URL:-https://github.com}/$GITHUB_REPOSITORY
	else
		origin=$(git remote get-url origin 2>/dev/null || true)
		[[ $origin =~ ^(https://|http://|ssh://|)([^@/]*@)?([^/:]+(:[0-9]+)?)[:/]/?([^/]+/[^/]+)$ ]] ||
			fail "the remote origin is not a repository on GitHub: $hint"
		scheme=${BASH_REMATCH[1]}
		case $scheme in
		http*) home=$scheme${BASH_REMATCH[3]} ;;
		*) home=https://${BASH_REMATCH[3]%:*} ;;
		esac
		home=$home/${BASH_REMATCH[5]%.git}
	fi
	[[ $home =~ ^https?://[A-Za-z0-9.:-]+/[A-Za-z0-9-]+/[A-Za-z0-9._-]+$ ]] ||
		fail "$home is not a repository on GitHub: $hint"
}

# megabytes FILE prints the size of a file in MB.
megabytes() {
	awk -v bytes="$(wc -c <"$1")" 'BEGIN { printf "%.1f MB", bytes / 1e6 }'
}

# build_platform OS/ARCH builds the programs in $new/unpacked and compresses them to $new.
build_platform() {
	local suffix=${1/\//-} start=$SECONDS program report=''
	GOOS=${1%/*} GOARCH=${1#*/} scripts/quiet.sh release \
		go build -ldflags="$(link_flags "$version")" -o "$new/unpacked/$suffix/" "${packages[@]}" || return
	for program in "${programs[@]}"; do
		mv "$new/unpacked/$suffix/$program" "$new/unpacked/$program-$suffix"
		gzip --no-name -9 <"$new/unpacked/$program-$suffix" >"$new/$program-$suffix.gz" || return
		report+=", $program $(megabytes "$new/unpacked/$program-$suffix")"
		report+=" (packed $(megabytes "$new/$program-$suffix.gz"))"
	done
	echo "release: $1: ${report#, }; $((SECONDS - start)) s"
}

build_programs() {
	local jobs=() platform job failed=0
	[[ -z ${RELEASE_PLATFORMS:-} ]] || echo "release: building for ${platforms[*]} only (RELEASE_PLATFORMS)"
	for platform in "${platforms[@]}"; do
		build_platform "$platform" &
		jobs+=($!)
	done
	for job in "${jobs[@]}"; do
		wait "$job" || failed=1 # the job has reported the cause
	done
	((!failed)) || exit 1
	rm -rf "$new"/unpacked/*/
}

write_checksums() {
	echo "# $home $version $go_toolchain"
	cd "$new/unpacked"
	sha256sum action-*
}

# list_modules PROGRAM prints the modules in a program.
list_modules() {
	go version -m "$1" | awk '$1 == "dep"'
}

# check_modules fails unless all programs have the same modules, because one SBOM describes all of them.
check_modules() {
	local program
	for program in "$new"/unpacked/action-*; do
		[[ $(list_modules "$program") == "$(list_modules "$first")" ]] ||
			fail "${program##*/} and ${first##*/} have different modules: one SBOM cannot describe both"
	done
}

run_tool() {
	GOFLAGS='-mod=readonly -trimpath' go tool -modfile=internal/tools/release/go.mod "$@"
}

write_sbom() {
	local serial
	# The serial number is derived from the checksums, so that the same programs have the same SBOM.
	serial=$(sha256sum <"$new/checksums.txt" | sed -E 's/^(.{8})(.{4}).(.{3}).(.{3})(.{12}).*/\1-\2-8\3-8\4-\5/')
	run_tool cyclonedx-gomod bin -json -serial "$serial" -notimestamp -short-purls -std -version "$version" \
		-output "$new/sbom.cdx.json" "$first" 2>"$new/log" || {
		cat "$new/log" >&2
		fail "cannot create the SBOM: see the output of cyclonedx-gomod above"
	}
	echo "release: sbom.cdx.json: $(grep -c '"type": "library"' "$new/sbom.cdx.json") modules"
}

# run_go_licenses runs go-licenses on the packages of the programs. Without GOROOT, it treats all packages as part of
# the standard library.
run_go_licenses() {
	local ignore=() i
	for ((i = 0; i < ${#reviewed_licenses[@]}; i += 2)); do
		ignore+=(--ignore "${reviewed_licenses[i]}")
	done
	GOROOT=$(go env GOROOT) run_tool go-licenses "$@" "${ignore[@]}" "${packages[@]}" >"$new/log" 2>&1 || {
		grep -v 'non-Go code\|^/' "$new/log" >&2 || true
		fail "a license is not one of $allowed_licenses: remove the module, or review its license in scripts/release.sh"
	}
}

save_licenses() {
	local i module license
	run_go_licenses check --allowed_licenses "$allowed_licenses"
	run_go_licenses save --save_path "$new/licenses"
	for ((i = 0; i < ${#reviewed_licenses[@]}; i += 2)); do
		module=${reviewed_licenses[i]}
		license=$(go list -m -f '{{.Dir}}' "$module")/LICENSE
		echo "${reviewed_licenses[i + 1]}  $license" | sha256sum --check --status ||
			fail "the license of $module has changed: review it, and update its checksum in scripts/release.sh"
		mkdir -p "$new/licenses/$module"
		cp "$license" "$new/licenses/$module/"
	done
	while read -r _ module _; do
		[[ -d $new/licenses/$module ]] || fail "go-licenses saved no license of $module: run go-licenses report to see why"
	done < <(list_modules "$first")
	tar --create --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --format=gnu \
		-C "$new" licenses | gzip --no-name -9 >"$new/licenses.tar.gz"
	echo "release: licenses.tar.gz:" \
		"$(find "$new/licenses" -type f -iname '*LICEN[CS]E*' -o -name COPYING | wc -l) licenses"
	rm -r "$new/licenses"
}

# find_previous prints the highest version in the history of HEAD. It ignores release candidates unless the new version
# is one.
find_previous() {
	local tag
	while read -r tag; do
		[[ $tag != "$version" && $tag =~ $version_pattern ]] || continue
		[[ $version == *-* || $tag != *-* ]] || continue
		if git merge-base --is-ancestor "$tag^1" HEAD 2>/dev/null; then
			echo "$tag"
			return
		fi
	done < <(git -c versionsort.suffix=-rc tag --list 'v*' --sort=-version:refname)
}

# write_changelog COMMIT prints the text of the release.
write_changelog() {
	local previous count range=(--no-merges HEAD)
	previous=$(find_previous)
	if [[ -n $previous ]]; then
		range+=("^$previous")
		printf 'Since %s:\n\n' "$previous"
	else
		printf 'The first release.\n\n'
	fi
	git log --no-show-signature --max-count=$changelog_length --abbrev=12 --format='- %s (%h)' "${range[@]}"
	count=$(git rev-list --count "${range[@]}")
	((count <= changelog_length)) || echo "- and $((count - changelog_length)) earlier commits"
	# shellcheck disable=SC2016 # Markdown, not a command substitution
	printf '\nTo pin it, use `@%s # %s`. To verify an unpacked program, run `gh attestation verify PROGRAM --repo %s`.\n' \
		"$1" "$version" "${home#*://*/}"
}

check_version
check_checkout
check_go
check_tag
find_home

start=$SECONDS
dist=dist/$version
new=$PWD/dist/.$version
rm -rf "$new"
mkdir -p "$new/unpacked"
trap 'rm -rf "$new"' EXIT

build_programs
(write_checksums) >"$new/checksums.txt"
first=$(find "$new/unpacked" -name 'action-*' | sort | head -n 1)
check_modules
write_sbom
save_licenses
rm -r "$new/unpacked" "$new/log"
commit=$(scripts/release-commit.sh "$new")
write_changelog "$commit" >"$new/changelog.md"
rm -rf "$dist"
mv "$new" "$dist"
echo "release: created $dist and tag $version on $commit; $((SECONDS - start)) s"
echo "release: next, with GITHUB_TOKEN set: go run ./internal/release publish $dist," \
	"then promote $dist, which moves ${version%%.*}"
