#!/bin/bash
# SIGKILL of the trainer in the middle, again and again, while events arrive: each event is counted exactly once.
source "$(dirname "$0")/lib.sh"

start_broker
create_topics
generate 7 20000 "$work/events"
total=$(wc -l <"$work/events")
doubled=$((total - $(sort -u "$work/events" | wc -l)))
"$tool" "$brokers" produce 3000 <"$work/events" >/dev/null & # about nine seconds
producer_pid=$!

for pause in 0.3 1.1 0.05 0.7 0.0 1.5 0.4 0.9; do
    start_trainer
    sleep "$pause"
    kill_trainer
    say "killed after $pause s"
done
start_trainer
wait "$producer_pid" || fail "not all events were produced"
producer_pid=
wait_for "all $total events" received_is "$total"
check_balance
expect "duplicates" "$(dead duplicate)" "$doubled"
wait_for "rest" rests 3 sluice_trainer_version # longer than join.idle_timeout; nothing more may come
expect "received" "$(events received)" "$total"
wait_for "acknowledged deltas" nothing_unacknowledged
stop_trainer
# A letter may be sent twice by a crash, but none may be missing: sequences tell.
unique=$("$tool" "$brokers" read dead-letters | sort -u | wc -l)
expect "different dead letters in the topic" "$unique" "$doubled"
say "passed"
