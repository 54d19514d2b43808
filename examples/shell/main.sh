#!/bin/sh
# Count one word in every text of this folder: main.sh WORD
set -eu

word=${1:?usage: main.sh WORD}
results=${P2PQ_RESULTS:-results}
mkdir -p "$results"

for text in texts/*.txt; do
    count=$(tr -cs '[:alpha:]' '\n' <"$text" | grep -ciFx -e "$word" || true)
    printf '%s\t%s\t%s\n' "$word" "$(basename "$text")" "$count"
done >"$results/counts.tsv"

echo "task ${P2PQ_TASK:-0} of ${P2PQ_TASKS:-1} counted '$word' in $(ls texts | wc -l) texts"
