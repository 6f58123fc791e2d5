# shellcheck shell=sh
# Login shells get the variables of ~/.iterate/.env, which has lines NAME=value in shell syntax.
if [ -f "$HOME/.iterate/.env" ] && [ -r "$HOME/.iterate/.env" ]; then
	set -a
	# shellcheck disable=SC1091 # written by the user
	. "$HOME/.iterate/.env"
	set +a
fi
# Some engines run `docker exec` with umask 0, which makes new files world-writable.
umask 022
