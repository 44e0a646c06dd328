#!/bin/bash
# The broker is killed and started again while events arrive: the trainer stays, and each event is counted once.
source "$(dirname "$0")/lib.sh"

start_broker
create_topics
generate 9 12000 "$work/events"
total=$(wc -l <"$work/events")
# The idle timeout is longer than producers take to connect again, as a real one should be. A loaded machine takes its time.
start_trainer --set join.idle_timeout=10m
"$tool" "$brokers" produce 2000 <"$work/events" >/dev/null &
producer_pid=$!
wait_for "some events" received_over 2000

for _ in 1 2; do
    "$broker_sh" kill "$work/broker"
    say "broker killed at $(events received) events"
    sleep 1
    kill -0 "$trainer_pid" || fail "the trainer ended when the broker did"
    start_broker
done
wait "$producer_pid" || fail "not all events were produced"
producer_pid=
wait_for "all $total events" received_is "$total"
check_balance
wait_for "acknowledged deltas" nothing_unacknowledged
log_says "trouble with Kafka; trying again" || fail "no line about the trouble"
expect "received" "$(events received)" "$total"
# An outage is not silence: the watermark has waited for every partition's backlog.
expect "late" "$(dead late)" 0
expect "dead" "$(events dead)" "$((total - $(sort -u "$work/events" | wc -l)))"

say "SIGTERM while the broker is away: the state is committed, exit 0"
"$broker_sh" kill "$work/broker"
stop_trainer
start_broker
start_trainer
log_says "msg=started.* received=$total " || fail "the restart has another count"
stop_trainer
say "passed"
