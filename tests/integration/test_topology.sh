#!/bin/bash
# Topics that change under the trainer: they grow, are deleted, are made anew, lose events to retention. Either all
# events are used exactly once, or the trainer refuses with topic, offset and what to do; nothing is ever mixed.
source "$(dirname "$0")/lib.sh"
store_tool=$SLU_BUILD/bin/sluice-store
topic=

# begin NAME PARTITIONS: a topic and a store of their own.
begin() {
    topic=$1
    say "--- $topic"
    "$tool" "$brokers" create "$topic" "$2"
}

start() {
    start_trainer --set "kafka.topics=[$topic]" --set "store.path=$work/store-$topic" --set join.idle_timeout=1s "$@"
}

# Of what was learned and what is waiting.
digest() {
    local family
    for family in rows dense join timers; do
        "$store_tool" digest --store "$work/store-$topic" --family $family
    done
}

# send SEED IMPRESSIONS [PARTITION]: impressions and steps all into the one topic; $sent counts them.
sent=0
send() {
    generate "$1" "$2" "$work/all" "$1"
    sed "s/^[a-z]*\t/$topic${3:+:$3}\t/" "$work/all" | "$tool" "$brokers" produce >/dev/null
    sent=$((sent + $(wc -l <"$work/all")))
}

# Events are learned, then the trainer stops; $sent is what it has.
use() {
    sent=0
    send 1 "$1"
    start
    wait_for "all $sent events" received_is "$sent"
    stop_trainer
}

make_anew() { # PARTITIONS
    "$tool" "$brokers" delete "$topic"
    local end=$((SECONDS + patience))
    until "$tool" "$brokers" create "$topic" "$1" 2>/dev/null; do
        [ $SECONDS -lt $end ] || fail "the topic could not be made anew"
        sleep 0.2
    done
}

# refused WORDS: the trainer ends by itself with the words, and the model is what it was.
refused() {
    local before end=$((SECONDS + patience)) status=0
    before=$(digest)
    start
    wait "$trainer_pid" || status=$?
    trainer_pid=
    [ $SECONDS -lt $end ] || fail "it took too long"
    expect "exit status" "$status" 1
    tail -3 "$work/trainer.log" | grep "cannot go on" | grep -- "topic $topic" | grep "empty store.path" | grep -- "$1" >/dev/null ||
        fail "the refusal does not say '$1': $(grep 'cannot go on' "$work/trainer.log" | tail -1)"
    expect "digest after the refusal" "$(digest)" "$before"
}

start_broker
"$tool" "$brokers" create deltas 1
"$tool" "$brokers" create dead-letters 2

begin anew-longer 2
use 300
make_anew 2
send 2 600 0
send 3 600 1
refused "is not the one that was used: the topic was made anew"

begin anew-wider 2
use 300
make_anew 4
send 2 1200
refused "the topic was made anew"

begin anew-shorter 2
use 300
make_anew 2
send 2 10
refused "the topic was made anew"

begin anew-narrower 3
use 300
make_anew 2
send 2 900
refused "has 2 partitions, but the store has events of partition 2"

begin grows 2
sent=0
send 1 300
start
wait_for "all $sent events" received_is "$sent"
"$tool" "$brokers" grow "$topic" 4
send 2 300
wait_for "all $sent events, also of the new partitions" received_is "$sent"
stop_trainer
"$tool" "$brokers" grow "$topic" 6
send 3 300
start
wait_for "all $sent events, also of those that came while it was down" received_is "$sent"
expect "partitions" "$(metric sluice_trainer_partitions)" 6
check_balance
stop_trainer

begin deleted 2
sent=0
send 1 300
start
wait_for "all $sent events" received_is "$sent"
stop_trainer
before=$(digest)
start
"$tool" "$brokers" delete "$topic"
wait_for "word that the topic is gone" log_says "a topic is gone.*topic=deleted"
kill -0 "$trainer_pid" || fail "the trainer ended when its topic was deleted"
created() {
    "$tool" "$brokers" create "$topic" 2 2>/dev/null
}
end=$((SECONDS + patience))
until created; do # the trainer may end as soon as it is there, so not wait_for
    [ $SECONDS -lt $end ] || fail "the topic could not be made anew"
    sleep 0.2
done
send 2 900
status=0
wait "$trainer_pid" || status=$?
trainer_pid=
expect "exit status" "$status" 1
tail -3 "$work/trainer.log" | grep "cannot go on" | grep "topic deleted partition .*made anew" >/dev/null || fail "the refusal of a topic made anew"
received=$(grep 'msg=stopped' "$work/trainer.log" | tail -1 | grep -o 'received=[0-9]*')
expect "received at the end" "$received" "received=$((sent - $(wc -l <"$work/all")))"

begin retention 1
use 300
"$tool" "$brokers" trim "$topic" 0 "$sent"
send 2 100
start
wait_for "all $sent events: nothing was lost" received_is "$sent"
log_says "whether the topic is the same cannot be checked.*topic=retention" || fail "no word that the topic could not be checked"
stop_trainer
send 3 100
"$tool" "$brokers" trim "$topic" 0 $((sent - 10))
refused "events between were lost by retention"
say "passed"
