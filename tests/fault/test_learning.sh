#!/bin/bash
# Learning on a disk that fails: a run is killed, goes on under a fault, goes on without, and ends with the digest of a
# run that had none; or, where nothing failed, says so. What a fault does is one line that names the file.
set -euo pipefail
work=$(mktemp -d "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")/sluice-learning-XXXXXX")
trap 'rm -rf "$work"' EXIT
fail() {
    echo "FAILED: $*"
    exit 1
}
bin=$SLU_BUILD/bin
{
    cat "$SLU_SOURCE/examples/ads.yaml"
    printf 'files:\n  - {path: events.jsonl, format: jsonl}\n'
} >"$work/config.yaml"
"$bin/sluice-sim" produce --config "$SLU_SOURCE/examples/ads.yaml" --impressions 6000 --seed 3 --start 2026-01-01 \
    --file "$work/events.jsonl" >/dev/null

# RULES: one run on $work/st, from where the last one stopped. Small caches, so rows come from tables.
run() {
    env ${1:+LD_PRELOAD="$SLU_BUILD/tests/libslu_fault.so" SLU_FAULT="$1"} "$bin/sluice-replay" \
        --config "$work/config.yaml" --data "$work" --store "$work/st" --set store.cache=1MiB \
        --set store.block_cache=1MiB --set training.commit_events=200 --json - >"$work/out" 2>"$work/err"
}
digest() { grep -o '"digest": "[0-9a-f]*"' "$work/out"; }

run "" || fail "the run without faults: $(tail -1 "$work/err")"
want=$(digest)
hit=0
for rule in "read:*.sst:30:eio" "read:*.sst:30:flip" "read:*.sst:~20:eio" "write:*.log:12:torn" "write:*.log:12:short" \
    "sync:*.log:9:eio" "write:*.sst:3:enospc" "rename:*:1:kill-after" "sync:*.sst:1:powercut" "open:*.sst:4:eio"; do
    rm -rf "$work/st"
    ! run "sync:*.log:14:kill" || fail "the kill did not come"
    status=0
    run "$rule" || status=$?
    if [ $status -ne 0 ]; then
        hit=$((hit + 1))
        [ $status -eq 137 ] || grep -q "store $work/st: " "$work/err" || fail "$rule: no file in: $(tail -1 "$work/err")"
        run "" || fail "after $rule: $(tail -1 "$work/err")"
    fi
    [ "$(digest)" = "$want" ] || fail "after $rule: another model"
    echo "$rule: status $status, $(digest)"
done
[ $hit -ge 7 ] || fail "only $hit of the faults hit"
echo "passed: $hit faults, every run ended with $want"
