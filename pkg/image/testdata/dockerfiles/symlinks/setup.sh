#!/usr/bin/env bash
set -eu
ln -s target links/to-file
ln -s /nowhere links/dangling
ln -s loop links/loop
ln -s folder links/to-folder
ln -s ../../../etc/passwd links/outside
