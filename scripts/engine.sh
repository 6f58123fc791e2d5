#!/usr/bin/env bash
# Runs a private Docker Engine that is isolated from other engines. Its data, log and socket are in DIR, its processes
# and mounts are in separate namespaces, and its bridge has a name derived from DIR.
#
#   scripts/engine.sh current|oldest DIR [background|foreground|owned]
#
# current is the engine that scripts/setup.sh builds, oldest is Debian's package (20.10 on Debian 12).
# background (default) returns when the engine is ready. To stop it, kill the process in DIR/engine.pid.
# foreground runs until SIGTERM or SIGINT, then stops the engine and removes everything except DIR.
# owned is like foreground, but also stops at the end of standard input, for example when the writer of a pipe exits.
# ENGINE_SOCKET=PATH replaces the socket DIR/docker.sock. Socket paths are limited to 107 bytes.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

fail() {
	echo "engine: $*" >&2
	exit 1
}

kind=${1:-} mode=${3:-background}
if [[ $# -lt 2 || ! $kind =~ ^(current|oldest)$ || ! $mode =~ ^(foreground|background|owned)$ ]]; then
	fail "usage: scripts/engine.sh current|oldest DIR [background|foreground|owned]"
fi
[[ $(id -u) == 0 ]] || fail "a Docker Engine needs root: sudo $0 $*"
if [[ $kind == current ]]; then
	[[ -x $root/.cache/engine/dockerd ]] || fail "the current engine is not built: run scripts/setup.sh test"
	PATH=$root/.cache/engine:/usr/local/sbin:/usr/sbin:/sbin:$PATH
else
	PATH=/usr/sbin:/usr/bin:/sbin:/bin
fi
export PATH
for program in dockerd containerd runc iptables ip curl; do
	command -v "$program" >/dev/null || fail "$program is missing: run scripts/setup.sh test"
done

mkdir -p "$2"
dir=$(cd "$2" && pwd -P)
socket=${ENGINE_SOCKET:-$dir/docker.sock}
((${#socket} <= 107)) || fail "socket path $socket is longer than 107 bytes: set ENGINE_SOCKET to a shorter one"
if [[ -f $dir/engine.pid ]] && kill -0 "$(cat "$dir/engine.pid")" 2>/dev/null; then
	fail "an engine is already running in $dir: stop it with kill $(cat "$dir/engine.pid")"
fi

if [[ $mode == background ]]; then
	setsid "$root/scripts/engine.sh" "$kind" "$dir" foreground </dev/null >"$dir/engine.log" 2>&1 &
	for ((i = 0; i < 300; i++)); do
		if curl -fsS --max-time 2 --unix-socket "$socket" http://engine/_ping >/dev/null 2>&1; then
			echo "export DOCKER_HOST=unix://$socket  # stop it with: kill $(cat "$dir/engine.pid")"
			exit 0
		fi
		kill -0 $! 2>/dev/null || break
		sleep 0.2
	done
	tail -n 20 "$dir/engine.log" >&2
	kill $! 2>/dev/null || true
	fail "cannot start the engine: see $dir/engine.log"
fi

# The bridge's name and network are derived from DIR, so that the next run can remove leftovers of a killed engine.
hash=$(printf %s "$dir" | sha256sum)
bridge=engine-${hash:0:8}
init='' watch=''

# nat_rules -I|-D SUBNET inserts or deletes the firewall rules for outgoing connections of containers. The engine runs
# with --iptables=false (its proxy serves published ports), because engines flush each other's chains.
nat_rules() {
	iptables -w -t nat "$1" POSTROUTING -s "$2" ! -o "$bridge" -j MASQUERADE
	iptables -w "$1" FORWARD -i "$bridge" -j ACCEPT
	iptables -w "$1" FORWARD -o "$bridge" -j ACCEPT
}

remove_leftovers() {
	local address
	address=$(ip -4 -o addr show dev "$bridge" 2>/dev/null | awk '{print $4}') || true
	if [[ $address ]]; then
		nat_rules -D "${address%.*}.0/24" 2>/dev/null || true
	fi
	ip link delete "$bridge" 2>/dev/null || true
	rm -f "$dir/engine.pid" "$socket"
}

# finish STATUS stops the engine and its containers, removes the bridge and exits with STATUS.
# shellcheck disable=SC2317 # called by traps
finish() {
	trap '' INT TERM
	trap - EXIT
	[[ ! $watch ]] || kill "$watch" 2>/dev/null || true
	if [[ $init ]]; then
		# The first process of the PID namespace forwards SIGTERM to dockerd.
		xargs -r kill <"/proc/$init/task/$init/children" 2>/dev/null || true
		for ((i = 0; i < 150; i++)); do
			kill -0 "$init" 2>/dev/null || break
			sleep 0.1
		done
		kill -KILL "$init" 2>/dev/null || true
		wait "$init" 2>/dev/null || true
	fi
	remove_leftovers
	exit "$1"
}
trap 'finish 0' INT TERM
trap 'finish $?' EXIT

remove_leftovers
echo $$ >"$dir/engine.pid"

# Use the first network without a route on this machine, starting at one derived from DIR.
for ((i = 0; i < 256; i++)); do
	subnet=10.213.$(((16#${hash:8:2} + i) % 256))
	[[ $(ip route) == *$subnet.* ]] || break
done
((i < 256)) || fail "no free network in 10.213.0.0/16 for the engine's bridge"
ip link add "$bridge" type bridge
ip addr add "$subnet.1/24" dev "$bridge"
ip link set "$bridge" up
echo 1 >/proc/sys/net/ipv4/ip_forward
nat_rules -I "$subnet.0/24"

# Do not use /etc/docker/daemon.json, /run/docker and /run/containerd: another engine on this machine may use them.
echo '{}' >"$dir/daemon.json"
mkdir -p /run/docker /run/containerd
# shellcheck disable=SC2016 # expanded by the inner shell
setpriv --pdeathsig KILL unshare --mount --propagation slave --pid --fork --kill-child --mount-proc \
	bash -c 'mount -t tmpfs engine /run/docker && mount -t tmpfs engine /run/containerd || exit
		trap "kill -TERM \$engine" TERM INT
		"$@" & engine=$!
		until wait "$engine"; status=$?; ! kill -0 "$engine" 2>/dev/null; do :; done
		exit "$status"' engine \
	dockerd --config-file "$dir/daemon.json" --data-root "$dir/data" --exec-root /run/docker \
	--pidfile /run/docker/engine.pid --host "unix://$socket" --bridge "$bridge" --iptables=false --ip6tables=false \
	--shutdown-timeout 5 --log-level warn </dev/null &
init=$!
if [[ $mode == owned ]]; then
	exec 3<&0
	(
		while read -r -u 3; do :; done
		kill $$
	) &
	watch=$!
	exec 3<&-
fi
wait "$init" || true
fail "the engine exited"
