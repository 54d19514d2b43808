#!/bin/sh
# The whole suite: suite.sh VENV (run by `make test`). First what may run side by side, in two processes, then the hosts in network
# namespaces, which measure time and have the machine to themselves. The table of tiers and pytest's closing line end each part.
set -eu

venv=$1
cd "$(dirname "$0")/.."
HYPOTHESIS_STORAGE_DIRECTORY=$venv/cache/hypothesis
# Compiled modules are kept: compiling the tests alone takes as long as running a thousand of them.
unset PYTHONDONTWRITEBYTECODE
PYTHONPYCACHEPREFIX=$venv/cache/compiled
export HYPOTHESIS_STORAGE_DIRECTORY PYTHONPYCACHEPREFIX

part() {
    if [ -n "${PYTEST_TIERS_FILE:-}" ]; then
        PYTEST_TIERS_FILE=$PYTEST_TIERS_FILE.$1
        export PYTEST_TIERS_FILE
    fi
    shift
    "$venv/bin/python" -m pytest -q -o cache_dir="$venv/cache/pytest" "$@" </dev/null
}

failed=
(part most -n 2 --dist loadgroup --ignore tests/netns tests) || failed="most of the suite"
code=0
(part netns tests/netns) || code=$?
# 5: PYTEST_ADDOPTS selected none of them.
[ "$code" -eq 0 ] || [ "$code" -eq 5 ] || failed="${failed:+$failed and }the network namespaces"
[ -z "$failed" ] || { echo "failed: $failed" >&2; exit 1; }
