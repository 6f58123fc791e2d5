#!/usr/bin/env bash
set -eu
ln -s ../../../../../etc/passwd escape
