#!/bin/sh
# The container's first process: the given command if there is one, else the services.
# Both end within a second of SIGTERM: tini hands signals on to the command (the kernel does not
# apply a signal's default to the first process of a container) and reaps orphans; s6-svscan
# does the same for the services and waits until they are down.
set -eu
if [ $# -gt 0 ]; then
	exec tini -- "$@"
fi
exec s6-svscan /opt/sandbox/services
