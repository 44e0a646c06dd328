# Sourced by the integration tests: a broker and trainers of their own, metrics, waiting.
#
# SLU_BUILD and SLU_SOURCE come from CTest. Everything a test writes is below $work, which is kept for a look after
# a failure. SLU_SKIP_KAFKA=1 skips these tests (exit 77).
set -euo pipefail

if [ "${SLU_SKIP_KAFKA:-}" = 1 ]; then
    echo "skipped: SLU_SKIP_KAFKA=1, so there is no Kafka broker to test against"
    exit 77
fi
: "${SLU_BUILD:?set SLU_BUILD to the build folder}" "${SLU_SOURCE:?set SLU_SOURCE to the source folder}"

name=$(basename "$0" .sh)
work=$SLU_BUILD/tests/work/$name
tool=$SLU_BUILD/tests/kafka_tool
trainer=$SLU_BUILD/bin/sluice-trainer
config=$SLU_SOURCE/tests/integration/trainer.yaml
broker_sh=$SLU_SOURCE/deploy/broker/broker.sh
patience=${SLU_TEST_PATIENCE:-120} # seconds that a condition may take on a loaded machine
trainer_pid=
producer_pid=
admin=

rm -rf "$work"
mkdir -p "$work"

fail() {
    echo "FAILED: $*"
    echo "--- last lines of $work/trainer.log"
    tail -15 "$work/trainer.log" 2>/dev/null | cut -c1-500
    exit 1
}

say() {
    echo "[$(date +%T)] $*"
}

finish() {
    local status=$? folder
    [ -z "$producer_pid" ] || kill "$producer_pid" 2>/dev/null || true
    [ -z "$trainer_pid" ] || kill -KILL "$trainer_pid" 2>/dev/null || true
    for folder in "$work"/broker*; do # some tests have two
        "$broker_sh" kill "$folder" >/dev/null 2>&1 || true
    done
    [ $status -ne 0 ] || rm -rf "$work"
    exit $status
}
trap finish EXIT

# ---- broker and topics

start_broker() {
    brokers=$("$broker_sh" start "$work/broker" "$@")
    say "broker at $brokers"
}

# A port that nobody listens on, below the range of outgoing connections.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000))
        if ! (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return
        fi
    done
}

create_topics() {
    "$tool" "$brokers" create events 4
    "$tool" "$brokers" create steps 4
    "$tool" "$brokers" create deltas 1
    "$tool" "$brokers" create dead-letters 2
}

# ---- trainer

run_trainer() {
    "$trainer" --config "$config" --set "kafka.brokers=$brokers" --set "store.path=$work/store" "$@"
}

# Starts it in the background and waits for its first line; $admin is its page.
start_trainer() {
    local lines
    touch "$work/trainer.log"
    lines=$(wc -l <"$work/trainer.log")
    env LD_PRELOAD="${trainer_preload:-}" "$trainer" --config "$config" --set "kafka.brokers=$brokers" \
        --set "store.path=$work/store" "$@" \
        >>"$work/trainer.log" 2>&1 & # not run_trainer: $! has to be the trainer itself
    trainer_pid=$!
    local end=$((SECONDS + patience))
    local ended=
    while ! admin=$(tail -n +$((lines + 1)) "$work/trainer.log" | grep -o 'msg=started.* admin=[^ ]*' | sed 's/.*admin=//'); do
        [ -z "$ended" ] || fail "the trainer ended at its start"
        [ $SECONDS -lt $end ] || fail "the trainer did not start"
        kill -0 "$trainer_pid" 2>/dev/null || ended=1 # perhaps after its first line: look once more
        sleep 0.1
    done
}

kill_trainer() {
    kill -KILL "$trainer_pid"
    wait "$trainer_pid" 2>/dev/null || true
    trainer_pid=
}

# SIGTERM; fails unless it exits 0.
stop_trainer() {
    local status=0 end=$((SECONDS + patience))
    kill -TERM "$trainer_pid"
    while kill -0 "$trainer_pid" 2>/dev/null; do
        [ $SECONDS -lt $end ] || fail "the trainer did not end within $patience s of SIGTERM"
        sleep 0.1
    done
    wait "$trainer_pid" || status=$?
    trainer_pid=
    [ $status -eq 0 ] || fail "the trainer ended with status $status on SIGTERM"
}

# GET of the admin page, body only. Plain bash, so that nothing needs to be installed.
get() {
    local host=${admin%:*} port=${admin##*:}
    (
        exec 3<>"/dev/tcp/$host/$port"
        printf 'GET %s HTTP/1.0\r\nHost: %s\r\n\r\n' "$1" "$host" >&3
        cat <&3
    ) 2>/dev/null | tr -d '\r' | sed '1,/^$/d'
}

# Value of one metric with its labels, as a whole number; empty when there is none.
metric() {
    get /metrics | awk -v name="$1" '$1 == name { printf "%.0f", $2 }'
}

events() {
    metric "sluice_trainer_events_total{state=\"$1\"}"
}

dead() {
    metric "sluice_trainer_dead_letters_total{reason=\"$1\"}"
}

# received = learned + waiting + dead, in one reading of the page.
check_balance() {
    get /metrics | awk -F'[" ]' '
        /^sluice_trainer_events_total/ { n[$2] = $NF }
        END {
            printf "received %d = learned %d + waiting %d + dead %d\n", n["received"], n["learned"], n["waiting"], n["dead"]
            exit !(n["received"] > 0 && n["received"] == n["learned"] + n["waiting"] + n["dead"])
        }' || fail "the counters of events do not balance"
}

# wait_for WHAT COMMAND...: until the command succeeds.
wait_for() {
    local what=$1 end=$((SECONDS + patience))
    shift
    until "$@"; do
        [ -z "$trainer_pid" ] || kill -0 "$trainer_pid" 2>/dev/null || fail "the trainer ended while waiting for: $what"
        [ $SECONDS -lt $end ] || fail "waited $patience s for: $what"
        sleep 0.2
    done
}

received_is() {
    [ "$(events received)" = "$1" ]
}

received_over() {
    [ "$(events received)" -gt "$1" ] 2>/dev/null
}

# For wait_for: a metric has been the same for so many seconds.
rests() { # SECONDS METRIC
    local before now second
    before=$(metric "$2")
    for ((second = 0; second < $1; second++)); do
        sleep 1
        now=$(metric "$2")
        [ -n "$now" ] && [ "$now" = "$before" ] || return 1
    done
}

nothing_unacknowledged() {
    [ "$(metric sluice_trainer_outbox)" = 0 ]
}

log_says() {
    grep -q -- "$1" "$work/trainer.log"
}

expect() { # WHAT ACTUAL EXPECTED
    [ "$2" = "$3" ] || fail "$1: $2, expected $3"
}

# ---- events

now_us() {
    echo $(($(date +%s) * 1000000))
}

# generate SEED IMPRESSIONS FILE [SECOND]: a thousand impressions take one second of event time, from SECOND on.
began_us=$(now_us)
generate() {
    "$tool" - generate "$1" "$2" "$((began_us - 600000000 + ${4:-0} * 1000000))" >"$3"
}
