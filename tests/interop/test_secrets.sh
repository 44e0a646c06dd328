#!/bin/bash
# test_secrets.sh BIN CONFIG WORK: a configuration full of secrets through every program: dump, check, wrong values, a
# broker that is not there, debug logs, the process list. None of them may be seen anywhere.
set -u
bin=$1 config=$2 work=$3
rm -rf "$work"
mkdir -p "$work"
out=$work/out
fail() {
    echo "FAILED: $*"
    exit 1
}

cp "$config" "$work/secrets.yaml"
python3 - "$work/secrets.yaml" <<'PY' || exit 1
import sys
path = sys.argv[1]
text = open(path).read()
at = text.index("\nkafka:\n") + len("\nkafka:\n")
extra = """  rdkafka:
    security.protocol: SASL_SSL
    sasl.mechanism: PLAIN
    sasl.username: joe
    sasl.password: c4n4ry-password
    ssl.key.password: c4n4ry-key
    ssl.keystore.password: c4n4ry-keystore
    sasl.oauthbearer.config: c4n4ry=bearer
    client.rack: ${SLU_TEST_RACK}
    debug: all
"""
open(path, "w").write(text[:at] + extra + text[at:])
PY
grep -q c4n4ry-keystore "$work/secrets.yaml" || fail "the configuration has no kafka section"
export SLU_TEST_RACK=c4n4ry-environment SLU_TEST_NUMBER=c4n4ry-number

runs=0
# run SECONDS ARGUMENTS...: the program's output is added to $out, whatever its status.
run() {
    local seconds=$1
    shift
    echo "== $*" | sed 's/c4n4ry[^ ]*/SECRET/g' >>"$out"
    timeout -s TERM -k 10 "$seconds" "$@" >>"$out" 2>&1 </dev/null
    runs=$((runs + 1))
}

places=(--set "store.path=$work/trainer" --set "serving.store=$work/scorer" --set kafka.brokers=127.0.0.1:1
    --set serving.listen=127.0.0.1:0 --set admin.trainer=127.0.0.1:0 --set admin.scorer=127.0.0.1:0 --set log.level=debug)
wrong=(
    "kafka.rdkafka.sasl.mechanism=\${SLU_TEST_NUMBER}"        # echoed by librdkafka's own error message
    "kafka.rdkafka.message.max.bytes=\${SLU_TEST_NUMBER}"
    "kafka.rdkafka.ssl.key.pem=c4n4ry-pem"                     # refused by OpenSSL
    "kafka.rdkafka.sasl.password=[c4n4ry-list]"
    "kafka.rdkafka={sasl.password: {a: c4n4ry-nested}}"
    "kafka.rdkafka={sasl.password: c4n4ry-open"
    "kafka.rdkafka.no.such.password=c4n4ry-unknown"
    "kafka.rdkafka.sasl.password.=c4n4ry-dot"
    "serving.tls.key=-----BEGIN PRIVATE KEY-----c4n4ry-inline"
)
for program in sluice-trainer sluice-scorer sluice-replay "sluice-sim ask" "sluice-sim produce" "sluice-sim topics"; do
    read -r -a command <<<"$program"
    command[0]=$bin/${command[0]}
    run 20 "${command[@]}" --config "$work/secrets.yaml" "${places[@]}" --dump-config \
        --set kafka.rdkafka.sasl.oauthbearer.client.secret=c4n4ry-client # not every librdkafka knows it
    run 20 "${command[@]}" --config "$work/secrets.yaml" "${places[@]}" --check
    for set in "${wrong[@]}"; do
        run 20 "${command[@]}" --config "$work/secrets.yaml" "${places[@]}" --set "$set" --dump-config
    done
    run 20 "${command[@]}" --config "$work/secrets.yaml" "--kafka.rdkafka.sasl.password=c4n4ry-option"
    run 20 "${command[@]}" --config "$work/secrets.yaml" "kafka.rdkafka.sasl.password=c4n4ry-stray"
done
for program in sluice-trainer sluice-scorer; do
    for set in "${wrong[@]}"; do
        run 3 "$bin/$program" --config "$work/secrets.yaml" "${places[@]}" --set "$set"
    done
    for format in logfmt json; do
        run 3 "$bin/$program" --config "$work/secrets.yaml" "${places[@]}" --set log.format=$format
    done
done

grep -q "sasl.password: \"\*\*\*\"" "$out" || fail "no dump was made"
grep -q 'client.rack: "${SLU_TEST_RACK}"' "$out" || fail "the dump does not name the variable"
[ "$(grep -c "component=rdkafka" "$out")" -gt 20 ] || fail "librdkafka's debug output is not in the log"
grep -n c4n4ry "$out" | cut -c1-400 | head -5 | grep . && fail "a secret was shown (see $out)"

# The process list.
"$bin/sluice-trainer" --config "$config" "${places[@]}" --set kafka.rdkafka.sasl.password=c4n4ry-argument \
    >"$work/trainer.log" 2>&1 &
pid=$!
for _ in $(seq 200); do
    grep -q msg= "$work/trainer.log" && break
    sleep 0.1
done
arguments=$(tr '\0' ' ' <"/proc/$pid/cmdline")
kill -KILL $pid
wait $pid 2>/dev/null
case $arguments in
*c4n4ry*) fail "the process list shows a secret: $arguments" ;;
*sasl.password=\*\*\*\**) ;;
*) fail "unexpected arguments: $arguments" ;;
esac
grep -n c4n4ry "$work/trainer.log" && fail "the log shows a secret"
echo "$runs runs, nothing shown"
rm -rf "$work"
