#!/bin/bash
# The trainer end to end: four partitions a topic, duplicates and disorder; counters, deltas, offsets for lag tools,
# a clean stop, a restart that goes on, partitions that are added later.
source "$(dirname "$0")/lib.sh"

start_broker
create_topics
generate 1 8000 "$work/first"
"$tool" "$brokers" produce <"$work/first" >/dev/null
total=$(wc -l <"$work/first")
doubled=$((total - $(sort -u "$work/first" | wc -l)))

run_trainer --check || fail "--check refuses a good configuration"

start_trainer
wait_for "all $total events" received_is "$total"
wait_for "acknowledged deltas" nothing_unacknowledged
check_balance
expect "duplicates" "$(dead duplicate)" "$doubled"
wait_for "a sample for each impression" eval '[ "$(metric sluice_trainer_samples_total)" -ge 8000 ]'
wait_for "base and delta in the delta topic" eval '[ "$("$tool" "$brokers" count deltas)" -ge 2 ]'
wait_for "readiness" eval '[ "$(get /readyz)" = ready ]'
page=$(get /)
[[ $page == *"<td>click<td>"* ]] || fail "the status page has no row for the task click"
reported() {
    [ $(($("$tool" "$brokers" committed sluice-integration events) + $("$tool" "$brokers" committed sluice-integration steps))) = "$total" ]
}
wait_for "offsets in the group" reported
stop_trainer
log_says "msg=stopped" || fail "no line about the stop"
expect "dead letters in the topic" "$("$tool" "$brokers" count dead-letters)" "$doubled"
version=$(grep -o 'msg=stopped version=[0-9]*' "$work/trainer.log" | tail -1 | grep -o '[0-9]*$')

say "restart: goes on from version $version"
start_trainer
log_says "msg=started.* version=$version received=$total " || fail "the restart is not at version $version"
generate 2 2000 "$work/second" 20
"$tool" "$brokers" produce <"$work/second" >/dev/null
total=$((total + $(wc -l <"$work/second")))
wait_for "all $total events" received_is "$total"
check_balance

say "more partitions"
"$tool" "$brokers" grow events 6
generate 3 2000 "$work/third" 40
"$tool" "$brokers" produce <"$work/third" >/dev/null
total=$((total + $(wc -l <"$work/third")))
wait_for "all $total events" received_is "$total"
expect "partitions read" "$(metric sluice_trainer_partitions)" 10
check_balance
stop_trainer
say "passed"
