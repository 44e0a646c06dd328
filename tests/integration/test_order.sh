#!/bin/bash
# The order of a live run is in its store: with four partitions a topic, two SIGKILLs and a clean stop, sluice-replay
# rebuilds the model from the topics, bit for bit, up to the last version and up to an earlier one, though rows expire all
# the time; what cannot be rebuilt any more is refused.
source "$(dirname "$0")/lib.sh"
# Rows that nobody has asked for in a second of event time go.
sed 's/dimension: 4}/dimension: 4, ttl: 1s}/' "$config" >"$work/config.yaml"
config=$work/config.yaml
grep -q "ttl: 1s" "$config" || fail "no ttl in the config"
replay=$SLU_BUILD/bin/sluice-replay
store=$SLU_BUILD/bin/sluice-store

run_replay() { # ARGUMENTS: a replay of the live store; its report in $work/report.json
    "$replay" --config "$config" --set "kafka.brokers=$brokers" --json "$work/report.json" "$@" \
        >"$work/replay.log" 2>&1
}

reported() {
    sed -n "s/^ *\"$1\": \"\{0,1\}\([^\",]*\).*/\1/p" "$work/report.json"
}

stored_version() {
    "$store" info --store "$1" | awk '$1 == "version" { print $2 }'
}

order_bytes() {
    "$store" info --store "$1" | awk '$1 == "order" { print $3 }'
}

refused() { # WHAT WORD ARGUMENTS
    local what=$1 word=$2
    shift 2
    ! run_replay "$@" || fail "$what was not refused"
    grep -q -- "$word" "$work/replay.log" || fail "$what: the message lacks '$word': $(tail -1 "$work/replay.log")"
}

start_broker
create_topics
generate 11 12000 "$work/events"
total=$(wc -l <"$work/events")
"$tool" "$brokers" produce 3000 <"$work/events" >/dev/null &
producer_pid=$!
for enough in 1500 4000; do
    start_trainer
    wait_for "$enough events" received_over "$enough"
    kill_trainer
    say "killed after $enough events"
done
start_trainer
wait_for "6000 events" received_over 6000
stop_trainer # the store may be copied while nobody writes
cp -r "$work/store" "$work/copy"
early=$(stored_version "$work/copy")
say "stopped and copied at version $early"
start_trainer
wait "$producer_pid" || fail "not all events were produced"
producer_pid=
wait_for "all $total events" received_is "$total"
# Partitions fall silent, the last samples are learned: that is part of the order, too.
wait_for "rest" rests 3 sluice_trainer_version

say "beside the live trainer"
run_replay --from-store "$work/store" || fail "the replay beside the trainer: $(tail -3 "$work/replay.log")"
expect "events replayed" "$(reported received)" "$total"
expired=$(metric sluice_trainer_rows_expired_total)
[ "$expired" -gt 50 ] || fail "only $expired rows have expired"
say "$expired rows expired in the last life"

stop_trainer
late=$("$store" digest --store "$work/store")
version=$(stored_version "$work/store")
[ "$version" -gt "$early" ] || fail "nothing was committed after the copy"
bytes=$(order_bytes "$work/store")
say "order of $total events in $version versions: $bytes bytes with keys, $(awk "BEGIN { printf \"%.3f\", $bytes / $total }") an event"

say "from the first event to version $version"
run_replay --from-store "$work/store" || fail "$(tail -3 "$work/replay.log")"
expect "digest" "$(reported digest)" "$late"
expect "version" "$(reported model_version)" "$version"
expect "equals_live" "$(reported equals_live)" true

say "to the copied version $early, and on from there"
run_replay --from-store "$work/store" --until "$early" --store "$work/rebuilt" || fail "$(tail -3 "$work/replay.log")"
expect "digest of the copy" "$(reported digest)" "$("$store" digest --store "$work/copy")"
run_replay --from-store "$work/store" --store "$work/rebuilt" || fail "$(tail -3 "$work/replay.log")"
expect "digest after going on" "$(reported digest)" "$late"

say "from the copy on"
run_replay --from-store "$work/store" --store "$work/copy" || fail "$(tail -3 "$work/replay.log")"
expect "digest from the copy on" "$(reported digest)" "$late"

say "what cannot be"
refused "a version of the future" "there is no version" --from-store "$work/store" --until $((version + 1))
refused "a store that is further" "is at version $version already" --from-store "$work/store" --store "$work/copy" --until 1
refused "another seed" "version 1 was learned under configuration" --from-store "$work/store" --set model.seed=2
"$tool" "$brokers" trim events 1 500
refused "a trimmed topic" "topic events partition 1: version" --from-store "$work/store"
start_trainer --set training.keep_order=1
generate 12 200 "$work/more" 20
"$tool" "$brokers" produce <"$work/more" >/dev/null
total=$((total + $(wc -l <"$work/more")))
wait_for "more events" received_is "$total"
stop_trainer
refused "a trimmed order" "keeps no order of version 1" --from-store "$work/store"

say "another rate from now on"
cp -r "$work/store" "$work/changed"
changed=$(($(stored_version "$work/store") + 1))
start_trainer --set optimizer.rows.rate=0.03
generate 13 200 "$work/more" 30
"$tool" "$brokers" produce <"$work/more" >/dev/null
wait_for "events under the other rate" received_is $((total + $(wc -l <"$work/more")))
stop_trainer
refused "the old rate" "version $changed was learned under configuration" --from-store "$work/store" --store "$work/changed"
run_replay --from-store "$work/store" --store "$work/changed" --set optimizer.rows.rate=0.03 || fail "$(tail -3 "$work/replay.log")"
expect "equals_live under the other rate" "$(reported equals_live)" true
say "passed"
