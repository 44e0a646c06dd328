#!/usr/bin/env bash
# Runs every fuzzer of a SLU_FUZZ build for some seconds each.  deploy/fuzz.sh BUILD_DIR SECONDS
# New inputs are collected in BUILD_DIR/corpus/NAME, findings in BUILD_DIR/findings/; the seeds in the tree stay as
# they are. Exit status 1 when anything was found.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1 seconds=$2 status=0
mkdir -p "$build/findings"
for program in "$build"/fuzz/fuzz_*; do
    [ -x "$program" ] || continue
    name=$(basename "$program")
    corpus=${name#fuzz_}
    mkdir -p "$build/corpus/$corpus"
    printf '%-28s ' "$name"
    if "$program" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 \
        -artifact_prefix="$build/findings/$corpus-" "$build/corpus/$corpus" "tests/fuzz/corpus/$corpus" \
        >"$build/findings/$name.log" 2>&1 </dev/null; then
        awk '/number_of_executed_units/ { runs = $2 } / cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") cov = $(i + 1) }
            END { printf "%d runs, %d edges covered, nothing found\n", runs, cov }' "$build/findings/$name.log"
    else
        status=1
        echo "FOUND SOMETHING: $build/findings/$name.log"
        tail -n 5 "$build/findings/$name.log"
    fi
done
exit $status
