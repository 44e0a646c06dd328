#!/bin/bash
# The broker stands still (SIGSTOP: connections stay open, nothing is taken) while the trainer writes a base. The base
# waits half way, within a bound of memory, and is completed when the broker goes on: a scorer that has nothing else to
# begin with reaches the trainer's sums.
source "$(dirname "$0")/lib.sh"

limit_mib=220
scorer_pid=
broker_pid=
finish_all() {
    local status=$?
    set +e
    [ -z "$broker_pid" ] || kill -CONT "$broker_pid" 2>/dev/null
    [ -z "$scorer_pid" ] || kill -KILL "$scorer_pid" 2>/dev/null
    [ $status -eq 0 ] || tail -n 5 "$work/scorer.log" 2>/dev/null | cut -c1-400
    (exit $status)
    finish
}
trap finish_all EXIT

# Rows so wide that a base is some times what may be on its way to the broker.
sed 's/dimension: 4}/dimension: 64}/' "$config" >"$work/config.yaml"
config=$work/config.yaml
grep -q "dimension: 64" "$config" || fail "no dimension in the config"
users=20000
impressions() { # FROM TO: one of each user
    awk -v start="$((began_us / 1000000 - 600))" -v from="$1" -v to="$2" -v users=$users 'BEGIN {
        for (i = from; i < to; i++)
            printf "events\tk%d\t{\"impression\":{\"id\":\"i%d\",\"time_us\":%d%06d,\"features\":{\"user\":\"u%d\",\"item\":\"p%d\",\"price\":3.5}}}\n",
                i, i, start + int(i / 1000), i % 1000 * 1000, i % users, i % 50
    }'
}

start_broker
broker_pid=$(cat "$work/broker/pid")
create_topics
impressions 0 $users | "$tool" "$brokers" produce >/dev/null
start_trainer --set "training.memory=${limit_mib}MiB" --set publish.base_every=4s --set publish.chunk=64KiB

handed() { # bytes of bases that were given to the publisher
    metric 'sluice_published_bytes_total{kind="base"}'
}
complete() { # and those of bases that were complete by then
    sed -n 's/.*msg="published base" bytes=\([0-9]*\).*/\1/p' "$work/trainer.log" | awk '{ n += $1 } END { printf "%d", n }'
}
none_on_its_way() {
    [ "$(handed)" = "$(complete)" ]
}
one_on_its_way() {
    ! none_on_its_way
}
bases() {
    grep -c 'msg="published base"' "$work/trainer.log" || true
}
has_bases() {
    [ "$(bases)" -ge "$1" ]
}
wait_for "all $users events" received_is $users
wait_for "a base of all of them" has_bases $(($(bases) + 2))
largest=$(sed -n 's/.*msg="published base" bytes=\([0-9]*\).*/\1/p' "$work/trainer.log" | sort -n | tail -1)

# Between two bases; should one have begun meanwhile, it is tried again.
tries=0
while :; do
    wait_for "everything acknowledged" nothing_unacknowledged
    wait_for "the end of a base" none_on_its_way
    older=$("$tool" "$brokers" count deltas) # messages of older bases
    before=$(complete)
    kill -STOP "$broker_pid"
    [ "$(handed)" != "$before" ] || [ "$(complete)" != "$before" ] || break
    kill -CONT "$broker_pid"
    tries=$((tries + 1))
    [ $tries -lt 20 ] || fail "there is always a base on its way"
done
n=$(bases)
say "the broker stands still; $n bases of $largest bytes at most are out, $older messages"
wait_for "a base that is on its way" one_on_its_way
wait_for "rest" rests 5 'sluice_published_bytes_total{kind="base"}'
expect "bases that came out of it" "$(bases)" "$n"
waits=$(($(handed) - before))
[ $waits -lt $((largest / 2)) ] || fail "$waits of $largest bytes were given to a broker that takes nothing"
peak=$(awk '/^VmHWM/ { printf "%d", $2 / 1024 }' "/proc/$trainer_pid/status")
sanitizer=$(sed -n 's/^SLU_SANITIZE:STRING=//p' "$SLU_BUILD/CMakeCache.txt") # which takes memory of its own
[ -n "$sanitizer" ] || [ "$peak" -le $limit_mib ] || fail "the trainer took $peak MiB, the limit is $limit_mib MiB"
say "$waits bytes of the base are on their way and it waits; the trainer's peak is $peak of $limit_mib MiB"

kill -CONT "$broker_pid"
say "the broker goes on, and more events come"
impressions $users $((users + 3000)) | "$tool" "$brokers" produce >/dev/null
wait_for "the base" has_bases $((n + 1))
took=$(sed -n 's/.*msg="published base" .* seconds=\([0-9]*\).*/\1/p' "$work/trainer.log" | sed -n "$((n + 1))p")
[ "$took" -ge 5 ] || fail "the base that waited took $took s: it is another one"
log_says "the base is begun again" && fail "the base was not completed but begun again"
wait_for "the other events" received_is $((users + 3000))
wait_for "everything acknowledged" nothing_unacknowledged
check_balance
stop_trainer

say "a scorer that has nothing but that base and what came behind it"
"$tool" "$brokers" trim deltas 0 "$older"
"$SLU_BUILD/bin/sluice-scorer" --config "$config" --set "kafka.brokers=$brokers" --set "serving.store=$work/scorer" \
    --set "serving.listen=127.0.0.1:0" --set "admin.scorer=127.0.0.1:0" >"$work/scorer.log" 2>&1 &
scorer_pid=$!
listening() {
    kill -0 "$scorer_pid" || fail "the scorer ended at its start"
    line=$(grep 'component=scorer msg=listening' "$work/scorer.log")
}
wait_for "the scorer" listening
admin=127.0.0.1:$(sed 's/.* admin_port=\([0-9]*\).*/\1/' <<<"$line")
stored() { # NAME: of the trainer's model
    "$SLU_BUILD/bin/sluice-store" sum --store "$work/store" | sed -n "s/^$1  *//p"
}
served() { # NAME: of the scorer's
    get /digest | tr ' ' '\n' | sed -n "s/^$1=//p"
}
version=$(stored version)
at_version() {
    [ "$(served version)" = "$version" ]
}
wait_for "version $version" at_version
expect "rows" "$(served rows)" "$(stored rows)"
expect "sum of rows" "$(served row_sum)" "$(stored 'row sum')"
expect "dense parameters" "$(served dense_digest)" "$(stored 'dense digest')"
[ "$(served rows)" -ge $users ] || fail "the scorer has $(served rows) rows of $users users"
say "version $version, $(served rows) rows, sum $(served row_sum)"
kill -TERM "$scorer_pid"
wait "$scorer_pid" || fail "the scorer ended with status $? on SIGTERM"
scorer_pid=
say "passed"
