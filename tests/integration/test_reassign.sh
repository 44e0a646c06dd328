#!/bin/bash
# Partitions move to another broker and back while events flow, those of events as well as that of the deltas: each event
# is used once, and the recorded order rebuilds the model.
source "$(dirname "$0")/lib.sh"
jars=${SLU_KAFKA_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/sluice/kafka}

start_second_broker() {
    local port
    port=$(free_port)
    SLU_BROKER_CONFIG="process.roles=broker
node.id=2
controller.quorum.voters=1@127.0.0.1:$(cat "$work/broker/controller-port")
listeners=PLAINTEXT://127.0.0.1:$port" "$broker_sh" start "$work/broker2" "$port" >"$work/second"
    say "a second broker at $(cat "$work/second")"
}

reassign() { # --execute or --verify
    java -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$jars/*" org.apache.kafka.tools.reassign.ReassignPartitionsCommand \
        --bootstrap-server "$brokers" --reassignment-json-file "$work/moves.json" "$1" >"$work/reassign.log" 2>&1 ||
        fail "$(tail -3 "$work/reassign.log")"
}

all_moved() {
    reassign --verify
    ! grep "still in progress" "$work/reassign.log" >/dev/null && grep "is complete" "$work/reassign.log" >/dev/null
}

# move_all BROKER: all partitions of all topics.
move_all() {
    local topic partition n between=
    printf '{"version":1,"partitions":[' >"$work/moves.json"
    for topic in events:4 steps:4 deltas:1 dead-letters:2; do
        n=${topic#*:}
        for ((partition = 0; partition < n; partition++)); do
            printf '%s{"topic":"%s","partition":%d,"replicas":[%d]}' "$between" "${topic%:*}" "$partition" "$1" >>"$work/moves.json"
            between=,
        done
    done
    echo ']}' >>"$work/moves.json"
    reassign --execute
    wait_for "partitions on broker $1" all_moved
    say "all partitions are on broker $1, $(events received) events so far"
}

some_more() {
    [ "$(events received)" -gt $((before + 300)) ]
}

start_broker
start_second_broker
create_topics
generate 17 12000 "$work/events"
total=$(wc -l <"$work/events")
# The idle timeout is longer than clients take to find a new leader. A loaded machine takes its time.
start_trainer --set join.idle_timeout=10m
"$tool" "$brokers" produce 600 <"$work/events" >/dev/null &
producer_pid=$!
for broker in 2 1; do
    before=$(events received)
    wait_for "events flow" some_more
    move_all "$broker"
done
"$broker_sh" kill "$work/broker2"
wait "$producer_pid" || fail "not all events were produced"
producer_pid=
wait_for "all $total events" received_is "$total"
check_balance
wait_for "acknowledged deltas" nothing_unacknowledged
expect "late" "$(dead late)" 0
expect "dead" "$(events dead)" "$((total - $(sort -u "$work/events" | wc -l)))"
stop_trainer
"$SLU_BUILD/bin/sluice-replay" --config "$config" --set "kafka.brokers=$brokers" --set join.idle_timeout=10m \
    --from-store "$work/store" >"$work/replay.log" 2>&1 || fail "the replay: $(tail -3 "$work/replay.log")"
say "passed"
