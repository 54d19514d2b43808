#!/bin/sh
# The whole suite: suite.sh VENV (run by `make test`). The table of tiers and pytest's closing line come last.
set -eu

venv=$1
cd "$(dirname "$0")/.."
HYPOTHESIS_STORAGE_DIRECTORY=$venv/cache/hypothesis
export HYPOTHESIS_STORAGE_DIRECTORY
exec "$venv/bin/python" -m pytest -q -o cache_dir="$venv/cache/pytest" tests </dev/null
