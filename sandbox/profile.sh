# shellcheck shell=sh
# Login shells have the variables of ~/.iterate/.env (lines NAME=value, in the shell's syntax).
if [ -f "$HOME/.iterate/.env" ] && [ -r "$HOME/.iterate/.env" ]; then
	set -a
	# shellcheck disable=SC1091 # each user's own
	. "$HOME/.iterate/.env"
	set +a
fi
# Some engines run what `docker exec` is given without one, and anybody may write to what it makes.
umask 022
