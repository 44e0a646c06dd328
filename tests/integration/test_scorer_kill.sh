#!/bin/bash
# Trainer, both scorers and the broker are killed in random order while events arrive, rows expire and questions are
# asked: every scorer ends at the trainer's version with the same rows and dense parameters, in memory and in its store.
# SLU_KILLS and SLU_SEED choose how often and in which order.
source "$(dirname "$0")/lib.sh"

scorer=$SLU_BUILD/bin/sluice-scorer
store_tool=$SLU_BUILD/bin/sluice-store
sim=$SLU_BUILD/bin/sluice-sim
kills=${SLU_KILLS:-10}
RANDOM=${SLU_SEED:-4}
say "kills=$kills seed=${SLU_SEED:-4}"
scorer_pids=(0 0)
scorer_pages=(- -)
scorer_ports=(- -)
asker_pid=

finish_all() {
    local status=$?
    trap - EXIT
    [ -z "$asker_pid" ] || kill "$asker_pid" 2>/dev/null || true
    for pid in "${scorer_pids[@]}"; do
        [ "$pid" = 0 ] || kill -KILL "$pid" 2>/dev/null || true
    done
    [ $status -eq 0 ] || tail -n 5 "$work"/scorer*.log | cut -c1-400
    (exit $status) || true
    set +e
    [ -z "$producer_pid" ] || kill "$producer_pid" 2>/dev/null
    [ -z "$trainer_pid" ] || kill -KILL "$trainer_pid" 2>/dev/null
    "$broker_sh" kill "$work/broker" >/dev/null 2>&1
    [ $status -ne 0 ] || rm -rf "$work"
    exit $status
}
trap finish_all EXIT

# Rows that nobody has asked for in a second of event time go.
sed 's/dimension: 4}/dimension: 4, ttl: 1s}/' "$config" >"$work/config.yaml"
config=$work/config.yaml
grep -q "ttl: 1s" "$config" || fail "no ttl in the config"

start_scorer() { # INDEX
    local i=$1 log=$work/scorer$1.log lines line
    touch "$log"
    lines=$(wc -l <"$log")
    "$scorer" --config "$config" --set "kafka.brokers=$brokers" --set "serving.store=$work/scorer$i" \
        --set "serving.listen=127.0.0.1:0" --set "admin.scorer=127.0.0.1:0" >>"$log" 2>&1 &
    scorer_pids[i]=$!
    local end=$((SECONDS + patience))
    while ! line=$(tail -n +$((lines + 1)) "$log" | grep 'component=scorer msg=listening'); do
        kill -0 "${scorer_pids[i]}" 2>/dev/null || fail "scorer $i ended at its start: $(tail -n 1 "$log")"
        [ $SECONDS -lt $end ] || fail "scorer $i did not start"
        sleep 0.1
    done
    scorer_pages[i]=127.0.0.1:$(sed 's/.* admin_port=\([0-9]*\).*/\1/' <<<"$line")
    scorer_ports[i]=127.0.0.1:$(sed 's/.* port=\([0-9]*\).*/\1/' <<<"$line")
    echo "${scorer_ports[0]} ${scorer_ports[1]}" >"$work/ports"
}

kill_scorer() { # INDEX
    kill -KILL "${scorer_pids[$1]}"
    wait "${scorer_pids[$1]}" 2>/dev/null || true
    scorer_pids[$1]=0
}

page_of() { # INDEX PATH
    local before=$admin
    admin=${scorer_pages[$1]}
    get "$2"
    admin=$before
}

# Asks both scorers again and again. Whoever is killed meanwhile does not answer, which is no failure; that each answer
# is of one version is what tests/test_score_versions.c is about.
ask_all_the_time() {
    while :; do
        for port in $(cat "$work/ports" 2>/dev/null); do
            "$sim" ask --config "$config" --to "$port" --requests 50 --candidates 300 --load --wait 1s \
                --values "$work/values" >>"$work/ask.log" 2>&1 &&
                cat "$work/values" >>"$work/answers"
            sleep 0.2
        done
    done
}

start_broker
create_topics
generate 11 30000 "$work/events"
total=$(wc -l <"$work/events")
start_trainer
start_scorer 0
start_scorer 1
ask_all_the_time &
asker_pid=$!
"$tool" "$brokers" produce 2500 <"$work/events" >/dev/null &
producer_pid=$!

