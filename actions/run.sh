#!/bin/sh
# Finds the program of an action and becomes it: actions/run.sh build. In the commit of a release, checksums.txt holds the SHA-256 of its
# programs: who pins the commit pins what is run. Without that file, on a branch, the program is built from the checkout.
set -eu # Names begin with _ since the caller's variables are the program's, too.
unset -f awk cat chmod command curl cut date kill mkdir mktemp mv openssl printf read rm sed sha256sum shasum tr uname wait || : # the caller's
_here=${0%/*} _name=action-${1:?the name of an action} _path=${PATH:-} _child='' _work='' _want='' _version='' _from='' _go=''
_token=${SANDBOX_ACTIONS_TOKEN:-${INPUT_GITHUB_TOKEN:-}} _why='this commit is no release, such as @v1 is'
shift && PATH=/usr/bin:/bin:/usr/local/bin # what an earlier step put before these is not asked
trap '[ -z "$_child" ] || kill "$_child" 2>/dev/null || :; rm -rf "$_work"' EXIT && trap 'exit 130' HUP INT TERM

fail() { printf '::error::%s\n' "$1" && exit 1; }

# clock sets now, in hundredths of a second where the system has them.
clock() { if read -r _now _ 2>/dev/null </proc/uptime; then _now=${_now%.*}${_now#*.}; else _now=$(date +%s)00; fi; }

await() { _child=$! _code=0 && { wait "$_child" || _code=$?; } && _child=''; } # a signal ends it

# verify ends it, unless the file $1 is what the release's commit names. OpenSSL is four times as fast as some sha256sum.
verify() {
	for _tool in 'openssl dgst -sha256 -r' sha256sum 'shasum -a 256'; do ! command -v "${_tool%% *}" >/dev/null || break; done
	_sum=$($_tool <"$1" | cut -d ' ' -f 1)
	[ "$_sum" = "$_want" ] || fail "$_asset from $_from has the SHA-256 $_sum, but the commit of $_version names $_want: it was not run"
}

# get writes what the address $1 answers, as the type $2, for the token $3, into the file $part, or says why not. The token goes by
# standard input: no list of processes shows it.
get() {
	_port=${1#http://127.0.0.1:} && _port=${_port%%/*} && _scheme='=https' _status='' _type='' _from=$1
	case $_port in '' | *[!0-9]*) ;; *) _scheme='=http' ;; esac # this machine's own server
	printf '%s\n' "Accept: $2" ${3:+"Authorization: Bearer $3"} | curl -q --silent --show-error --fail --location --header @- --output "$_part" \
		--proto "$_scheme" --proto-redir "$_scheme" --tlsv1.2 --retry 3 --connect-timeout 15 --speed-limit 1000 --speed-time 20 --max-time 600 \
		--write-out '%{http_code} %{content_type}\n' "$1" >"$_part.answer" 2>"$_part.error" &
	await
	read -r _status _type <"$_part.answer" || :
	case $_code/$_status/$_type in
	0/*/text/html*) _status=404 _why="$1 wants a login" ;;
	0/*) return ;;
	22/404/*) _why="$1 answers 404: the release is gone, or it is private and github_token may not read it" ;;
	22/[1-9]*) _why="$1 answers $_status" ;;
	23/*) fail "$_asset can not be written into ${_work%/*}: is the disk full?" ;;
	*) _why="$1: $(sed -n '$p' "$_part.error")" ;;
	esac
	return 1
}

# fetch downloads the asset from the job's own GitHub, or else from where the release was made. A private one's is the API's, by number.
fetch() {
	_repository=${_home#*://*/} && _origin=${_home%/"$_repository"} && _own=${GITHUB_SERVER_URL:-$_origin}
	get "$_own/$_repository/releases/download/$_version/$_asset" application/octet-stream && return
	if [ "$_status" = 404 ] && [ -n "$_token" ]; then private && return; fi
	[ "$_own" != "$_origin" ] && get "$_home/releases/download/$_version/$_asset" application/octet-stream
}

