#!/bin/sh
# Finds the program of an action and replaces itself with it: actions/run.sh build [ARGUMENT...]
#
# In the commit of a release, actions/checksums.txt holds the SHA-256 of each program, so pinning the commit pins the
# program: a file with another checksum is never executed. The script looks for the program next to itself (for networks
# without GitHub), then in the runner's tool cache, and then downloads it from the release. If the commit is not a
# release or the download fails, it builds the program from this checkout.
#
# Variable names begin with an underscore so that they do not overwrite the caller's environment, which the program
# inherits.
set -eu

# The maximum size of the unpacked program, in 512-byte blocks (200 MB).
_max_program_blocks=400000

# Earlier steps of the job may have put other commands first in PATH, or exported shell functions named like commands.
_caller_path=${PATH:-}
PATH=/usr/bin:/bin:/usr/local/bin
unset -f [ awk cd chmod command curl date go gzip kill mkdir mktemp mv openssl printf read rm sha256sum shasum tail tr \
	ulimit uname wait || :

# fail prints an error annotation and exits.
fail() {
	printf '::error::%s\n' "$1"
	exit 1
}

# clean_up stops the running command and removes the temporary directory.
clean_up() {
	if [ -n "$_child" ]; then
		kill "$_child" 2>/dev/null || :
	fi
	rm -rf "$_temporary"
}

# wait_for_child waits for the last background command and sets _exit_code. A shell handles signals only between
# foreground commands, so slow commands run in the background.
wait_for_child() {
	_child=$!
	_exit_code=0
	wait "$_child" || _exit_code=$?
	_child=''
}

# set_now sets _now to a time in hundredths of a second. On macOS, which has no /proc, the resolution is one second.
set_now() {
	if read -r _uptime _idle 2>/dev/null </proc/uptime; then
		_now=${_uptime%.*}${_uptime#*.}
	else
		_now=$(date +%s)00
	fi
}

# set_asset sets _asset to the name of the program for this machine, such as action-build-linux-amd64.
set_asset() {
	case $(uname -sm) in
	'Linux x86_64') _platform=linux-amd64 ;;
	'Linux aarch64') _platform=linux-arm64 ;;
	'Darwin x86_64') _platform=darwin-amd64 ;;
	'Darwin arm64') _platform=darwin-arm64 ;;
	*) _platform=$(uname -sm | tr 'A-Z ' 'a-z-') ;;
	esac
	_asset=$_name-$_platform
}

# read_checksums reads the release's home and version from the first line of checksums.txt, and the SHA-256 of _asset:
#
#   # https://github.com/OWNER/REPOSITORY v1.2.3 go1.26.10
#   SHA-256  action-build-linux-amd64
read_checksums() {
	while read -r _first _second _rest; do
		case $_first/$_second in
		'#/'*)
			_home=$_second
			_version=${_rest%% *}
			;;
		*/"$_asset") _expected=$_first ;;
		esac
	done <"$_directory/checksums.txt"
	if [ -z "$_expected" ]; then
		fail "release $_version has no $_asset: run the job on Linux or macOS, on amd64 or arm64"
	fi
}

# print_sha256 prints the SHA-256 of a file. It prefers OpenSSL, which is four times as fast as some sha256sum programs.
print_sha256() {
	if command -v openssl >/dev/null; then
		openssl dgst -sha256 -r <"$1"
	elif command -v sha256sum >/dev/null; then
		sha256sum <"$1"
	else
		shasum -a 256 <"$1"
	fi
}

# verify exits unless the file $1 has the SHA-256 in checksums.txt. $2 is the file's origin, for the error.
verify() {
	_actual=$(print_sha256 "$1")
	_actual=${_actual%% *}
	if [ "$_actual" != "$_expected" ]; then
		fail "checksum mismatch for $2: got $_actual, the commit of $_version has $_expected; refusing to run it"
	fi
}

# find_local looks for the program of a release next to this script and in the tool cache. It sets _program and _source.
find_local() {
	for _candidate in "$_directory/$_asset" "${_cache:+$_cache/$_name}"; do
		if [ -f "$_candidate" ]; then
			verify "$_candidate" "$_candidate"
			_program=$_candidate
			_source=$_candidate
			return 0
		fi
	done
	return 1
}

# set_protocol sets _protocol to the only protocol that the URL $1 and its redirects may use: HTTPS, or HTTP for a
# server on this machine.
set_protocol() {
	_protocol='=https'
	_port=${1#http://127.0.0.1:}
	_port=${_port%%/*}
	case $_port in
	'' | *[!0-9]*) ;;
	*) _protocol='=http' ;;
	esac
}

# get downloads the URL $1 as the media type $2 to _download, with the optional token $3. On failure it sets
# _http_status and _reason and returns 1. It passes the token on standard input because arguments are visible to all
# processes.
get() {
	_source=$1
	_http_status=''
	_media_type=''
	set_protocol "$1"
	printf '%s\n' "Accept: $2" ${3:+"Authorization: Bearer $3"} |
		curl -q --silent --show-error --fail --location --header @- --output "$_download" \
			--proto "$_protocol" --tlsv1.2 \
			--retry 3 --connect-timeout 15 --speed-limit 1000 --speed-time 20 --max-time 600 --max-filesize 100000000 \
			--write-out '%{http_code} %{content_type}\n' "$1" >"$_temporary/response" 2>"$_temporary/error" &
	wait_for_child
	read -r _http_status _media_type <"$_temporary/response" || :
	case $_exit_code/$_http_status/$_media_type in
	0/*/text/html*)
		_http_status=404
		_reason="$1 requires a login"
		;;
	0/*) return 0 ;;
	22/404/*) _reason="$1 returned 404: the release was deleted, or it is private and github_token cannot read it" ;;
	22/[1-9]*) _reason="$1 returned $_http_status" ;;
	23/*) fail "cannot write $_asset to ${_temporary%/*}: free disk space, or set RUNNER_TEMP and RUNNER_TOOL_CACHE" ;;
	*) _reason="$1: $(tail -n 1 "$_temporary/error")" ;;
	esac
	return 1
}

# fetch downloads the packed program from the job's GitHub server or, if that fails, from the server of the release.
fetch() {
	_repository=${_home#*://*/}
	_origin=${_home%/"$_repository"}
	_server=${GITHUB_SERVER_URL:-$_origin}
	_path=releases/download/$_version/$_asset.gz
	if get "$_server/$_repository/$_path" application/octet-stream; then
		return 0
	fi
	if [ "$_http_status" = 404 ] && [ -n "$_token" ] && fetch_private; then
		return 0
	fi
	[ "$_server" != "$_origin" ] && get "$_home/$_path" application/octet-stream
}

