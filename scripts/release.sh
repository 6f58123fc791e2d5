#!/usr/bin/env bash
# Makes a release of HEAD, without a network once modules are there: scripts/release.sh v1.2.3
#
# In dist/v1.2.3: the programs for every platform, checksums.txt, sbom.cdx.json (CycloneDX), licenses.tar.gz (of all that is in the
# programs), changelog.md. In git: the release commit (scripts/release-commit.sh) and the tag v1.2.3 on it. The same commit makes the same
# bytes wherever it is built. RELEASE_PLATFORMS="linux/amd64 …" builds fewer, and checksums.txt then names fewer.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
	echo "release: $*" >&2
	exit 1
}

version=${1:-}
names=(build snapshot test)
read -ra platforms <<<"${RELEASE_PLATFORMS:-linux/amd64 linux/arm64 darwin/amd64 darwin/arm64}"
go=$(sed -n -e 's/^go /go/p' -e 's/^toolchain //p' go.mod | tail -n 1)
largest=20000000 # bytes of a program
# Settings of the user's own that would change the bytes.
GOFLAGS="-mod=readonly $(cat actions/goflags)"
export GOFLAGS GOTOOLCHAIN="$go" CGO_ENABLED=0 GOAMD64=v1 GOARM64=v8.0 GOEXPERIMENT='' GOFIPS140=off GOWORK=off LC_ALL=C
unset GOOS GOARCH GOROOT

number='(0|[1-9][0-9]*)'
[[ $version =~ ^v$number\.$number\.$number(-rc\.$number)?$ ]] || fail "\"$version\" is no version: give one like VERSION=v1.2.3 or VERSION=v1.2.3-rc.1"
git rev-parse --quiet --verify HEAD >/dev/null || fail "there is no commit to release: run it in a clone of the repository"
[[ -z $(git status --porcelain) ]] || fail "the checkout has changes that no commit has: commit or remove what \`git status\` lists"
[[ $(git rev-parse --is-shallow-repository) == false ]] || fail "the clone lacks the history that the changelog needs: run \`git fetch --unshallow --tags\`"
[[ -z $(git ls-tree HEAD actions/checksums.txt) ]] || fail "HEAD is the commit of a release: check out the one that it was made of, HEAD^"
command -v go >/dev/null || fail "Go is missing: install $go from https://go.dev/dl"
[[ $(go env GOVERSION) == "$go" ]] || fail "a release is built with $go of go.mod, which this Go can not fetch: install it from https://go.dev/dl"
if git rev-parse --quiet --verify "refs/tags/$version" >/dev/null; then
	[[ $(git rev-parse --quiet --verify "$version^1") == "$(git rev-parse HEAD)" ]] || fail "$version is a release of another commit, $(git rev-parse --short "$version^1" 2>/dev/null): take the next version"
fi

