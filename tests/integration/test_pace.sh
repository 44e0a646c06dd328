#!/bin/bash
# One partition has hours more to catch up than the others: those wait for it (join.max_skew), so that what waits to be
# joined stays within a bound; killed in the middle it goes on so, also when the broker is killed while partitions wait;
# everything is read and learned, and a replay of the recorded order comes to the same model. What retention takes of a
# partition that waits is missed, not skipped.
source "$(dirname "$0")/lib.sh"

# An impression a second and partition, a click on each fourth. Partition 3 begins 45,000 s before the others.
long=60000 short=15000
backlog() {
    awk -v start="$((began_us / 1000000 - 100000))" -v long=$long -v short=$short 'BEGIN {
        for (i = 0; i < long; i++)
            for (p = i < long - short ? 3 : 0; p < 4; p++) {
                id = p "-" i
                printf "events:%d\t%s\t{\"impression\":{\"id\":\"%s\",\"time_us\":%d000000,\"features\":{\"user\":\"u%d\",\"item\":\"i%d\"}}}\n",
                    p, id, id, start + i, i % 97, i % 31
                if (i % 4 == 0)
                    printf "steps\t%s\t{\"step\":{\"id\":\"c%s\",\"step\":\"click\",\"impression_id\":\"%s\",\"time_us\":%d500000}}\n",
                        id, id, id, start + i
            }
    }'
}
start_broker
create_topics
backlog >"$work/events"
total=$(wc -l <"$work/events")
"$tool" "$brokers" produce <"$work/events" >/dev/null
say "$total events, partition 3 of events has $((long - short)) s more"

# Peaks are looked for all the time that it reads.
peak=0 waited=0
look() {
    local n w
    read -r n w < <(get /metrics | awk '$1 == "sluice_trainer_join_records" { n = $2 }
        $1 == "sluice_trainer_partitions_paused" { w = $2 } END { printf "%d %d\n", n, w }')
    [ "${n:-0}" -le $peak ] || peak=$n
    [ "${w:-0}" -le $waited ] || waited=$w
}
read_past() { # EVENTS
    look
    [ "$(events received)" -ge "$1" ]
}
# So little memory that not all of what waits can be held here, and some is fetched later.
begin() {
    start_trainer --set join.max_skew=10m --set join.max_future=0s --set join.max_behind=0s --set training.memory=160MiB "$@"
}
some_wait() {
    look
    [ "$(metric sluice_trainer_partitions_paused)" -gt 0 ]
}
begin
wait_for "a third of the events" read_past $((total / 3))
kill_trainer
begin
wait_for "partitions that wait" some_wait
"$broker_sh" kill "$work/broker"
start_broker
wait_for "all events" read_past "$total"
expect "received" "$(events received)" "$total"
expect "paused when all is read" "$(metric sluice_trainer_partitions_paused)" 0
[ "$(metric sluice_trainer_partition_pauses_total)" -gt 0 ] || fail "no partition ever waited"
[ $waited -ge 3 ] || fail "only $waited partitions were seen waiting"
# Ten minutes of four partitions and their clicks are 3,000; without waiting it is all that the others have.
[ $peak -gt 0 ] && [ $peak -lt 9000 ] || fail "$peak records waited to be joined"
# Five events a second; the last click of a partition may be some ten seconds older than the last of all, and whether
# event time has passed it depends on which partition was last found idle.
few_wait() {
    [ "$(events waiting)" -lt 300 ]
}
wait_for "the last windows" few_wait
check_balance
for reason in late orphan behind future; do
    expect "dead: $reason" "$(dead $reason)" 0
done
say "$waited partitions waited, at most $peak records waited to be joined"
stop_trainer
live=$("$SLU_BUILD/bin/sluice-store" digest --store "$work/store")
"$SLU_BUILD/bin/sluice-replay" --config "$config" --set "kafka.brokers=$brokers" --set join.max_future=0s --set join.max_behind=0s \
    --set join.max_skew=0s --from-store "$work/store" --json "$work/report.json" >"$work/replay.log" 2>&1 ||
    fail "the replay: $(tail -3 "$work/replay.log")"
expect "digest" "$(sed -n 's/^ *"digest": "\([^"]*\).*/\1/p' "$work/report.json")" "$live"

say "retention while partitions wait"
mv "$work/store" "$work/first-store"
begin
wait_for "partitions that wait" some_wait
received_over_a_few() {
    look
    [ "$(events received)" -gt 2000 ]
}
wait_for "some more events" received_over_a_few # by then all of them were asked for
last=$((short - 1))
"$tool" "$brokers" trim events 0 $last
refused() {
    ! kill -0 "$trainer_pid" 2>/dev/null
}
end=$((SECONDS + patience))
until refused; do
    [ $SECONDS -lt $end ] || fail "events that are gone were skipped without a word"
    sleep 0.2
done
trainer_pid=
# Whether something of it had been used by then depends on which partition came first.
if log_says "topic events partition 0: nothing of it was used yet, and the topic begins at offset $last now (it ends at $short)"; then
    say "what the message says: started again it goes on without them"
    begin
    wait_for "all that is left" received_over "$((total - last - 1))"
    expect "received" "$(events received)" "$((total - last))"
    stop_trainer
else
    log_says "topic events partition 0: the store stands at offset [0-9]*, but the topic holds $last to $short" ||
        fail "the log does not tell what is missing"
fi
say "passed"
