#!/bin/sh
# Runs one command of the benchmark in pieces of so many seconds, for machines that are lent by the quarter of an hour:
#
#     sh benchmarks/in_pieces.sh 590 --preset paper-table1 --device cuda --data-dir DIR --store STORE --out results/table1
#
# A piece is ended as by Ctrl-C; the next goes on from what the store has, model by model. Ends with the exit code of the
# command, or with 1 when a piece has added nothing: then one model or one run of a method takes longer than a piece.
set -u
seconds=$1
shift
store=store
previous=
for word in "$@"; do
    [ "$previous" = --store ] && store=$word
    previous=$word
done
count() { find "$store" -name '*.safetensors' 2>/dev/null | wc -l; }
while :; do
    before=$(count)
    timeout --signal=INT "$seconds" "${PYTHON:-python}" "$(dirname "$0")/../run_benchmark.py" "$@"
    code=$?
    [ "$code" = 124 ] || exit "$code"
    if [ "$(count)" = "$before" ]; then
        echo "nothing was finished in $seconds seconds; take longer pieces" >&2
        exit 1
    fi
done
