#!/usr/bin/env bash
set -eu
mkdir empty
