#!/bin/sh
# One node of its own in a temporary home, one job, its results: demo.sh VENV (run by `make demo`)
set -eu

venv=$1
cd "$(dirname "$0")/.."

scratch=$(mktemp -d "${TMPDIR:-/tmp}/p2pq-demo-XXXXXX")
P2PQ_HOME=$scratch/home
P2PQ_ALLOW_ROOT=1 # a demonstration in a temporary home may run as root; daily use may not
export P2PQ_HOME P2PQ_ALLOW_ROOT

finish() {
    code=$?
    trap - EXIT INT TERM
    "$venv/bin/p2pq" stop >/dev/null 2>&1 </dev/null || true
    rm -rf "$scratch"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Alone on this machine: no announcement on the network, no port that others reach.
mkdir -m 700 "$P2PQ_HOME"
printf '[node]\nlisten = "127.0.0.1:0"\nmdns = false\n' >"$P2PQ_HOME/config.toml"
chmod 600 "$P2PQ_HOME/config.toml"

folder=$(pwd -P)/examples/pi
if [ ! -w "$folder" ]; then
    copy=$(mktemp -d "${TMPDIR:-/tmp}/p2pq-results-XXXXXX")
    cp -R "$folder" "$copy/"
    chmod -R u+w "$copy/pi"
    rm -rf "$copy/pi/results" "$copy/pi"/results.~*~ # of somebody's earlier run
    folder=$copy/pi
fi

echo "\$ p2pq start"
"$venv/bin/p2pq" start </dev/null
echo "\$ p2pq submit --sweep seed=0,1,2,3,4,5,6,7 $folder"
"$venv/bin/p2pq" submit --sweep seed=0,1,2,3,4,5,6,7 "$folder" </dev/null
echo "\$ python3 $folder/mean.py"
"$venv/bin/python" "$folder/mean.py"
echo "The results lie in $folder/results/ (one folder per task)"
