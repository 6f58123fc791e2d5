#!/usr/bin/env bash
set -eu
for d in {0..7}; do
	mkdir -p "many/d$d"
	for f in {0..99}; do echo "$f" >"many/d$d/f$f"; done
done
