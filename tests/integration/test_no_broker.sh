#!/bin/bash
# A broker that is not there: a clear message, attempts that go on, and --check that ends.
source "$(dirname "$0")/lib.sh"

port=$(free_port)
brokers=127.0.0.1:$port

say "--check"
began=$SECONDS
if run_trainer --check >"$work/check.log" 2>&1; then
    fail "--check succeeds without a broker"
fi
[ $((SECONDS - began)) -le 30 ] || fail "--check took $((SECONDS - began)) s"
grep -q "no Kafka broker answered at $brokers .*start the broker or set kafka.brokers" "$work/check.log" ||
    fail "--check does not name broker and remedy: $(cat "$work/check.log")"

say "wrong settings"
if run_trainer --check --set kafka.rdkafka.no.such.thing=1 >"$work/check.log" 2>&1; then
    fail "an unknown rdkafka property is accepted"
fi
grep -q "no.such.thing" "$work/check.log" || fail "the unknown property is not named: $(cat "$work/check.log")"
if run_trainer --check --set kafka.rdkafka.enable.auto.commit=true >"$work/check.log" 2>&1; then
    fail "a reserved rdkafka property is accepted"
fi
grep -q "enable.auto.commit.*committed with the model" "$work/check.log" ||
    fail "the reserved property is not explained: $(cat "$work/check.log")"
if run_trainer --set training.label_policy=oracle >"$work/check.log" 2>&1; then
    fail "label_policy oracle is accepted"
fi
grep -q "only sluice-replay" "$work/check.log" || fail "oracle is not explained: $(cat "$work/check.log")"

say "start without a broker"
start_trainer
wait_for "a line that names the broker" log_says "trouble with Kafka; trying again.*$brokers"
get /readyz | grep "no partition is read yet" >/dev/null || fail "/readyz does not say why: $(get /readyz)"
sleep 2
kill -0 "$trainer_pid" || fail "the trainer gave up"

say "the broker comes, the topics later"
start_broker "$port"
wait_for "a line that names the missing topic" log_says "topic does not exist yet.*events"
"$tool" "$brokers" create events 4 # the trainer's own topics are made by the broker on first use
"$tool" "$brokers" create steps 4
generate 4 1000 "$work/events"
"$tool" "$brokers" produce <"$work/events" >/dev/null
wait_for "all events" received_is "$(wc -l <"$work/events")"
check_balance
stop_trainer

say "retention took events that were not read: refused with the remedy"
generate 5 1000 "$work/more" 20
"$tool" "$brokers" produce <"$work/more" >/dev/null
lost=$("$tool" "$brokers" read steps | wc -l)
[ "$lost" -gt 0 ] || fail "no steps to lose"
for partition in 0 1 2 3; do
    "$tool" "$brokers" trim steps $partition -1
done
if run_trainer >>"$work/trainer.log" 2>&1; then
    fail "lost events were skipped silently"
fi
log_says "topic steps partition .*lost by retention.*empty store.path" || fail "the loss is not explained"
say "passed"