# fetch_private downloads the packed program through the API, by its asset ID: GitHub serves the assets of a private
# repository in no other way.
fetch_private() {
	_releases=${GITHUB_API_URL:-https://api.github.com}/repos/$_repository/releases
	get "$_releases/tags/$_version" application/vnd.github+json "$_token" || return
	# In each asset's object, "url" comes before "name".
	_number=$(tr '{},' '\n' <"$_download" | awk -F '"' -v asset="$_asset.gz" '
		$2 == "url" && $4 ~ /\/assets\/[0-9]+$/ { number = $4; sub(/.*\//, "", number) }
		$2 == "name" && $4 == asset { print number; exit }')
	get "$_releases/assets/$_number" application/octet-stream "$_token"
}

# unpack unpacks the download into _built. The limit keeps a small archive from filling the disk.
unpack() {
	(
		ulimit -f "$_max_program_blocks" 2>/dev/null || : # fails if the limit is lower already
		exec gzip -dc <"$_download" >"$_built" 2>"$_temporary/error"
	) &
	wait_for_child
	if [ "$_exit_code" != 0 ]; then
		fail "cannot unpack $_source: $(tail -n 1 "$_temporary/error") (gzip exit code $_exit_code); refusing to run it"
	fi
}

# build compiles the program from this checkout, with the settings of a release. It returns 1 if the caller's PATH has
# no Go.
build() {
	_go=$(PATH=$_caller_path && command -v go) || return 1
	_source="$_go ($_reason)"
	(
		cd "$_directory/.."
		# shellcheck source=actions/buildenv.sh
		. actions/buildenv.sh
		if [ -n "$_version" ]; then
			export GOTOOLCHAIN="$go_toolchain"
		fi
		exec "$_go" build -ldflags="$(link_flags "$_version")" -o "$_built" "./$_name"
	) &
	wait_for_child
	if [ "$_exit_code" != 0 ]; then
		fail "cannot build $_name from source with $_go: see its output above"
	fi
}

# obtain downloads or builds the program in a temporary directory. If the tool cache is writable, the directory is in
# it, so that the program can be moved there atomically.
obtain() {
	if [ -z "$_cache" ] || ! mkdir -p "$_cache" 2>/dev/null || [ ! -w "$_cache" ]; then
		_cache=''
	fi
	_temporary=$(mktemp -d "${_cache:-${RUNNER_TEMP:-${TMPDIR:-/tmp}}}/XXXXXX") ||
		fail 'cannot create a temporary directory: free disk space or set RUNNER_TEMP'
	_download=$_temporary/download
	_built=$_temporary/$_name
	if [ -n "$_expected" ] && fetch; then
		unpack
	elif ! build; then
		fail "cannot download $_asset: $_reason; no Go toolchain to build it from source (add actions/setup-go)"
	fi
	if [ -n "$_expected" ]; then
		verify "$_built" "$_source"
	fi
	chmod 755 "$_built"
}

# store moves the program to the tool cache, if there is one, and sets _program to the path to execute.
store() {
	if [ -n "$_cache" ]; then
		_program=$_cache/$_name
		mv -f "$_built" "$_program"
	elif exec 3<"$_built" && [ -e /proc/self/fd/3 ]; then
		_program=/proc/self/fd/3 # an open file can be executed after it is removed
	else
		_program=$_built
		_temporary='' # the runner empties RUNNER_TEMP after the job
	fi
	rm -rf "$_temporary"
	_temporary=''
}

_name=action-${1:?usage: run.sh ACTION [ARGUMENT...]}
shift
_directory=${0%/*}
_token=${SANDBOX_ACTIONS_TOKEN:-${INPUT_GITHUB_TOKEN:-}}
_home='' _version='' _expected='' _cache='' _program='' _source='' _child='' _temporary=''
_reason='this commit is not a release, such as @v1 is'
trap clean_up EXIT
trap 'exit 130' HUP INT TERM

set_now
_started=$_now
set_asset
if [ -f "$_directory/checksums.txt" ]; then
	read_checksums
	if [ -n "${RUNNER_TOOL_CACHE:-}" ]; then
		_cache=$RUNNER_TOOL_CACHE/sandbox-actions/$_version/${_platform##*-}
	fi
fi
if [ -z "$_expected" ] || ! find_local; then
	obtain
	store
fi
set_now
_elapsed=$((_now - _started))
printf '%s from %s, found in %d.%02d s\n' \
	"$_name${_version:+ $_version}" "$_source" $((_elapsed / 100)) $((_elapsed % 100)) >&2
unset SANDBOX_ACTIONS_TOKEN
PATH=$_caller_path
exec "$_program" "$@"
