#!/usr/bin/env bash
# Makes the root of debian:bookworm-slim from Debian's packages, as .cache/base/bookworm-slim.tar: what the local cloud serves where
# Docker Hub is out of reach; and .tar.gz, with the SHA-256 of both in .tar.sums. Does nothing when they are there.
set -euo pipefail
cd "$(dirname "$0")/.."

tar=$PWD/.cache/base/bookworm-slim.tar
want=$(sha256sum <"$0")
if [[ -f $tar && $(cat "$tar.made" 2>/dev/null) == "$want" ]]; then
	exit 0
fi
if [[ $(id -u) != 0 ]]; then
	echo "base-image: debootstrap needs root: sudo $0" >&2
	exit 1
fi
echo "base-image: making debian:bookworm-slim with debootstrap (half a minute, once)"
mkdir -p "$(dirname "$tar")"
root=$(mktemp -d)
# A debootstrap that was cut off leaves them mounted.
trap 'umount "$root/proc" "$root/sys" 2>/dev/null || true; rm -rf --one-file-system "$root"' EXIT
mirror=http://deb.debian.org/debian
if ! debootstrap --variant=minbase --include=ca-certificates bookworm "$root" "$mirror" >"$tar.log" 2>&1; then
	tail -n 20 "$tar.log" >&2
	echo "base-image: debootstrap failed: is $mirror in reach?" >&2
	exit 1
fi
cat >"$root/etc/apt/sources.list" <<'LIST'
deb http://deb.debian.org/debian bookworm main
deb http://deb.debian.org/debian bookworm-updates main
deb http://deb.debian.org/debian-security bookworm-security main
LIST
# Authorities that this machine trusts, so that what is fetched in a build is believed as it is outside.
for authority in /usr/local/share/ca-certificates/*.crt; do
	[[ -f $authority ]] && cp "$authority" "$root/usr/local/share/ca-certificates/"
done
chroot "$root" update-ca-certificates >/dev/null 2>&1

# What the slim image leaves out, and what differs from one debootstrap to the next.
find "$root/usr/share/doc" -type f ! -name copyright -delete
find "$root/usr/share/doc" -type l -delete
rm -rf "$root"/usr/share/{man,info,groff,lintian,linda}/* "$root"/var/cache/man
find "$root/usr/share/locale" -mindepth 1 -maxdepth 1 -exec rm -rf {} +
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb "$root"/var/cache/debconf/*-old \
	"$root"/var/lib/dpkg/*-old "$root"/var/cache/ldconfig/aux-cache "$root"/debootstrap "${root:?}"/dev/* "$root"/etc/hostname "$root"/etc/resolv.conf \
	"$root"/etc/machine-id
find "$root/var/log" -type f -delete
: >"$root/etc/machine-id"

chmod 755 "$root" # mktemp's are its owner's only
tar --sort=name --mtime=@0 --numeric-owner --format=gnu -C "$root" -cf "$tar.new" .
mv "$tar.new" "$tar"
gzip --no-name <"$tar" >"$tar.gz"
(cd "$(dirname "$tar")" && sha256sum "${tar##*/}" "${tar##*/}.gz" >"$tar.sums")
echo "$want" >"$tar.made"
rm -f "$tar.log"
