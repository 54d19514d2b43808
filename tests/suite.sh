#!/bin/sh
# The whole suite: suite.sh VENV (run by `make test`). First all but the hosts in network namespaces, in two processes; then these, which
# mostly wait, in four; then the tests that need every processor. The table of tiers and pytest's closing line end each part.
set -eu

venv=$1
cd "$(dirname "$0")/.."
HYPOTHESIS_STORAGE_DIRECTORY=$venv/cache/hypothesis
MPLCONFIGDIR=$venv/cache/matplotlib
# Compiled modules are kept: compiling the tests alone takes as long as running a thousand of them.
unset PYTHONDONTWRITEBYTECODE
PYTHONPYCACHEPREFIX=$venv/cache/compiled
export HYPOTHESIS_STORAGE_DIRECTORY MPLCONFIGDIR PYTHONPYCACHEPREFIX

part() {
    if [ -n "${PYTEST_TIERS_FILE:-}" ]; then
        PYTEST_TIERS_FILE=$PYTEST_TIERS_FILE.$1
        export PYTEST_TIERS_FILE
    fi
    shift
    "$venv/bin/python" -m pytest -q -o cache_dir="$venv/cache/pytest" "$@" </dev/null
}

failed=
brian=tests/netns/test_brian2.py
load=tests/e2e/test_load.py
run() {
    code=0
    (part "$@") || code=$?
    # 5: PYTEST_ADDOPTS selected none of them.
    [ "$code" -eq 0 ] || [ "$code" -eq 5 ] || failed="${failed:+$failed, }$1"
}
# What the last part needs takes a minute to install; if that fails, the test that needs it says so.
case "$(id -u) ${PYTEST_ADDOPTS:-}" in
"0 ") nice "$venv/bin/python" -m tests.netns.brian >/dev/null 2>&1 </dev/null & ;;
esac
run most -n 2 --dist loadgroup --ignore tests/netns --ignore "$load" tests
run netns -n 4 --ignore "$brian" tests/netns
run whole "$brian" "$load"
[ -z "$failed" ] || { echo "failed: $failed" >&2; exit 1; }
