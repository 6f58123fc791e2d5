#!/usr/bin/env bash
set -eu
echo space >'with space'
echo utf >$'\xc3\xbcml\xc3\xa4ut'
echo x >./-dash
echo x >'back\slash'
echo x >$'new\nline'
