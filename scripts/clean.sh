#!/usr/bin/env bash
# Removes all that the other scripts made in this checkout.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf .cache dist test-results
