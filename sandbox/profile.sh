# shellcheck shell=sh
# Exports the variables in ~/.iterate/.env (lines NAME=value in shell syntax) to login shells.
if [ -f "$HOME/.iterate/.env" ] && [ -r "$HOME/.iterate/.env" ]; then
	set -a
	# shellcheck disable=SC1091 # written by the user
	. "$HOME/.iterate/.env"
	set +a
fi
# Some engines run `docker exec` with umask 0, which makes new files world-writable.
umask 022
