#!/usr/bin/env bash
set -eu
echo inside >inside
tar -czf archive.tar.gz --owner=5 --group=6 --mtime=@0 inside
rm inside