for ((k = 1; k <= kills; k++)); do
    sleep "$((RANDOM % 2)).$((RANDOM % 10))"
    case $((RANDOM % 8)) in
    0 | 1 | 2)
        say "kill $k: the trainer, at version $(metric sluice_trainer_version)"
        kill_trainer
        sleep "0.$((RANDOM % 10))"
        start_trainer
        ;;
    3 | 4)
        say "kill $k: scorer 0"
        kill_scorer 0
        start_scorer 0
        ;;
    5 | 6)
        say "kill $k: scorer 1, and it stays away for a while"
        kill_scorer 1
        sleep "$((RANDOM % 3))"
        start_scorer 1
        ;;
    7)
        say "kill $k: the broker, and scorer 0 without it"
        "$broker_sh" kill "$work/broker"
        kill_scorer 0
        start_scorer 0
        start_broker
        ;;
    esac
done

wait "$producer_pid" || fail "not all events were produced"
producer_pid=
wait_for "all $total events" received_is "$total"
check_balance
wait_for "acknowledged deltas" nothing_unacknowledged
stop_trainer # its last commit is published before it ends
kill "$asker_pid"
wait "$asker_pid" 2>/dev/null || true
asker_pid=

# What a stored model adds up to, as name=value.
sums_of() { # STORE
    "$store_tool" sum --store "$1" |
        awk '{ name = substr($0, 1, 13); sub(/ +$/, "", name); gsub(/ /, "_", name); printf "%s=%s ", name, substr($0, 14) }'
}
expected=$(sums_of "$work/store")
say "trainer: $expected"
field() { # NAME LINE
    tr ' ' '\n' <<<"$2" | sed -n "s/^$1=//p"
}
version=$(field version "$expected")
at_version() {
    [ "$(field version "$(page_of "$1" /digest)")" = "$version" ]
}
for i in 0 1; do
    wait_for "scorer $i at version $version" at_version $i
    line=$(page_of $i /digest)
    say "scorer $i, in memory: $line"
    for what in rows row_sum dense_digest; do
        expect "scorer $i: $what" "$(field $what "$line")" "$(field $what "$expected")"
    done
    log=$work/scorer$i.log
    grep -q 'msg="delta refused' "$log" && fail "scorer $i refused a version: $(grep -m 1 'msg="delta refused' "$log")"
done

# No request waits for an update: the thread that applies them and those of librdkafka and RocksDB stand in the
# background (policy 5, SCHED_IDLE; at least nice 10 where a thread may not return from there), those that answer do not.
check_threads() { # PID
    local task name nice policy seen=" "
    for task in /proc/"$1"/task/*; do
        name=$(cat "$task/comm") || continue
        read -r nice policy < <(sed 's/.*) //' "$task/stat" | cut -d ' ' -f 17,39)
        seen+="${name%%[-:]*} "
        case $name in
        subscriber | rdk:* | rocksdb:*)
            [ "$policy" = 5 ] || [ "$nice" -ge 10 ] || fail "thread $name is in the foreground: nice $nice, policy $policy"
            [ "$policy" != 5 ] || idle=1
            ;;
        grpc-*)
            [ "$policy" = 0 ] && [ "$nice" = "$(nice)" ] || fail "thread $name has nice $nice and policy $policy"
            ;;
        esac
    done
    for name in subscriber rdk grpc; do
        [[ $seen == *" $name "* ]] || fail "no thread $name among$seen"
    done
}
idle=
for i in 0 1; do
    check_threads "${scorer_pids[$i]}"
done

# And they are watched, lest they starve behind processors that never rest.
watched() { # INDEX
    [ "$(page_of "$1" /metrics | awk '$1 == "sluice_background_threads" { print int($2) }')" -gt 0 ] 2>/dev/null
}
for i in 0 1; do
    [ -z "$idle" ] || wait_for "scorer $i to look at its threads in the background" watched $i
done

for i in 0 1; do
    kill -TERM "${scorer_pids[$i]}"
    wait "${scorer_pids[$i]}" || fail "scorer $i ended with status $? on SIGTERM"
    scorer_pids[i]=0
    line=$(sums_of "$work/scorer$i")
    say "scorer $i, on disk: $line"
    for what in version rows row_sum dense_digest; do
        expect "the store of scorer $i: $what" "$(field $what "$line")" "$(field $what "$expected")"
    done
done

# Rows did expire: fewer are there than ids were seen.
ids=$(grep -o '"\(user\|item\)": *"[^"]*"' "$work/events" | sort -u | wc -l)
rows=$(field rows "$expected")
[ "$rows" -lt $((ids * 95 / 100)) ] || fail "$rows rows of $ids ids: hardly any has expired"
answers=$(awk -F= '$1 == "answered" { n += $2 } END { print n + 0 }' "$work/answers")
[ "$answers" -gt 0 ] || fail "no scorer has answered: $(tail -n 1 "$work/ask.log")"
say "rows=$rows of ids=$ids answers=$answers"
say "passed"