private() {
	_releases=${GITHUB_API_URL:-https://api.github.com}/repos/$_repository/releases
	get "$_releases/tags/$_version" application/vnd.github+json "$_token" || return
	_number=$(tr '{},' '\n' <"$_part" | awk -F '"' -v asset="$_asset" \
		'$2 == "url" && $4 ~ /\/assets\/[0-9]+$/ { n = $4; sub(/.*\//, "", n) } $2 == "name" && $4 == asset { print n; exit }')
	get "$_releases/assets/$_number" application/octet-stream "$_token"
}

# build makes the program from the checkout as a release does, with the caller's Go, and with none of the caller's settings for it.
build() {
	_from=$(PATH=$_path && command -v go) || return
	_flags=$(cat "$_here/goflags") && _ldflags="-s -w -buildid= -funcalign=16${_version:+ -X github.com/org/sandbox-actions/actions.Version=$_version}"
	(cd "$_here/.." && export GOFLAGS="-mod=readonly $_flags" GOTOOLCHAIN="${_go:-${GOTOOLCHAIN:-}}" GOWORK=off GOAMD64=v1 GOARM64=v8.0 GOFIPS140=off CGO_ENABLED=0 &&
		exec "$_from" build -trimpath -buildvcs=false -ldflags="$_ldflags" -o "$_part" "./$_name") &
	await
	[ "$_code" = 0 ] || fail "$_name could not be built from its source: what $_from said is above"
	_from="$_from ($_why)"
}

clock && _began=$_now _asset=$_name-$(uname -sm | tr 'A-Z ' 'a-z-' | sed 's/x86_64$/amd64/; s/aarch64$/arm64/')
if [ -f "$_here/checksums.txt" ]; then
	while read -r _sum _file _more; do
		case $_sum/$_file in '#/'*) _home=$_file _version=${_more%% *} _go=${_more##* } ;; */"$_asset") _want=$_sum ;; esac
	done <"$_here/checksums.txt"
	[ -n "$_want" ] || fail "The release $_version has no $_asset: have the job run on Linux or macOS, on amd64 or arm64"
fi
_cache=${RUNNER_TOOL_CACHE:-/dev/null}/sandbox-actions/$_version/${_asset##*-}
for _program in "$_here/$_asset" "$_cache/$_name"; do
	if [ -n "$_want" ] && [ -f "$_program" ]; then _from=$_program && verify "$_program" && break; fi
done
if [ -z "$_from" ]; then
	if [ -z "$_want" ] || ! mkdir -p "$_cache" 2>/dev/null || [ ! -w "$_cache" ]; then _cache=''; fi
	_work=$(mktemp -d "${_cache:-${RUNNER_TEMP:-${TMPDIR:-/tmp}}}/XXXXXX") || fail 'There is no place for the program: free some, or set RUNNER_TEMP'
	_part=$_work/$_name
	{ [ -n "$_want" ] && fetch; } || build || fail "$_asset can not be had: $_why; nor is there a Go to build it with (actions/setup-go)"
	[ -z "$_want" ] || verify "$_part"
	chmod 755 "$_part"
	if [ -n "$_cache" ]; then _program=$_cache/$_name && mv -f "$_part" "$_program"
	elif exec 3<"$_part" && [ -e /proc/self/fd/3 ]; then _program=/proc/self/fd/3 # an open file can be run without its name
	else _program=$_part _work=''; fi # RUNNER_TEMP is emptied after the job
	rm -rf "$_work"
fi
clock
printf '%s from %s, found in %d.%02d s\n' "$_name${_version:+ $_version}" "$_from" $(((_now - _began) / 100)) $(((_now - _began) % 100)) >&2
unset SANDBOX_ACTIONS_TOKEN && PATH=$_path exec "$_program" "$@"
