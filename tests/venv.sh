#!/bin/sh
# Make or reuse a virtual environment of this checkout and print its path: venv.sh run|dev
#
# .venv where that is ours to write; else a folder of the user's cache; else a fresh temporary folder. A stamp inside holds
# what it was made from (pyproject.toml, the interpreter, this path) and is written last, so a half-made one is never used.
set -eu

kind=$1
python=${PYTHON:-python3}
cd "$(dirname "$0")/.."
here=$(pwd -P)

say() { echo "$*" >&2; }

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || {
    say "no Python called '$python': install Python 3.11 or newer, or choose one with make PYTHON=/path/to/python3"
    exit 1
}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    say "'$python' is Python $version; p2pq needs 3.11 or newer: make PYTHON=/path/to/python3"
    exit 1
}
print_key='
import hashlib, pathlib, sys
key = hashlib.sha256(pathlib.Path("pyproject.toml").read_bytes())
key.update(f"{sys.version} {sys.base_prefix} {pathlib.Path.cwd()}".encode())
print(key.hexdigest())'
key=$("$python" -c "$print_key")

cache=${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}
if [ -w . ] && { [ ! -e .venv ] || { [ -O .venv ] && [ -w .venv ]; }; }; then
    venv=$here/.venv
elif mkdir -p "$cache/p2pq" 2>/dev/null && [ -w "$cache/p2pq" ]; then
    venv=$cache/p2pq/venv-$(printf '%s' "$here" | cksum | cut -d' ' -f1)
    say "$here/.venv is not ours to write; using $venv"
else
    venv=$(mktemp -d "${TMPDIR:-/tmp}/p2pq-venv-XXXXXX")
    say "neither $here nor $cache can be written; using $venv (delete it when done)"
fi

stamp=$venv/.p2pq-stamp
have=$(cat "$stamp" 2>/dev/null || true)
case "$have" in
"$key dev" | "$key $kind")
    echo "$venv"
    exit 0
    ;;
"$key "*) fresh= ;;  # same Python, same project: only packages are missing
"") fresh= ;;        # not made by this script, or never finished: keep what is there
*) fresh=--clear ;;
esac

say "making $venv with Python $version"
rm -f "$stamp"
# shellcheck disable=SC2086  # $fresh is one word or none
"$python" -m venv $fresh "$venv" >&2 || {
    say "'$python -m venv' failed: on Debian and Ubuntu install python3-venv, or choose another Python: make PYTHON=..."
    exit 1
}
case $kind in
dev) what=".[dev]" compile=--no-compile ;; # check.sh and suite.sh keep compiled modules elsewhere
*) what="." compile= ;;
esac
# shellcheck disable=SC2086  # $compile is one word or none
"$venv/bin/python" -m pip install --quiet $compile --disable-pip-version-check --no-input --editable "$what" >&2 || {
    say "pip could not install p2pq's dependencies: see its message above"
    exit 1
}
echo "$key $kind" >"$stamp"
echo "$venv"
