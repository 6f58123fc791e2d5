#!/bin/sh
# Finds the program of an action and replaces itself with it: actions/run.sh build [ARGUMENT...]
#
# In the commit of a release, actions/checksums.txt holds the SHA-256 of each program, so pinning the commit pins the
# program: a file with another checksum is never executed. The script looks for the program next to itself (for networks
# without GitHub), then in the runner's tool cache, and then downloads it from the release. If the commit is not a
# release or the download fails, it builds the program from this checkout.
#
# Other jobs can write to the tool cache. The script therefore executes a private copy, and the same open file that it
# has verified.
#
# Variable names begin with an underscore so that they do not overwrite the caller's environment, which the program
# inherits.
set -eu

# The maximum size of the unpacked program, in 512-byte blocks (200 MB).
_max_program_blocks=400000

# Earlier steps of the job may have put other commands first in PATH, or exported shell functions named like commands.
_caller_path=${PATH:-}
PATH=/usr/bin:/bin:/usr/local/bin
unset -f [ awk cat cd chmod command curl date go gzip kill mkdir \
	mktemp mv openssl printf read rm sha256sum shasum tail tr ulimit uname wait || :

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
	rm -rf "$_temporary" ${_stored:+"$_stored"}
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

# remove_leftovers removes what this script left in the directory $1 when it was killed. The names contain the PID,
# which the program keeps.
remove_leftovers() {
	for _leftover in "$1"/sandbox-actions-program-*; do
		_pid=${_leftover##*/sandbox-actions-program-}
		_pid=${_pid%%-*}
		case $_pid in
		'' | *[!0-9]*) ;;
		*) kill -0 "$_pid" 2>/dev/null || rm -rf "$_leftover" 2>/dev/null || : ;;
		esac
	done
}

# make_private creates a directory that only this user can access, and sets _copy to the path of the program in it.
make_private() {
	_parent=${RUNNER_TEMP:-${TMPDIR:-/tmp}}
	remove_leftovers "$_parent"
	_temporary=$(mktemp -d "$_parent/sandbox-actions-program-$$-XXXXXX") ||
		fail 'cannot create a temporary directory: free disk space or set RUNNER_TEMP'
	_copy=$_temporary/$_name
}

# copy_local copies the program of a release from next to this script or from the tool cache, and sets _source.
copy_local() {
	for _source in "$_directory/$_asset" "${_cache:+$_cache/$_name}"; do
		if [ -f "$_source" ]; then
			cat <"$_source" >"$_copy" ||
				fail "cannot copy $_source to ${_temporary%/*}: free disk space or set RUNNER_TEMP"
			return 0
		fi
	done
	return 1
}

# open_copy opens _copy, removes its name where an open file can be executed without it (on Linux), and sets _program to
# what to execute.
open_copy() {
	chmod 700 "$_copy"
	exec 3<"$_copy"
	_program=$_copy
	if [ -e /proc/self/fd/3 ]; then
		_program=/proc/self/fd/3
		rm -f "$_copy"
	fi
}

# verify exits unless _program has the SHA-256 in checksums.txt.
verify() {
	_actual=$(print_sha256 "$_program")
	_actual=${_actual%% *}
	if [ "$_actual" != "$_expected" ]; then
		fail "checksum mismatch for $_source: got $_actual, the commit of $_version has $_expected; refusing to run it"
	fi
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
	23/*) fail "cannot write $_asset to ${_temporary%/*}: free disk space or set RUNNER_TEMP" ;;
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

# unpack unpacks the download into _copy. The limit keeps a small archive from filling the disk.
unpack() {
	(
		ulimit -f "$_max_program_blocks" 2>/dev/null || : # fails if the limit is lower already
		exec gzip -dc <"$_download" >"$_copy" 2>"$_temporary/error"
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
		exec "$_go" build -ldflags="$(link_flags "$_version")" -o "$_copy" "./$_name"
	) &
	wait_for_child
	if [ "$_exit_code" != 0 ]; then
		fail "cannot build $_name from source with $_go: see its output above"
	fi
}

# obtain downloads or builds the program.
obtain() {
	_download=$_temporary/download
	if [ -n "$_expected" ] && fetch; then
		unpack
	elif ! build; then
		fail "cannot download $_asset: $_reason; no Go toolchain to build it from source (add actions/setup-go)"
	fi
}

# store copies the verified program to the tool cache, if that is writable, so that later steps need no download. The
# move replaces the file atomically.
store() {
	if [ -n "$_cache" ] && mkdir -p "$_cache" 2>/dev/null && remove_leftovers "$_cache" &&
		_stored=$(mktemp "$_cache/sandbox-actions-program-$$-XXXXXX" 2>/dev/null); then
		if cat <"$_program" >"$_stored" 2>/dev/null && chmod 755 "$_stored"; then
			mv -f "$_stored" "$_cache/$_name"
		else
			rm -f "$_stored"
		fi
		_stored=''
	fi
}

_name=action-${1:?usage: run.sh ACTION [ARGUMENT...]}
shift
_directory=${0%/*}
_token=${SANDBOX_ACTIONS_TOKEN:-${INPUT_GITHUB_TOKEN:-}}
_home='' _version='' _expected='' _cache='' _program='' _source='' _child='' _temporary='' _copy='' _stored=''
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
make_private
_obtained=''
if [ -z "$_expected" ] || ! copy_local; then
	obtain
	_obtained=1
fi
open_copy
if [ -n "$_expected" ]; then
	verify
fi
if [ -n "$_obtained" ]; then
	store
fi
if [ "$_program" != "$_copy" ]; then
	rm -rf "$_temporary"
fi
_temporary='' # the runner empties RUNNER_TEMP after the job
set_now
_elapsed=$((_now - _started))
printf '%s from %s, found in %d.%02d s\n' \
	"$_name${_version:+ $_version}" "$_source" $((_elapsed / 100)) $((_elapsed % 100)) >&2
unset SANDBOX_ACTIONS_TOKEN
PATH=$_caller_path
exec "$_program" "$@"
