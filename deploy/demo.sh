#!/usr/bin/env bash
# The whole path at work: broker, events, trainer, scorer, a client that asks; `make demo` builds and runs it.
#   DATA=DIR          recorded events (examples/storefront.yaml) instead of the simulated exchange
#   BROKERS=host:port a Kafka of yours instead of the development broker; topics of this run's own are made there
#   KILL=1            kill -9 the trainer midway and start it again
#   SECONDS_RUN=55    how long events are sent; IMPRESSIONS=1000000 ends it earlier; SEED=1; KEEP=1 keeps the folder
# Exit status 0 only if every process stayed healthy, the events balance, the scores are what they should be and all
# stopped cleanly. On failure: the last lines of every log, and where they are.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=${BUILD:-build}/bin
seconds=${SECONDS_RUN:-55}
seed=${SEED:-1}
impressions=${IMPRESSIONS:-1000000}
data=${DATA:-}
dir=$(mktemp -d "${TMPDIR:-/tmp}/sluice-demo.XXXXXX")
began=$SECONDS
declare -A pids=()
failures=()

# ---- life and death ----

cleanup() {
    local status=$?
    trap - EXIT
    for name in "${!pids[@]}"; do kill -TERM "${pids[$name]}" 2>/dev/null || true; done
    for _ in $(seq 30); do
        local alive=0
        for name in "${!pids[@]}"; do kill -0 "${pids[$name]}" 2>/dev/null && alive=1; done
        [ $alive = 0 ] && break
        sleep .1
    done
    for name in "${!pids[@]}"; do kill -KILL "${pids[$name]}" 2>/dev/null || true; done
    if [ $status != 0 ]; then
        for log in "$dir"/*.log; do
            [ -s "$log" ] && echo && echo "--- the end of $log" && tail -n 12 "$log"
        done
        echo
        echo "demo: FAILED. Logs and stores are kept in $dir"
    elif [ -n "${KEEP:-}" ]; then
        echo "kept: $dir"
    else
        rm -rf "$dir"
    fi
    exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM

die() {
    echo "demo: $*" >&2
    exit 1
}

start() { # NAME COMMAND...
    local name=$1
    shift
    "$@" >>"$dir/$name.out" 2>>"$dir/$name.log" &
    pids[$name]=$!
}

alive() {
    kill -0 "${pids[$1]}" 2>/dev/null
}

# Waits up to SECONDS until COMMAND succeeds, while the process NAME lives.
await() { # NAME SECONDS WHAT COMMAND...
    local name=$1 tries=$(($2 * 10)) what=$3
    shift 3
    for ((; tries > 0; tries--)); do
        "$@" && return 0
        alive "$name" || die "$name has stopped while waiting for $what"
        sleep .1
    done
    die "$name: no $what in time"
}

# TERM, and the exit status; 0 is what a daemon owes us.
stop() { # NAME
    local status=0
    kill -TERM "${pids[$1]}" 2>/dev/null || true
    wait "${pids[$1]}" || status=$?
    unset "pids[$1]"
    [ $status = 0 ] || failures+=("$1 did not stop cleanly: exit status $status")
}

# ---- looking ----

trainer_metrics=
read_trainer() {
    trainer_metrics=$(curl -s --max-time 2 "http://$trainer_admin/metrics" || true)
}

metric() { # NAME [LABELS]: its value, or nan
    awk -v want="$1${2:+{$2\}}" '{ v = $NF; sub(/ [^ ]*$/, ""); if ($0 == want) { print v; found = 1; exit } }
        END { if (!found) print "nan" }' <<<"$trainer_metrics"
}

events() {
    metric sluice_trainer_events_total "state=\"$1\""
}

logged() { # LOG KEY: the newest value of KEY
    grep -o " $2=[^ ]*" "$dir/$1.log" 2>/dev/null | tail -n 1 | cut -d= -f2 || true
}

value() { # FILE KEY
    sed -n "s/^$2=//p" "$dir/$1" 2>/dev/null
}

word() { # FILE KEY: from a line of key=value words
    tr ' ' '\n' <"$dir/$1" | sed -n "s/^$2=//p" | tail -n 1
}

holds() { # awk expression
    awk "BEGIN { exit !($1) }"
}

number() { # FORMAT EXPRESSION
    awk "BEGIN { printf \"$1\", $2 }"
}

# ---- the parts ----

if [ -n "$data" ]; then
    config=examples/storefront.yaml
    # Recorded time passes thousands of times faster than the clock on the wall; batches by age keep event time.
    # This model grows past the 5 MiB that the development broker keeps of a topic, so a base could not be read whole:
    # the scorer lives by deltas after a first, small base. The kill comes while a base still fits.
    compression=(--set publish.base_every=1h --set publish.base_every_bytes=1GiB)
    kill_at=8
    steps=(click cart purchase)
    [ -d "$data" ] || die "DATA=$data is not a folder"
else
    config=examples/ads.yaml
    # Twelve days of world time pass in a minute, so a batch of a few hundred samples spans minutes of event time.
    # The broker keeps 5 MiB: a base must always be within them.
    compression=(--set training.max_batch_delay=10m --set publish.base_every_bytes=1MiB)
    kill_at=$((seconds * 2 / 5))
    steps=(click conversion)
fi

run_id=$$-$(date +%s)
sets=(--set "store.path=$dir/trainer" --set "serving.store=$dir/scorer" --set admin.trainer=127.0.0.1:0
      --set admin.scorer=127.0.0.1:0 --set serving.listen=127.0.0.1:0
      # Fresh at this speed: quick commits, and a short leash for the sender (--outstanding below).
      --set training.commit_every=150ms
      "${compression[@]}")

start_trainer() {
    start trainer "$bin/sluice-trainer" --config $config "${sets[@]}"
    local before_start=${1:-0}
    trainer_started() { [ "$(grep -c 'msg=started' "$dir/trainer.log")" -gt "$before_start" ]; }
    await trainer 20 "start" trainer_started
    trainer_admin=$(logged trainer admin)
}

start_broker() {
    if [ -n "${BROKERS:-}" ]; then
        local prefix=sluice-demo.$run_id topics
        topics=$prefix.impressions
        for step in "${steps[@]}"; do [ -n "$data" ] || topics+=", $prefix.$step"; done
        sets+=(--set "kafka.brokers=$BROKERS" --set "kafka.group=$prefix" --set "kafka.topics=[$topics]"
               --set "kafka.delta_topic=$prefix.deltas" --set "kafka.dead_letter_topic=$prefix.dead-letters")
        "$bin/sluice-sim" topics --config $config "${sets[@]}" >"$dir/topics.out" 2>"$dir/topics.log" ||
            die "no topics at $BROKERS"
        return
    fi
    start broker "$bin/sluice-sim" broker --config $config
    await broker 10 "address" test -s "$dir/broker.out"
    sets+=(--set "kafka.brokers=$(head -n 1 "$dir/broker.out")")
}

start_scorer() {
    start scorer "$bin/sluice-scorer" --config $config "${sets[@]}"
    await scorer 20 "port" grep -qs 'msg=listening' "$dir/scorer.log"
    scorer_at=127.0.0.1:$(logged scorer port)
    scorer_admin=127.0.0.1:$(logged scorer admin_port)
}

start_events() {
    if [ -n "$data" ]; then
        start events "$bin/sluice-sim" pump --config $config "${sets[@]}" --data "$data" --for "${seconds}s" --outstanding 4000
    else
        start events "$bin/sluice-sim" produce --config $config "${sets[@]}" --impressions "$impressions" \
            --seed "$seed" --for "${seconds}s" --outstanding 4000
    fi
}

start_client() {
    start client "$bin/sluice-sim" ask --config $config "${sets[@]}" --to "$scorer_at" --load --rate 20 --for 600s \
        --wait 30s --candidates 50 --values "$dir/load.values" ${data:+--data "$data"} --seed "$seed"
}

# ---- progress ----

last_samples=0
last_time=0
progress() {
    read_trainer
    [ -n "$trainer_metrics" ] || return 0
    local samples now line=
    samples=$(metric sluice_trainer_samples_total)
    now=$(date +%s.%N)
    for i in "${!steps[@]}"; do
        local label="task=\"${steps[$i]}\",space=\"impression\""
        line+=$(printf '  %s %.3f %.4f %.2f' "${steps[$i]}" "$(metric sluice_trainer_auc "$label")" \
            "$(metric sluice_trainer_logloss "$label")" "$(metric sluice_trainer_calibration "$label")" | sed 's/nan nan nan/-/')
    done
    printf '%3ds %8.0f %8.0f %7.0f/s %6.0f  %5.2fs %s\n' $((SECONDS - began)) "$(events received)" "$samples" \
        "$(number %f "$last_time ? ($samples - $last_samples) / ($now - $last_time) : 0")" \
        "$(metric sluice_trainer_lag)" "$(freshness)" "$line"
    last_samples=$samples
    last_time=$now
}

freshness() {
    curl -s --max-time 2 "http://$scorer_admin/metrics" | awk '$1 == "sluice_scorer_freshness_seconds" { print $2; f = 1 }
        END { if (!f) print "nan" }'
}

scorer_version() {
    curl -s --max-time 2 "http://$scorer_admin/metrics" | awk '$1 == "sluice_scorer_version" { print $2 }'
}

kill_trainer() {
    printf '%3ds kill -9 trainer, and start it again\n' $((SECONDS - began))
    kill -KILL "${pids[trainer]}"
    wait "${pids[trainer]}" 2>/dev/null || true
    start_trainer "$(grep -c 'msg=started' "$dir/trainer.log")"
    last_time=0
}

# ---- the run ----

start_broker
start_trainer
start_scorer
start_events
start_client
echo "sluice demo: $config, ${data:+recorded events of $data, }${BROKERS:+broker $BROKERS, }logs in $dir"
echo "trainer http://$trainer_admin  scorer grpc $scorer_at, http://$scorer_admin"
echo
echo "time   events  samples  samples    lag  freshness  per task: progressive AUC, log loss, predicted/observed"
killed=${KILL:+no}
while alive events; do
    sleep 2
    for name in trainer scorer client; do alive $name || die "$name has stopped"; done
    progress
    if [ "${killed:-}" = no ] && [ $((SECONDS - began)) -ge $kill_at ]; then
        kill_trainer
        killed=yes
    fi
done
wait "${pids[events]}" || die "the events could not all be sent"
unset 'pids[events]'
sent=$(word events.out sent)
world_time=$(word events.out world_time)

all_received() {
    read_trainer
    [ "$(events received)" = "$sent" ]
}
scorer_caught_up() {
    read_trainer
    [ "$(scorer_version)" = "$(metric sluice_trainer_version)" ]
}
await trainer 15 "receipt of all $sent events" all_received
sleep .5 # for the commit of the last ones
await scorer 10 "newest model" scorer_caught_up
progress
kill -TERM "${pids[client]}"
wait "${pids[client]}" || failures+=("the client saw failing requests")
unset 'pids[client]'

# ---- what came of it ----

if [ -z "$data" ]; then
    "$bin/sluice-sim" ask --config $config "${sets[@]}" --to "$scorer_at" --seed "$seed" --world-time "$world_time" \
        --requests 2500 --candidates 20 --values "$dir/truth.values" >"$dir/truth.out" 2>"$dir/truth.log" ||
        die "the scorer could not be asked"
fi
read_trainer
received=$(events received) learned=$(events learned) waiting=$(events waiting) dead=$(events dead)
[ "$received" = "$sent" ] || failures+=("sent $sent events, received $received")
holds "$received == $learned + $waiting + $dead" ||
    failures+=("received $received is not learned $learned + waiting $waiting + dead $dead")
stop scorer
stop trainer
[ "$(logged trainer received)" = "$received" ] || failures+=("the trainer's last word disagrees with its metrics")
[ -n "${BROKERS:-}" ] || stop broker

echo
echo "events         $sent sent in $(word events.out seconds) s = $(word events.out per_second)/s; received $received = learned $learned + waiting $waiting + dead $dead"
dead_reasons=$(sed -n 's/^sluice_trainer_dead_letters_total{reason="\(.*\)"} \([1-9].*\)$/\1 \2/p' <<<"$trainer_metrics" | paste -sd, | sed 's/,/, /g')
echo "dead           ${dead_reasons:-none}"
echo "while learning (50 candidates a request, 20 requests a second)"
sed 's/^/  /' "$dir/client.out"
holds "$(value load.values answered) > 0 && $(value load.values failed) == 0" || failures+=("requests failed under load")
echo
echo "predicted on arrival, over the whole run"
printf '%-24s %9s %8s  %s\n' "task | space" scored AUC "predicted / observed"
for i in "${!steps[@]}"; do
    for space in impression "${steps[$((i > 0 ? i - 1 : 0))]}"; do
        [ $i = 0 ] && [ $space != impression ] && continue
        label="task=\"${steps[$i]}\",space=\"$space\""
        printf '%-24s %9.0f %8.4f  %.3f\n' "${steps[$i]} | $space" "$(metric sluice_trainer_scored "$label")" \
            "$(metric sluice_trainer_auc "$label")" "$(metric sluice_trainer_calibration "$label")"
    done
done
if [ -z "$data" ]; then
    echo
    echo "the model at the end, against the simulator's truth"
    sed 's/^/  /' "$dir/truth.out"
    # Fewer impressions, less to know: within .01 of the truth after a million, a wider margin before.
    shown=$(word events.out impressions)
    allowed=$(number %.4f "0.01 * (1e6 / ($shown < 1e6 ? $shown : 1e6)) ^ 0.75")
    gap=$(number %.4f "$(value truth.values click_ceiling) - $(value truth.values click_auc)")
    echo
    echo "click AUC is $gap below the truth's after $shown impressions; allowed: $allowed"
    holds "$gap <= $allowed" || failures+=("click AUC is $gap below that of the truth; allowed after $shown impressions: $allowed")
else
    holds "$(metric sluice_trainer_auc 'task="click",space="impression"') > 0.6" || failures+=("click AUC is not above 0.6")
    echo
    echo "$sent recorded events fitted into the time, up to $world_time"
fi

echo
if [ ${#failures[@]} != 0 ]; then
    printf 'demo: %s\n' "${failures[@]}" >&2
    exit 1
fi
echo "demo: all of it worked, in $((SECONDS - began)) s"
