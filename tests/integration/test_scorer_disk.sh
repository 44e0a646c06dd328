#!/bin/bash
# The disk under a scorer's store misbehaves: full for a while, not writable, a file that was damaged. Serving goes on, or
# the scorer says what to do; what it loads is never a wrong model. The broker is one in memory (score_feeder).
source "$(dirname "$0")/lib.sh"

config=$SLU_SOURCE/examples/ads.yaml
layer=$SLU_BUILD/tests/libslu_fault.so
[ -f "$layer" ] || { echo "skipped: no fault layer in this build"; exit 77; }
faults=$work/faults
scorer_pid=
feeder_pid=

finish_all() {
    local status=$?
    trap - EXIT
    set +e
    for pid in $feeder_pid $scorer_pid; do
        kill -KILL "$pid" 2>/dev/null
    done
    [ $status -eq 0 ] || tail -n 8 "$work/scorer.log" | cut -c1-400
    [ $status -ne 0 ] || rm -rf "$work"
    exit $status
}
trap finish_all EXIT

rule() { # RULES: from now on; none: the disk is well
    printf '%s\n' "$@" >"$faults.new"
    mv "$faults.new" "$faults"
}

begin_scorer() {
    : >"$work/scorer.log"
    LD_PRELOAD=$layer SLU_FAULT_FILE=$faults "$SLU_BUILD/bin/sluice-scorer" --config "$config" \
        --set "kafka.brokers=$brokers" --set "serving.store=$work/store" --set "serving.listen=127.0.0.1:0" \
        --set "admin.scorer=127.0.0.1:0" >>"$work/scorer.log" 2>&1 &
    scorer_pid=$!
}
listening() {
    kill -0 "$scorer_pid" 2>/dev/null || fail "the scorer ended: $(tail -n 1 "$work/scorer.log")"
    line=$(grep 'component=scorer msg=listening' "$work/scorer.log")
}
start_scorer() {
    begin_scorer
    wait_for "the scorer" listening
    admin=127.0.0.1:$(sed 's/.* admin_port=\([0-9]*\).*/\1/' <<<"$line")
}
refuses_to_start() { # WORDS
    begin_scorer
    local status=0
    wait "$scorer_pid" || status=$?
    scorer_pid=
    [ $status -ne 0 ] || fail "a scorer started on a bad disk"
    [ $status -lt 128 ] || fail "the scorer died of signal $((status - 128))"
    grep -q -- "$1" "$work/scorer.log" || fail "no '$1' in: $(tail -n 1 "$work/scorer.log")"
    say "refused: $(tail -n 1 "$work/scorer.log" | cut -c1-300)"
}
stop_scorer() {
    kill -TERM "$scorer_pid"
    wait "$scorer_pid" || fail "the scorer ended with status $? on SIGTERM"
    scorer_pid=
}
scorer_says() {
    grep -q -- "$1" "$work/scorer.log"
}
serves() {
    [ "$(metric sluice_scorer_version)" = "$1" ]
}
published=0
publish() { # base|delta
    published=$((published + 1))
    echo "$1" >&8
    wait_for "version $published in the topic" grep -qx "version=$published" "$work/feeder.out"
}
value() { # NAME LINE
    tr ' ' '\n' <<<"$2" | sed -n "s/^$1=//p"
}
stored() { # NAME: of what is in the store
    "$SLU_BUILD/bin/sluice-store" sum --store "$work/store" | sed -n "s/^$1  *//p"
}

rule
mkfifo "$work/commands"
"$SLU_BUILD/tests/score_feeder" "$config" <"$work/commands" >"$work/feeder.out" &
feeder_pid=$!
exec 8>"$work/commands"
has_broker() {
    brokers=$(sed -n 's/^brokers=//p' "$work/feeder.out") && [ -n "$brokers" ]
}
wait_for "the broker" has_broker

say "the disk is full while versions come: they serve, and reach the disk when it is well again"
start_scorer
publish base
wait_for "the base" serves 1
rule "write:*$work/store/*:*:enospc"
for _ in 1 2 3; do
    publish delta
    wait_for "version $published" serves "$published"
done
wait_for "a word about the disk" scorer_says "the store refused a commit; serving goes on"
publish base # it is current, so this one is passed over in pieces
publish delta
wait_for "version $published" serves "$published"
rule
wait_for "a word that it is well" scorer_says "the store takes commits again"
line=$(get /digest)
stop_scorer
expect "version on disk" "$(stored version)" "$published"
expect "rows on disk" "$(stored 'row sum')" "$(value row_sum "$line")"
expect "dense parameters on disk" "$(stored 'dense digest')" "$(value dense_digest "$line")"

say "a new store on a full disk, and one that may not be written"
mv "$work/store" "$work/good"
rule "write:*$work/store/*:*:enospc"
refuses_to_start "disk is full"
rule "open:*$work/store/*:*:erofs"
refuses_to_start "not writable"
rm -rf "$work/store"
rule
mv "$work/good" "$work/store"

say "a store whose rows are not what was written"
start_scorer # and all is well
wait_for "the version that was stored" serves "$published"
stop_scorer
cp -a "$work/store" "$work/good"
damaged=0
for file in "$work"/store/*.sst "$work"/store/*.log; do
    [ -s "$file" ] || continue
    size=$(stat -c %s "$file")
    printf '\377\377\377\377' | dd of="$file" bs=1 seek=$((size / 3)) conv=notrunc status=none
    damaged=$((damaged + 1))
done
[ $damaged -gt 0 ] || fail "nothing to damage"
refuses_to_start "a copy only: delete\|a copy: delete it"
rm -rf "$work/store"

say "deleted, it comes back with the next base"
start_scorer
publish base
wait_for "the base" serves "$published"
stop_scorer
expect "version on disk" "$(stored version)" "$published"
say "passed"
