#!/bin/sh
# Finds the program of an action and becomes it: actions/run.sh build. Inputs are in INPUT_* variables; nothing is evaluated.
# A release's commit holds the SHA-256 of its programs, in checksums.txt: who pins the commit pins what is run. Where that file is
# not, on a branch, the program is built from the checkout.
set -eu
unset -f awk chmod command curl cut date kill mkdir mktemp mv openssl printf read rm sed sha256sum shasum tr uname wait || : # the caller's
here=${0%/*} name=action-${1:?the name of an action} path=${PATH:-} child='' work='' want='' version='' from='' why='it is of no release'
shift
PATH=/usr/bin:/bin:/usr/local/bin # what an earlier step put before these is not asked
trap '[ -z "$child" ] || kill "$child" 2>/dev/null || :; rm -rf "$work"' EXIT && trap 'exit 130' HUP INT TERM

fail() { printf '::error::%s\n' "$1" && exit 1; }

# clock sets now, in hundredths of a second where the system has them.
clock() { if read -r now _ 2>/dev/null </proc/uptime; then now=${now%.*}${now#*.}; else now=$(date +%s)00; fi; }

# await waits for what was begun last, in such a way that a signal ends it.
await() { child=$! code=0 && { wait "$child" || code=$?; } && child=''; }

# verify ends it, unless the file $1 is what the release's commit names. OpenSSL is four times as fast as some sha256sum.
verify() {
	for tool in 'openssl dgst -sha256 -r' sha256sum 'shasum -a 256'; do ! command -v "${tool%% *}" >/dev/null || break; done
	sum=$($tool <"$1" | cut -d ' ' -f 1)
	[ "$sum" = "$want" ] || fail "$asset from $from has the SHA-256 $sum, but the commit of $version names $want: it was not run"
}

# get writes what the address $1 answers, as the type $2, for the token $3, into the file $part, or says why not. The token goes by
# standard input: no list of processes shows it.
get() {
	port=${1#http://127.0.0.1:} && port=${port%%/*} && scheme='=https' status='' type='' from=$1
	case $port in '' | *[!0-9]*) ;; *) scheme='=http' ;; esac # this machine's own server
	printf '%s\n' "Accept: $2" ${3:+"Authorization: Bearer $3"} | curl -q --silent --show-error --fail --location --header @- --output "$part" \
		--proto "$scheme" --proto-redir "$scheme" --tlsv1.2 --retry 3 --connect-timeout 15 --speed-limit 1000 --speed-time 20 --max-time 600 \
		--write-out '%{http_code} %{content_type}\n' "$1" >"$part.answer" 2>"$part.error" &
	await
	read -r status type <"$part.answer" || :
	case $code/$status/$type in
	0/*/text/html*) status=404 why="$1 wants a login" ;;
	0/*) return ;;
	22/404/*) why="$1 answers 404: the release is gone, or it is private and github_token may not read it" ;;
	22/[1-9]*) why="$1 answers $status" ;;
	23/*) fail "$asset can not be written into ${work%/*}: is the disk full?" ;;
	*) why="$1: $(sed -n '$p' "$part.error")" ;;
	esac
	return 1
}

# fetch downloads the asset from the job's own GitHub, or else from where the release was made. A private one's is the API's, by number.
fetch() {
	repository=${home#*://*/} && origin=${home%/"$repository"} && own=${GITHUB_SERVER_URL:-$origin}
	get "$own/$repository/releases/download/$version/$asset" application/octet-stream && return
	if [ "$status" = 404 ] && [ -n "${INPUT_GITHUB_TOKEN:-}" ]; then private && return; fi
	[ "$own" != "$origin" ] && get "$home/releases/download/$version/$asset" application/octet-stream
}

private() {
	releases=${GITHUB_API_URL:-https://api.github.com}/repos/$repository/releases
	get "$releases/tags/$version" application/vnd.github+json "$INPUT_GITHUB_TOKEN" || return
	get "$releases/assets/$(tr '{},' '\n' <"$part" | awk -F '"' -v asset="$asset" '
		$2 == "url" && $4 ~ /\/releases\/assets\/[0-9]+$/ { id = $4; sub(/.*\//, "", id) }
		$2 == "name" && $4 == asset { print id; exit }')" application/octet-stream "$INPUT_GITHUB_TOKEN"
}

# build makes the program from the checkout with the caller's Go, and with none of the caller's settings for it.
build() {
	from=$(PATH=$path && command -v go) || return
	[ -z "$want" ] || printf '%s can not be had: %s; it is built\n' "$asset" "$why" >&2
	(cd "$here/.." && GOFLAGS=-mod=readonly GOWORK=off GOAMD64=v1 GOARM64=v8.0 GOFIPS140=off CGO_ENABLED=0 exec "$from" build -trimpath -buildvcs=false -o "$part" \
		-ldflags="-s -w -buildid=${version:+ -X github.com/org/sandbox-actions/actions.Version=$version}" "./$name") &
	await
	[ "$code" = 0 ] || fail "$name could not be built from its source: what $from said is above"
}

clock && began=$now asset=$name-$(uname -sm | tr 'A-Z ' 'a-z-' | sed 's/x86_64$/amd64/; s/aarch64$/arm64/')
if [ -f "$here/checksums.txt" ]; then
	while read -r sum file more; do
		case $sum/$file in '#/'*) home=$file version=${more%% *} ;; */"$asset") want=$sum ;; esac
	done <"$here/checksums.txt"
	[ -n "$want" ] || fail "The release $version has no $asset: have the job run on Linux or macOS, on amd64 or arm64"
fi
cache=${RUNNER_TOOL_CACHE:-/dev/null}/sandbox-actions/$version/${asset##*-}
for program in "$here/$asset" "$cache/$name"; do
	if [ -n "$want" ] && [ -f "$program" ]; then from=$program && verify "$program" && break; fi
done
if [ -z "$from" ]; then
	if [ -z "$want" ] || ! mkdir -p "$cache" 2>/dev/null || [ ! -w "$cache" ]; then cache=''; fi
	work=$(mktemp -d "${cache:-${RUNNER_TEMP:-${TMPDIR:-/tmp}}}/XXXXXX") || fail 'There is no place for the program: free some, or set RUNNER_TEMP'
	part=$work/$name
	{ [ -n "$want" ] && fetch; } || build || fail "$asset can not be had: $why; nor is there a Go to build it with (actions/setup-go)"
	[ -z "$want" ] || verify "$part"
	chmod 755 "$part"
	if [ -n "$cache" ]; then program=$cache/$name && mv -f "$part" "$program"
	elif exec 3<"$part" && [ -e /proc/self/fd/3 ]; then program=/proc/self/fd/3 # an open file can be run without its name
	else program=$part work=''; fi # RUNNER_TEMP is emptied after the job
	rm -rf "$work"
fi
clock
printf '%s %s from %s, found in %d.%02d s\n' "$name" "$version" "$from" $(((now - began) / 100)) $(((now - began) % 100)) >&2
PATH=$path exec "$program" "$@"
