#!/bin/bash
# Wrong clocks against a real broker: one partition whose producer is a year behind (and stamps its messages so), one
# a year ahead, and the trainer's own machine set back and ahead by a year while it runs. The sound partitions are
# learned in time, dead letters say what the clocks said, and the run can be repeated bit for bit by a machine whose
# clock is right.
source "$(dirname "$0")/lib.sh"
year=$((365 * 86400))
# AddressSanitizer's library, in a build that has it, wants to be the first. ThreadSanitizer's waits pass by the false
# clock, so that deadlines worked out from it come a year late.
if ldd "$SLU_BUILD/bin/sluice-trainer" | grep -q libtsan; then
    say "skipped: ThreadSanitizer has the clock's place"
    exit 77
fi
fake="$(ldd "$SLU_BUILD/bin/sluice-trainer" | awk '/libasan/ {print $3}') $SLU_BUILD/tests/libfake_clock.so"

events_at() { # PREFIX COUNT PARTITION SHIFT_SECONDS: impressions of now, by a clock that is off
    local t=$((($(date +%s%N) / 1000) + $4 * 1000000))
    for ((i = 0; i < $2; i++)); do
        printf 'events:%s\tk\t{"impression":{"id":"%s%s","time_us":%s,"features":{"user":"u%s","item":"i%s"}}}\n' \
            "$3" "$1" "$i" $((t + i)) $((i % 7)) $((i % 5))
    done
}
produce_at() { # the same, and stamped by that clock; brokers refuse stamps from the future themselves
    echo $(($4 < 0 ? $4 : 0)) >"$work/producer.clock"
    events_at "$@" | env FAKE_CLOCK="$work/producer.clock" LD_PRELOAD="$fake" "$tool" "$brokers" produce >/dev/null
}
watermark_behind() {
    metric sluice_trainer_watermark_behind_seconds
}

start_broker
create_topics
echo 0 >"$work/trainer.clock"
begin() {
    FAKE_CLOCK=$work/trainer.clock trainer_preload=$fake start_trainer --set kafka.topics=[events] --set join.max_behind=1m \
        --set join.idle_timeout=2s
}
begin
wait_for "partitions" log_says "reading partition.*partition=3"
sound=0 behind=0 ahead=0
round() { # one burst of each: 0 and 1 are sound, 2 a year behind, 3 a year ahead
    produce_at "a$1-" 50 0 0
    produce_at "b$1-" 50 1 0
    produce_at "c$1-" 20 2 -$year
    produce_at "d$1-" 10 3 $year
    sound=$((sound + 100)) behind=$((behind + 20)) ahead=$((ahead + 10))
}
total() {
    received_is $((sound + behind + ahead))
}
for k in 1 2 3 4; do
    round $k
    wait_for "burst $k" total
    sleep 1.5 # event time has to pass, or no window closes
done
produce_at e 50 0 0
produce_at f 50 1 0
sound=$((sound + 100))
wait_for "the last events" total
wait_for "the sound partitions' windows" eval '[ "$(events learned)" -ge 200 ]'
check_balance
expect "dead: future" "$(dead future)" "$ahead"
[ "$(dead behind)" -ge 60 ] || fail "only $(dead behind) of $behind events of the partition behind are dead for it"
[ "$(watermark_behind)" -lt 60 ] || fail "the watermark is $(watermark_behind) s behind"
delay=$(metric 'sluice_trainer_partition_delay_seconds{topic="events",partition="2"}')
[ "$delay" -gt $((year - 60)) ] || fail "partition 2 shows a delay of $delay s"
expect "state of partition 2" "$(metric 'sluice_trainer_partition_state{topic="events",partition="2"}')" 3
log_says "a partition's clock is behind.*topic=events partition=2" || fail "the log does not name the partition"
say "partition 2 is a year behind, 3 a year ahead: watermark $(watermark_behind) s behind"

more() { # 200 sound events, all of them good ones
    local before
    before=$(dead future)
    produce_at "g$1-" 100 0 0
    produce_at "h$1-" 100 1 0
    sound=$((sound + 200))
    wait_for "events while our clock is $1" total
    expect "dead: future, our clock $1" "$(dead future)" "$before"
    check_balance
}
echo -$year >"$work/trainer.clock"
sleep 1
more "set back by a year"
wait_for "word of the step back" log_says "clock is behind what it was"
echo 0 >"$work/trainer.clock"
more "right again"

say "ahead by a year: brokers take no such stamps, so it stops with what it has learned"
echo $year >"$work/trainer.clock"
produce_at "i-" 100 0 0
sound=$((sound + 100))
ended() {
    ! kill -0 "$trainer_pid" 2>/dev/null
}
end=$((SECONDS + patience))
until ended; do
    [ $SECONDS -lt $end ] || fail "the trainer goes on"
    sleep 0.2
done
wait "$trainer_pid" && fail "the trainer ended well"
trainer_pid=
log_says "clock was set ahead" || fail "the log does not tell of the step ahead"
log_says "cannot go on.*clock is far from the broker's: set it" || fail "no remedy"
echo 0 >"$work/trainer.clock"
begin
wait_for "events after the clock was mended" total
more "mended"
wait_for "acknowledged letters" nothing_unacknowledged
stop_trainer

"$tool" "$brokers" read dead-letters >"$work/letters"
grep '^behind' "$work/letters" | grep 'older than its arrival at .*join.max_behind allows 1m' >/dev/null ||
    fail "no letter says how far the partition is behind"
grep '^future' "$work/letters" | grep 'is 36[45]d [0-9]*h ahead of its arrival at .*join.max_future allows 1h' >/dev/null ||
    fail "no letter says how far ahead an event was"

say "again, by a machine whose clock is right"
live=$("$SLU_BUILD/bin/sluice-store" digest --store "$work/store")
"$SLU_BUILD/bin/sluice-replay" --config "$config" --set "kafka.brokers=$brokers" --set kafka.topics=[events] \
    --set join.max_behind=1m --from-store "$work/store" --json "$work/report.json" \
    >"$work/replay.log" 2>&1 || fail "the replay: $(tail -3 "$work/replay.log")"
expect "digest" "$(sed -n 's/^ *"digest": "\([^"]*\).*/\1/p' "$work/report.json")" "$live"
say "passed"
