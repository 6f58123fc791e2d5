#!/usr/bin/env bash
set -eu
head -c 25165824 /dev/urandom >big
