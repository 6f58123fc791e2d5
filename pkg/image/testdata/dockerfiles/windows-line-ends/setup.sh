#!/usr/bin/env bash
set -eu
printf 'FROM scratch\r\n# comment\r\nLABEL \\\r\n  one=1\r\nCOPY file /\r\n' >Dockerfile
