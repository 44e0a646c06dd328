#!/usr/bin/env bash
# Runs the fuzzers of a SLU_FUZZ build for some seconds each, several at a time, at the lowest priority.
#   deploy/fuzz.sh BUILD_DIR SECONDS [JOBS] [NAME...]      NAME: config, csv, ... (default: all of them)
# New inputs are collected in BUILD_DIR/corpus/NAME, findings and logs in BUILD_DIR/findings/; the seeds in the tree
# stay as they are. Prints a markdown table: minutes by the clock and of processor time, executions, edges of the
# instrumented code that were reached, inputs of the corpus, findings. Exit status 1 when anything was found.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1 seconds=$2 jobs=${3:-2}
shift $(($# < 3 ? $# : 3))
mkdir -p "$build/findings"

names=("$@")
if [ ${#names[@]} = 0 ]; then
    for program in "$build"/fuzz/fuzz_*; do
        [ -x "$program" ] && names+=("$(basename "$program" | sed 's/^fuzz_//')")
    done
fi

# One fuzzer: its row of the table goes to findings/NAME.row, as it is known.
run_one() {
    local name=$1 row="$build/findings/$1.row" log="$build/findings/$1.log" found=0 dictionary=() took
    mkdir -p "$build/corpus/$name"
    rm -f "$row" "$build/findings/$name"-*
    [ -f "tests/fuzz/$name.dict" ] && dictionary=("-dict=tests/fuzz/$name.dict")
    TIMEFORMAT='%R %U %S'
    took=$({ time nice -n 19 "$build/fuzz/fuzz_$name" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=20 \
        -print_final_stats=1 "${dictionary[@]}" -artifact_prefix="$build/findings/$name-" \
        "$build/corpus/$name" "tests/fuzz/corpus/$name" >"$log" 2>&1 </dev/null || true; } 2>&1)
    found=$(find "$build/findings" -name "$name-*" ! -name '*-slow-unit-*' | wc -l)
    grep -q '^stat::number_of_executed_units' "$log" || found="$found (no end)"
    # shellcheck disable=SC2086
    awk -v name="$name" -v found="$found" -v took="$took" '
        /^stat::number_of_executed_units/ { runs = $2 }
        / cov: / { for (i = 1; i < NF; i++) { if ($i == "cov:") cov = $(i + 1); if ($i == "corp:") corp = $(i + 1) } }
        END {
            split(took, t, " "); sub("/.*", "", corp)
            printf "| %s | %.1f | %.1f | %d | %d | %d | %s |\n", name, t[1] / 60, (t[2] + t[3]) / 60, runs, cov, corp, found
        }' "$log" >"$row.new"
    mv "$row.new" "$row"
}

running=0
for name in "${names[@]}"; do
    if [ $running -ge "$jobs" ]; then
        wait -n || true
        running=$((running - 1))
    fi
    run_one "$name" &
    running=$((running + 1))
done
wait

status=0
echo '| fuzzer | minutes | CPU minutes | executions | edges | corpus | findings |'
echo '|---|---|---|---|---|---|---|'
for name in "${names[@]}"; do
    cat "$build/findings/$name.row" || status=1
    grep -q '| 0 |$' "$build/findings/$name.row" || {
        status=1
        grep -hE 'SUMMARY|does not hold|ERROR: ' "$build/findings/$name.log" | head -n 3 | sed 's/^/    /' >&2 || true
    }
done
exit $status
