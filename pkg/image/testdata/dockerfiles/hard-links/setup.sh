#!/usr/bin/env bash
set -eu
ln one two
