#!/bin/sh
# What a developer runs between edits: check.sh VENV (run by `make check`). Types are checked beside the tests; with TESTS=no in the
# environment there are none.
set -eu

venv=$1
cd "$(dirname "$0")/.."
cache=$venv/cache
mkdir -p "$cache"
HYPOTHESIS_STORAGE_DIRECTORY=$cache/hypothesis
RUFF_CACHE_DIR=$cache/ruff
MYPY_CACHE_DIR=$cache/mypy
MPLCONFIGDIR=$cache/matplotlib
# Compiled modules are kept: compiling the tests alone takes as long as running a thousand of them.
unset PYTHONDONTWRITEBYTECODE
PYTHONPYCACHEPREFIX=$cache/compiled
export HYPOTHESIS_STORAGE_DIRECTORY RUFF_CACHE_DIR MYPY_CACHE_DIR MPLCONFIGDIR PYTHONPYCACHEPREFIX

log=$(mktemp "${TMPDIR:-/tmp}/p2pq-check-XXXXXX")
trap 'rm -f "$log"' EXIT
"$venv/bin/mypy" >"$log" 2>&1 </dev/null &
mypy=$!
failed=

step() {
    name=$1
    shift
    echo "== $name"
    "$@" </dev/null || failed="$failed${failed:+, }$name"
}
step "ruff check" "$venv/bin/ruff" check --quiet .
step "ruff format" "$venv/bin/ruff" format --quiet --check .
step "import contracts" "$venv/bin/lint-imports" --no-cache
[ "${TESTS:-yes}" = no ] || step "fast tests" "$venv/bin/python" -m pytest -q -n 2 --dist loadgroup -o cache_dir="$cache/pytest" \
    -m "not (slow or property or sandbox or netns or e2e) and (not sim or quick)" tests
echo "== mypy"
wait "$mypy" || failed="$failed${failed:+, }mypy"
cat "$log"

if [ -n "$failed" ]; then
    echo "make check failed: $failed" >&2
    exit 1
fi
echo "make check: all clean"
