#!/bin/bash
# What cannot be used becomes a dead letter with its reason; nothing crashes, nothing vanishes.
source "$(dirname "$0")/lib.sh"

start_broker
create_topics
now=$(now_us)
line() { # TOPIC VALUE
    printf '%s\tk\t%s\n' "$1" "$2"
}
impression() { # ID TIME_US [FEATURES]
    line events "{\"impression\":{\"id\":\"$1\",\"time_us\":$2,\"features\":{${3:-}}}}"
}
step() { # ID STEP IMPRESSION TIME_US
    line steps "{\"step\":{\"id\":\"$1\",\"step\":\"$2\",\"impression_id\":\"$3\",\"time_us\":$4}}"
}
{
    line events 'not json'
    line events ''
    line events '{"impression":{"id":"cut","time_us":1'
    line events '{"impression":{"time_us":'"$now"',"features":{}}}'
    line events '{"impression":{"id":"bad-utf8-'$'\xff\xfe''","time_us":'"$now"',"features":{}}}'
    impression negative -5
    impression unknown "$now" '"colour":"red"'
    step s1 refund good "$now"
    impression future $((now + 86400000000))
    impression good "$now" '"user":"u","item":"i","price":2'
    impression good "$now" '"user":"u","item":"i","price":2'
    step c1 click good $((now + 500000))
    step c2 click good $((now + 600000))
    step c3 conversion nobody $((now + 600000))
    step c4 conversion good $((now + 1900000))
    impression good2 "$now" '"user":"u","item":"i","price":2'
    step c5 click good2 $((now + 1500000))
    printf 'events\tk\t{"impression":{"id":"big","time_us":%s,"features":{"user":"%s"}}}\n' "$now" "$(head -c 10485760 /dev/zero | tr '\0' x)"
    # Time goes on for both topics, so that windows close.
    for i in $(seq 40); do
        impression "later$i" $((now + 3000000 + i * 1000000)) '"user":"u","item":"i"'
        step "late$i" click "later$i" $((now + 3000000 + i * 1000000))
    done
} >"$work/events"
"$tool" "$brokers" produce <"$work/events" >/dev/null
total=$(wc -l <"$work/events")

start_trainer
wait_for "all $total events" received_is "$total"
orphan_is_dead() {
    [ "$(dead orphan)" = 1 ]
}
wait_for "the orphan" orphan_is_dead
check_balance
while read -r reason n; do
    expect "dead: $reason" "$(dead "$reason")" "$n"
done <<EOF
malformed 6
too_large 1
unknown_feature 1
unknown_step 1
future 1
duplicate 1
repeated 1
outside_window 1
orphan 1
late 0
EOF
wait_for "acknowledged letters" nothing_unacknowledged
stop_trainer
"$tool" "$brokers" read dead-letters >"$work/letters"
expect "letters in the topic" "$(wc -l <"$work/letters")" 14
for reason in malformed too_large unknown_feature unknown_step future duplicate repeated outside_window orphan; do
    grep -q "^$reason	{\"reason\":\"$reason\",\"message\":\"" "$work/letters" || fail "no letter with reason $reason"
done
grep "^unknown_feature" "$work/letters" | grep "colour.*unknown_features: ignore" >/dev/null || fail "the unknown feature and its remedy are not named"
grep "^too_large" "$work/letters" | grep '"truncated":true' >/dev/null || fail "the large payload is not cut"
[ "$(wc -L <"$work/letters")" -lt 200000 ] || fail "a letter is very long"

say "the same bytes read as protobuf, letters into a file"
rm -rf "$work/store"
start_trainer --set kafka.encoding=protobuf --set kafka.dead_letter_topic=
wait_for "all $total events" received_is "$total"
check_balance
expect "dead" "$(events dead)" "$total"
stop_trainer
expect "lines in the file" "$(wc -l <"$work/store/dead-letters.jsonl")" "$total"
say "passed"
