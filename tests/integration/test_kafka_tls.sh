#!/bin/bash
# Trainer and scorer against a broker that wants TLS and a password, all by kafka.rdkafka.*: secrets come from the
# environment. What is wrong is said with the key to correct, by --check and in the daemons' logs, and no secret is
# ever shown.
source "$(dirname "$0")/lib.sh"

scorer=$SLU_BUILD/bin/sluice-scorer
scorer_pid=
certs=$work/certs
mkdir -p "$certs" "$work/broker"
"$SLU_BUILD/tests/tls_certificates" "$certs"

# Three ports below the range of outgoing connections.
plain=$(free_port) secure=$(free_port) controller=$(free_port)
while [ "$secure" = "$plain" ] || [ "$controller" = "$plain" ] || [ "$controller" = "$secure" ]; do
    secure=$(free_port) controller=$(free_port)
done
echo "$controller" >"$work/broker/controller-port"
export SLU_TEST_PASSWORD="c4n4ry of #joe" SLU_TEST_SCRAM=c4n4ry-of-anna
export SLU_BROKER_FORMAT="--add-scram SCRAM-SHA-512=[name=anna,password=$SLU_TEST_SCRAM]"
export SLU_BROKER_CONFIG="
listeners=PLAINTEXT://127.0.0.1:$plain,SASL_SSL://127.0.0.1:$secure,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$plain,SASL_SSL://127.0.0.1:$secure
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_joe=\"$SLU_TEST_PASSWORD\";
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location=$certs/broker.pem
"
start_broker "$plain"
plain_brokers=$brokers
create_topics
generate 1 3000 "$work/events"
"$tool" "$brokers" produce <"$work/events" >/dev/null
total=$(wc -l <"$work/events")

brokers=127.0.0.1:$secure
tls=(--set kafka.rdkafka.security.protocol=SASL_SSL --set "kafka.rdkafka.ssl.ca.location=$certs/ca.pem")
joe=(--set kafka.rdkafka.sasl.mechanism=PLAIN --set kafka.rdkafka.sasl.username=joe
    --set 'kafka.rdkafka.sasl.password=${SLU_TEST_PASSWORD}')

run_scorer() {
    "$scorer" --config "$config" --set "kafka.brokers=$brokers" --set "serving.store=$work/scorer" \
        --set admin.scorer=127.0.0.1:0 "$@"
}

say "--check with the right settings"
run_trainer "${tls[@]}" "${joe[@]}" --check >"$work/check.log" 2>&1 || fail "trainer: $(cat "$work/check.log")"
run_scorer "${tls[@]}" "${joe[@]}" --check >"$work/check.log" 2>&1 || fail "scorer: $(cat "$work/check.log")"

# refused WORDS SETS...: --check of $programs fails and names the remedy.
programs="run_trainer run_scorer"
refused() {
    local words=$1 program
    shift
    for program in $programs; do
        if "$program" "$@" --check >"$work/check.log" 2>&1; then
            fail "$program accepts what the broker refuses: $*"
        fi
        grep -q -- "$words" "$work/check.log" || fail "$program does not say '$words': $(cat "$work/check.log")"
        cat "$work/check.log" >>"$work/all.log"
    done
}

say "--check with wrong settings"
export SLU_TEST_WRONG=c4n4ry-of-nobody
wrong=(--set 'kafka.rdkafka.sasl.password=${SLU_TEST_WRONG}')
refused "correct kafka.rdkafka.sasl.username and kafka.rdkafka.sasl.password" "${tls[@]}" "${joe[@]}" "${wrong[@]}"
refused "set kafka.rdkafka.ssl.ca.location to the authority" "${tls[@]}" "${joe[@]}" \
    --set "kafka.rdkafka.ssl.ca.location=$certs/other-ca.pem"
programs=run_trainer # each takes the seconds that a broker is given to answer
refused "sasl.mechanism to one that the broker offers" "${tls[@]}" "${joe[@]}" \
    --set kafka.rdkafka.sasl.mechanism=SCRAM-SHA-256
refused "wants another kafka.rdkafka.security.protocol" --set kafka.rdkafka.security.protocol=PLAINTEXT
refused "ssl.ca.location" "${tls[@]}" "${joe[@]}" --set "kafka.rdkafka.ssl.ca.location=$certs/nowhere.pem"

say "SCRAM: librdkafka from 2.6.1 on, else a line that says so"
anna=(--set kafka.rdkafka.sasl.mechanism=SCRAM-SHA-512 --set kafka.rdkafka.sasl.username=anna
    --set 'kafka.rdkafka.sasl.password=${SLU_TEST_SCRAM}')
if run_trainer "${tls[@]}" "${anna[@]}" --check >"$work/check.log" 2>&1; then
    say "works here"
else
    grep -q "librdkafka before 2.6.1 cannot log in" "$work/check.log" || fail "$(cat "$work/check.log")"
fi
cat "$work/check.log" >>"$work/all.log"

say "the daemons with a wrong password: they go on and say what to correct"
"$scorer" --config "$config" --set "kafka.brokers=$brokers" --set "serving.store=$work/scorer" \
    --set admin.scorer=127.0.0.1:0 "${tls[@]}" "${joe[@]}" "${wrong[@]}" --set kafka.rdkafka.debug=security,broker \
    --set log.level=debug >"$work/scorer-wrong.log" 2>&1 &
scorer_pid=$!
trap 'status=$?; set +e; kill -KILL $scorer_pid 2>/dev/null; (exit $status); finish' EXIT
start_trainer "${tls[@]}" "${joe[@]}" "${wrong[@]}" --set kafka.rdkafka.debug=security,broker --set log.level=debug
wait_for "a line about the password" log_says "remedy=.*correct kafka.rdkafka.sasl.username"
scorer_says() {
    grep -q -- "$1" "$work/$2"
}
wait_for "the scorer's line" scorer_says "remedy=.*correct kafka.rdkafka.sasl.username" scorer-wrong.log
kill_trainer
kill -KILL $scorer_pid
wait $scorer_pid 2>/dev/null || true
cat "$work/scorer-wrong.log" "$work/trainer.log" >>"$work/all.log"

say "both at work over TLS"
start_trainer "${tls[@]}" "${joe[@]}"
"$scorer" --config "$config" --set "kafka.brokers=$brokers" --set "serving.store=$work/scorer" \
    --set admin.scorer=127.0.0.1:0 "${tls[@]}" "${joe[@]}" >"$work/scorer.log" 2>&1 &
scorer_pid=$!
wait_for "all $total events" received_is "$total"
wait_for "acknowledged deltas" nothing_unacknowledged
wait_for "a model in the scorer" scorer_says "msg=serving" scorer.log
check_balance
kill -TERM $scorer_pid
wait $scorer_pid || fail "the scorer ended with status $?"
stop_trainer
[ "$("$tool" "$plain_brokers" count deltas)" -ge 2 ] || fail "no deltas were published"

say "no secret anywhere"
run_trainer "${tls[@]}" "${joe[@]}" --dump-config >>"$work/all.log"
grep -q 'sasl.password: "${SLU_TEST_PASSWORD}"' "$work/all.log" || fail "the dump does not name the variable"
cat "$work/trainer.log" "$work/scorer.log" >>"$work/all.log"
if grep -n c4n4ry "$work/all.log" | head -3 | cut -c1-300 | grep .; then
    fail "a secret was shown"
fi
say "passed"
