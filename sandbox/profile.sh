# Login shells have the variables of ~/.iterate/.env (lines NAME=value, in the shell's syntax).
if [ -f "$HOME/.iterate/.env" ] && [ -r "$HOME/.iterate/.env" ]; then
	set -a
	. "$HOME/.iterate/.env"
	set +a
fi
# Some engines start what `docker exec` runs with none, and all may write to what is made.
umask 022
