#!/usr/bin/env bash
# Creates the commit and the tag of a release and prints the commit's SHA: scripts/release-commit.sh dist/v1.2.3
#
# The commit is a child of HEAD that adds DIRECTORY/checksums.txt as actions/checksums.txt. The script does not change
# the checkout or its index. The same HEAD and checksums produce the same commit.
set -euo pipefail

checksums=$(realpath "${1:?usage: release-commit.sh DIRECTORY}")/checksums.txt
cd "$(dirname "$0")/.."
read -r _ _ version _ <"$checksums"

export GIT_INDEX_FILE
GIT_INDEX_FILE=$(mktemp -u)
trap 'rm -f "$GIT_INDEX_FILE"' EXIT
git read-tree HEAD
blob=$(git hash-object -w --no-filters "$checksums")
git update-index --add --cacheinfo "100644,$blob,actions/checksums.txt"
tree=$(git write-tree)

date=$(git show --no-patch --no-show-signature --format=%cI HEAD)
export GIT_AUTHOR_DATE=$date GIT_COMMITTER_DATE=$date
export GIT_AUTHOR_NAME='github-actions[bot]' GIT_COMMITTER_NAME='github-actions[bot]'
export GIT_AUTHOR_EMAIL='41898282+github-actions[bot]@users.noreply.github.com'
export GIT_COMMITTER_EMAIL=$GIT_AUTHOR_EMAIL
commit=$(git -c i18n.commitEncoding=UTF-8 commit-tree -p HEAD -m "Release $version" "$tree")

tag=$(git rev-parse --quiet --verify "refs/tags/$version^{commit}" || true)
if [[ -z $tag ]]; then
	git update-ref "refs/tags/$version" "$commit" ''
elif [[ $tag != "$commit" ]]; then
	echo "release-commit: tag $version points to $tag instead of $commit: release the next version," \
		"or compare the checksums in both commits" >&2
	exit 1
fi
echo "$commit"
