#!/bin/sh
# Runs the given command or, without one, the services. Both exit within a second of SIGTERM.
# tini forwards signals to the command, because the kernel does not apply default signal actions to PID 1, and reaps
# orphans. s6-svscan does both for the services and waits until they have stopped.
set -eu
if [ $# -gt 0 ]; then
	exec tini -- "$@"
fi
exec s6-svscan /opt/sandbox/services
