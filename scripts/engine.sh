#!/usr/bin/env bash
# Runs a Docker Engine of its own, beside any other: its data, log and socket are in DIR, its processes and mounts in
# namespaces that end with it, its bridge is named after DIR.
#
#   scripts/engine.sh current|oldest DIR [foreground|owned]
#
# current is the engine that scripts/engine-build.sh builds, oldest is Debian's 20.10. Without "foreground" it returns
# once the engine answers, and the process in DIR/engine.pid keeps it. That process, on SIGTERM or SIGINT, ends all
# that it started and leaves DIR only. An owned one also does so when its standard input ends, as a pipe's does with the
# process that holds it. ENGINE_SOCKET=PATH puts the socket elsewhere than DIR/docker.sock: a path may hold 107 bytes.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

fail() {
	echo "engine: $*" >&2
	exit 1
}

kind=${1:-} mode=${3:-background}
if [[ $# -lt 2 || ! $kind =~ ^(current|oldest)$ || ! $mode =~ ^(foreground|background|owned)$ ]]; then
	fail "usage: scripts/engine.sh current|oldest DIR [foreground|owned]"
fi
[[ $(id -u) == 0 ]] || fail "a Docker Engine needs root: sudo $0 $*"
if [[ $kind == current ]]; then
	[[ -x $root/.cache/engine/dockerd ]] || fail "the current engine is not built: run scripts/engine-build.sh"
	PATH=$root/.cache/engine:/usr/local/sbin:/usr/sbin:/sbin:$PATH
else
	PATH=/usr/sbin:/usr/bin:/sbin:/bin
fi
export PATH
for program in dockerd containerd runc iptables ip curl; do
	command -v "$program" >/dev/null || fail "$program is missing: run scripts/packages.sh"
done

mkdir -p "$2"
dir=$(cd "$2" && pwd -P)
socket=${ENGINE_SOCKET:-$dir/docker.sock}
((${#socket} <= 107)) || fail "$socket is too long for a socket: name a shorter one in ENGINE_SOCKET"
if [[ -f $dir/engine.pid ]] && kill -0 "$(cat "$dir/engine.pid")" 2>/dev/null; then
	fail "an engine runs in $dir already: kill $(cat "$dir/engine.pid")"
fi

if [[ $mode == background ]]; then
	setsid "$root/scripts/engine.sh" "$kind" "$dir" foreground </dev/null >"$dir/engine.log" 2>&1 &
	for ((i = 0; i < 300; i++)); do
		if curl -fsS --max-time 2 --unix-socket "$socket" http://engine/_ping >/dev/null 2>&1; then
			echo "export DOCKER_HOST=unix://$socket  # ends with: kill $(cat "$dir/engine.pid")"
			exit 0
		fi
		kill -0 $! 2>/dev/null || break
		sleep 0.2
	done
	tail -n 20 "$dir/engine.log" >&2
	kill $! 2>/dev/null || true
	fail "the engine did not start; its log is $dir/engine.log"
fi

# The folder decides the bridge's name and network, so that the next run finds what a killed one left.
hash=$(printf %s "$dir" | sha256sum)
bridge=engine-${hash:0:8}
init='' watch=''

# rules adds (-I) or deletes (-D) what lets containers reach the world. The engine itself keeps off this machine's
# firewall (published ports go through its proxy): two engines would empty each other's chains, and leave them behind.
rules() {
	iptables -w -t nat "$1" POSTROUTING -s "$2" ! -o "$bridge" -j MASQUERADE
	iptables -w "$1" FORWARD -i "$bridge" -j ACCEPT
	iptables -w "$1" FORWARD -o "$bridge" -j ACCEPT
}

sweep() {
	local address
	address=$(ip -4 -o addr show dev "$bridge" 2>/dev/null | awk '{print $4}') || true
	if [[ $address ]]; then
		rules -D "${address%.*}.0/24" 2>/dev/null || true
	fi
	ip link delete "$bridge" 2>/dev/null || true
	rm -f "$dir/engine.pid" "$socket"
}

# finish is what the traps call: the engine first, which ends its containers.
# shellcheck disable=SC2317
finish() {
	trap '' INT TERM
	trap - EXIT
	[[ ! $watch ]] || kill "$watch" 2>/dev/null || true
	if [[ $init ]]; then
		# The first process of the namespace passes it on.
		xargs -r kill <"/proc/$init/task/$init/children" 2>/dev/null || true
		for ((i = 0; i < 150; i++)); do
			kill -0 "$init" 2>/dev/null || break
			sleep 0.1
		done
		kill -KILL "$init" 2>/dev/null || true
		wait "$init" 2>/dev/null || true
	fi
	sweep
	exit "$1"
}
trap 'finish 0' INT TERM
trap 'finish $?' EXIT

sweep
echo $$ >"$dir/engine.pid"

# A network that no route of this machine touches, the first free one from where the folder's name points.
for ((i = 0; i < 256; i++)); do
	subnet=10.213.$(((16#${hash:8:2} + i) % 256))
	[[ $(ip route) == *$subnet.* ]] || break
done
((i < 256)) || fail "no free network in 10.213.0.0/16 for the engine's bridge"
ip link add "$bridge" type bridge
ip addr add "$subnet.1/24" dev "$bridge"
ip link set "$bridge" up
echo 1 >/proc/sys/net/ipv4/ip_forward
rules -I "$subnet.0/24"

# The machine's own /etc/docker/daemon.json is another engine's, as are /run/docker and /run/containerd.
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
fail "the engine ended by itself"
