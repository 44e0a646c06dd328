#!/bin/bash
# A scorer with little serving.memory: bases and deltas of a model that outgrows it stream in while clients ask and never
# read. The process stays within a tenth of the limit, refuses what does not fit, and serves.
source "$(dirname "$0")/lib.sh"

limit_mib=450
connections=40
scorer_pid=
feeder_pid=
deaf_pid=
config=$SLU_SOURCE/examples/ads.yaml

finish_all() {
    local status=$?
    trap - EXIT
    set +e
    for pid in $deaf_pid $feeder_pid $scorer_pid; do
        kill -KILL "$pid" 2>/dev/null
    done
    [ $status -eq 0 ] || tail -n 8 "$work/scorer.log" | cut -c1-400
    "$broker_sh" kill "$work/broker" >/dev/null 2>&1
    [ $status -ne 0 ] || rm -rf "$work"
    exit $status
}
trap finish_all EXIT

start_broker
topic=$("$SLU_BUILD/bin/sluice-scorer" --config "$config" --dump-config | sed -n 's/^ *delta_topic: *//p' | tr -d '"')
"$tool" "$brokers" create "$topic" 1

"$SLU_BUILD/bin/sluice-scorer" --config "$config" --set "kafka.brokers=$brokers" --set "serving.store=$work/store" \
    --set "serving.listen=127.0.0.1:0" --set "admin.scorer=127.0.0.1:0" --set "serving.memory=${limit_mib}MiB" \
    --set "serving.max_request=256KiB" --set "serving.max_connections=64" --set "store.sync=false" >"$work/scorer.log" 2>&1 &
scorer_pid=$!
listening() {
    kill -0 "$scorer_pid" || fail "the scorer ended at its start"
    line=$(grep 'component=scorer msg=listening' "$work/scorer.log")
}
wait_for "the scorer" listening
port=$(sed 's/.* port=\([0-9]*\).*/\1/' <<<"$line")
admin=127.0.0.1:$(sed 's/.* admin_port=\([0-9]*\).*/\1/' <<<"$line")

mkfifo "$work/commands"
"$SLU_BUILD/tests/score_feeder" "$config" "$brokers" <"$work/commands" >"$work/feeder.out" &
feeder_pid=$!
exec 8>"$work/commands"
published=0
publish() { # base|delta ROWS: and waits until it is in the topic
    published=$((published + 1))
    echo "$1 $2" >&8
    wait_for "version $published in the topic" grep -qx "version=$published" "$work/feeder.out"
}
serves() {
    [ "$(metric sluice_scorer_version)" = "$1" ]
}
peak_mib() {
    awk '/^VmHWM/ { printf "%d", $2 / 1024 }' "/proc/$scorer_pid/status"
}

publish base 2000
wait_for "the first model" serves 1
python3 "$(dirname "$0")/deaf_clients.py" "$port" "$connections" 10000 &
deaf_pid=$!
say "the model grows by deltas until it does not fit"
refused() {
    metric sluice_scorer_refused_total
}
applied() {
    serves "$published" || [ "$(refused)" != 0 ]
}
rounds=0
while [ "$(refused)" = 0 ]; do
    publish delta 16000
    wait_for "version $published to be taken or refused" applied
    rounds=$((rounds + 1))
    [ $rounds -lt 200 ] || fail "$rounds deltas and nothing was refused: $(metric sluice_scorer_model_bytes) bytes"
done
say "refused after $rounds deltas: rows=$(metric sluice_scorer_rows) model=$(($(metric sluice_scorer_model_bytes) >> 20)) MiB, peak=$(peak_mib) MiB of $limit_mib"
kill -0 "$scorer_pid" || fail "the scorer ended"
grep -q "the model needs more than" "$work/scorer.log" || fail "no word about the limit"
say "a base that does not fit beside the model that serves, and bases that do"
publish base 150000
publish base 1000
wait_for "a base that fits" serves "$published"
for _ in 1 2 3; do
    publish delta 4000
    publish base 20000
done
wait_for "the last base" serves "$published"
kill -0 "$deaf_pid" || fail "the deaf clients have ended"
held=$(metric 'sluice_grpc_refused_total{reason="memory"}')
say "peak=$(peak_mib) MiB of $limit_mib; calls refused for memory: ${held:-0}; connections made: $(metric sluice_grpc_connections_total)"
[ "${SLU_TEST_MEMORY:-judge}" = tell ] || [ "$(peak_mib)" -le $((limit_mib * 11 / 10)) ] || fail "the process took $(peak_mib) MiB, the limit is $limit_mib"
kill "$deaf_pid"
deaf_pid=
"$SLU_BUILD/bin/sluice-sim" ask --config "$config" --to "127.0.0.1:$port" --requests 20 --load >/dev/null || fail "no answers"
say "passed"
