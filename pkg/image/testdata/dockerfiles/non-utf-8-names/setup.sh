#!/usr/bin/env bash
set -eu
echo x >$'latin-\xe9'
