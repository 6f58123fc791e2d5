#!/usr/bin/env bash
# Makes the commit of a release, a child of HEAD that adds FOLDER/checksums.txt as actions/checksums.txt, with the release's tag on it, and
# prints its SHA: scripts/release-commit.sh dist/v1.2.3
#
# Neither the checkout nor its index is touched. The same HEAD and sums make the same commit.
set -euo pipefail

sums=$(realpath "${1:?the folder of a release}")/checksums.txt
cd "$(dirname "$0")/.."
read -r _ _ version _ <"$sums"

export GIT_INDEX_FILE
GIT_INDEX_FILE=$(mktemp -u)
trap 'rm -f "$GIT_INDEX_FILE"' EXIT
git read-tree HEAD
git update-index --add --cacheinfo "100644,$(git hash-object -w --no-filters "$sums"),actions/checksums.txt"
date=$(git show --no-patch --no-show-signature --format=%cI HEAD)
who='github-actions[bot]' mail='41898282+github-actions[bot]@users.noreply.github.com'
commit=$(GIT_AUTHOR_NAME=$who GIT_AUTHOR_EMAIL=$mail GIT_AUTHOR_DATE=$date GIT_COMMITTER_NAME=$who GIT_COMMITTER_EMAIL=$mail GIT_COMMITTER_DATE=$date \
	git -c i18n.commitEncoding=UTF-8 commit-tree -p HEAD -m "Release $version" "$(git write-tree)")

tag=$(git rev-parse --quiet --verify "refs/tags/$version^{commit}" || true)
if [[ -z $tag ]]; then
	git update-ref "refs/tags/$version" "$commit" ''
elif [[ $tag != "$commit" ]]; then
	echo "release-commit: $version is the commit $tag, and this would be $commit: take the next version, or see which programs differ" >&2
	exit 1
fi
echo "$commit"