# Whose release it is: what the runner says, else where origin is.
if [[ -n ${GITHUB_REPOSITORY:-} ]]; then
	home=${GITHUB_SERVER_URL:-https://github.com}/$GITHUB_REPOSITORY
else
	origin=$(git remote get-url origin 2>/dev/null || true)
	[[ $origin =~ ^(https://|http://|ssh://|)([^@/]*@)?([^/:]+(:[0-9]+)?)[:/]/?([^/]+/[^/]+)$ ]] || fail "the remote origin is no repository at GitHub: set GITHUB_SERVER_URL and GITHUB_REPOSITORY=OWNER/NAME"
	case ${BASH_REMATCH[1]} in
	http*) home=${BASH_REMATCH[1]}${BASH_REMATCH[3]} ;;
	*) home=https://${BASH_REMATCH[3]%:*} ;;
	esac
	home=$home/${BASH_REMATCH[5]%.git}
fi
[[ $home =~ ^https?://[A-Za-z0-9.:-]+/[A-Za-z0-9-]+/[A-Za-z0-9._-]+$ ]] || fail "$home is no repository at GitHub: set GITHUB_SERVER_URL and GITHUB_REPOSITORY=OWNER/NAME"

dist=dist/$version
new=dist/.$version
rm -rf "$new"
mkdir -p "$new/built"
trap 'rm -rf "$new"' EXIT
began=$SECONDS

module=$(go list -m)
build() { # OS/ARCH
	local suffix=${1/\//-} name size sizes=() began=$SECONDS
	GOOS=${1%/*} GOARCH=${1#*/} scripts/quiet.sh release go build -trimpath -buildvcs=false -ldflags="-s -w -buildid= -funcalign=16 -X $module/actions.Version=$version" \
		-o "$new/built/$suffix/" "${names[@]/#/./action-}" || return
	for name in "${names[@]/#/action-}"; do
		size=$(wc -c <"$new/built/$suffix/$name")
		((size <= largest)) || fail "$name for $1 has $size bytes, and $largest is the most: see what it has come to depend on"
		mv "$new/built/$suffix/$name" "$new/$name-$suffix"
		sizes+=("$name $(awk -v n="$size" 'BEGIN { printf "%.1f MB", n / 1e6 }')")
	done
	printf 'release: %s: %s, %s, %s; %d s\n' "$1" "${sizes[@]}" $((SECONDS - began))
}
[[ -z ${RELEASE_PLATFORMS:-} ]] || echo "release: only for ${platforms[*]}, as RELEASE_PLATFORMS says"
builds=()
for platform in "${platforms[@]}"; do
	build "$platform" &
	builds+=($!)
done
failed=0
for job in "${builds[@]}"; do
	wait "$job" || failed=1 # it has said why
done
((!failed)) || exit 1
rm -r "$new/built"
(
	echo "# $home $version $go"
	cd "$new"
	sha256sum action-*
) >"$new/checksums.txt"

# All programs are made of the same modules, so one list is true of each.
parts() { go version -m "$1" | awk '$1 == "dep"'; }
first=$(find "$new" -name 'action-*' | sort | head -n 1)
for program in "$new"/action-*; do
	[[ $(parts "$program") == "$(parts "$first")" ]] || fail "${program##*/} and ${first##*/} are made of different modules: one list of parts is no longer true of both"
done
tool() { GOFLAGS='-mod=readonly -trimpath' go tool -modfile=internal/tools/release/go.mod "$@"; }
# The list's number comes from the programs: the same programs have the same list. Its names hold for all platforms.
serial=$(sha256sum <"$new/checksums.txt" | sed -E 's/^(.{8})(.{4}).(.{3}).(.{3})(.{12}).*/\1-\2-8\3-8\4-\5/')
tool cyclonedx-gomod bin -json -serial "$serial" -notimestamp -short-purls -std -version "$version" -output "$new/sbom.cdx.json" "$first" 2>"$new/log" || {
	cat "$new/log" >&2
	fail "the list of parts (SBOM) could not be made: what cyclonedx-gomod said is above"
}
echo "release: sbom.cdx.json: $(grep -c '"type": "library"' "$new/sbom.cdx.json") modules"

# Licences that go-licenses does not know, and a person has read: the module, and the sum of its LICENSE.
# Both are the Apache License 2.0, given by its notice alone.
read_by_hand=(
	github.com/in-toto/attestation b3a6ac899861c2c28a1abd5c7ea8733fefaed6938d730e099c42671386032aeb
	github.com/in-toto/in-toto-golang b5c26c8a2ad6dd7cac6646e470a32ee42d23c36124caac4e66c989b6545b2a44
)
allowed=Apache-2.0,BSD-2-Clause,BSD-3-Clause,ISC,MIT,MPL-2.0
ignore=()
for ((i = 0; i < ${#read_by_hand[@]}; i += 2)); do ignore+=(--ignore "${read_by_hand[i]}"); done
licenses() { # Without GOROOT it takes every package for one of Go's own.
	GOROOT=$(go env GOROOT) tool go-licenses "$@" "${ignore[@]}" "${names[@]/#/./action-}" >"$new/log" 2>&1 || {
		grep -v 'non-Go code\|^/' "$new/log" >&2 || true
		fail "a licence is not one of $allowed: leave that module out, or read its licence and say so in scripts/release.sh"
	}
}
licenses check --allowed_licenses "$allowed"
licenses save --save_path "$new/licenses"
for ((i = 0; i < ${#read_by_hand[@]}; i += 2)); do
	text=$(go list -m -f '{{.Dir}}' "${read_by_hand[i]}")/LICENSE
	echo "${read_by_hand[i + 1]}  $text" | sha256sum --check --status || fail "the licence of ${read_by_hand[i]} is not the one that was read: read it anew, then mend scripts/release.sh"
	mkdir -p "$new/licenses/${read_by_hand[i]}"
	cp "$text" "$new/licenses/${read_by_hand[i]}/"
done
while read -r _ part _; do
	[[ -d $new/licenses/$part ]] || fail "go-licenses saved no licence of $part: see what it says of it"
done < <(parts "$first")
tar --create --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --format=gnu -C "$new" licenses | gzip --no-name -9 >"$new/licenses.tar.gz"
echo "release: licenses.tar.gz: $(find "$new/licenses" -type f -iname '*LICEN[CS]E*' -o -name COPYING | wc -l) licences"
rm -r "$new/licenses" "$new/log"

# Since the newest release that has this one's past in it; a release is not measured by its own candidates.
since=''
while read -r tag; do
	[[ $tag != "$version" && $tag =~ ^v$number\.$number\.$number(-rc\.$number)?$ && ($version == *-* || $tag != *-*) ]] || continue
	if git merge-base --is-ancestor "$tag^1" HEAD 2>/dev/null; then
		since=$tag
		break
	fi
done < <(git -c versionsort.suffix=-rc tag --list 'v*' --sort=-version:refname)
commit=$(scripts/release-commit.sh "$new")
range=(--no-merges HEAD ${since:+"^$since"})
count=$(git rev-list --count "${range[@]}")
most=30
{
	if [[ -n $since ]]; then printf 'Since %s:\n\n' "$since"; else printf 'The first release.\n\n'; fi
	git log --no-show-signature --max-count=$most --abbrev=12 --format='- %s (%h)' "${range[@]}"
	((count <= most)) || echo "- and $((count - most)) earlier commits"
	# shellcheck disable=SC2016 # Markdown's, not the shell's
	printf '\nTo pin it: `@%s # %s`. To verify a program of it: `gh attestation verify PROGRAM --repo %s`.\n' "$commit" "$version" "${home#*://*/}"
} >"$new/changelog.md"
rm -rf "$dist"
mv "$new" "$dist"
echo "release: $dist is made, and the tag $version is on $commit; $((SECONDS - began)) s"
echo "release: next: GITHUB_TOKEN=… go run ./internal/release publish $dist; then promote $dist, which moves ${version%%.*}"
