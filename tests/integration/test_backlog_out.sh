#!/bin/bash
# Kafka takes nothing for long: what is to be published waits on disk within publish.outbox, reading pauses beyond it,
# memory stays within its limit, a start does not wait for a dead broker, and when it is back everything goes out.
source "$(dirname "$0")/lib.sh"

# Nothing goes out: the producer is told to gather messages for a quarter of an hour before it sends any.
gather="--set kafka.rdkafka.linger.ms=900000 --set kafka.rdkafka.batch.num.messages=1000000 --set kafka.rdkafka.batch.size=100000000"
start_broker
"$tool" "$brokers" create events 4
"$tool" "$brokers" create steps 4
"$tool" "$brokers" create deltas 1
"$tool" "$brokers" create dead-letters 1
generate 3 40000 "$work/events"
total=$(wc -l <"$work/events")
"$tool" "$brokers" produce <"$work/events" >/dev/null
begin() {
    start_trainer --set publish.outbox=1MiB --set training.memory=200MiB --set training.commit_events=500 "$@"
}
begin $gather
paused() {
    [ "$(metric sluice_trainer_paused)" = "$1" ]
}
wait_for "a pause" paused 1
log_says "the outbox is full (publish.outbox); reading pauses" || fail "the log does not tell of the pause"
# The page follows a moment later: what counts is where it comes to rest.
wait_for "rest" rests 3 'sluice_trainer_events_total{state="received"}'
got=$(events received)
[ "$got" -lt "$total" ] || fail "all was read before the outbox was full"
bytes=$(metric sluice_trainer_outbox_bytes)
[ "$bytes" -lt 2500000 ] || fail "the outbox has $bytes bytes, 1 MiB and one commit are allowed"
sleep 2
expect "events received while paused" "$(events received)" "$got"
check_balance
say "paused at $got of $total events, $bytes bytes in the outbox"

say "killed, and a start with a dead broker"
kill_trainer
"$broker_sh" kill "$work/broker" >/dev/null
begin $gather # returns with the line `started`
wait_for "a pause after the start" paused 1
kill_trainer

say "the broker is back, and everything goes out"
brokers=$("$broker_sh" start "$work/broker")
begin
wait_for "all $total events" received_is "$total"
wait_for "everything acknowledged" nothing_unacknowledged
wait_for "the end of the pause" paused 0
expect "bytes in the outbox" "$(metric sluice_trainer_outbox_bytes)" 0
check_balance
stop_trainer
say "passed"
