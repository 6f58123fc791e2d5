# Login shells have the variables of ~/.iterate/.env (lines NAME=value, in the shell's syntax).
if [ -r "$HOME/.iterate/.env" ]; then
	set -a
	. "$HOME/.iterate/.env"
	set +a
fi
