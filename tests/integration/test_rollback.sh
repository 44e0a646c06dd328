#!/bin/bash
# Copies while traffic runs, and stepping back: a backup of the live trainer is whole; the trainer is put back to it
# while events keep coming and a client keeps asking: no request fails, and the scorer ends with the trainer's model.
# Then a scorer alone is put back and held, and follows again when it is released.
source "$(dirname "$0")/lib.sh"
store=$SLU_BUILD/bin/sluice-store
sim=$SLU_BUILD/bin/sluice-sim
config=$SLU_SOURCE/examples/ads.yaml
scorer_pid= client_pid=
stop_all() {
    local status=$?
    set +e
    kill -KILL $scorer_pid $client_pid 2>/dev/null
    (exit $status)
    finish
}
trap stop_all EXIT
fast=(--set training.commit_every=200ms --set training.max_batch_delay=10m --set publish.base_every=10s
      --set "backup.path=$work/backups" --set backup.keep=3 --set admin.trainer=127.0.0.1:0)

# No request may fail: on a loaded machine some wait longer than serving.max_wait would let them.
start_scorer() {
    local lines=0
    [ ! -f "$work/scorer.log" ] || lines=$(wc -l <"$work/scorer.log")
    "$SLU_BUILD/bin/sluice-scorer" --config "$config" --set "kafka.brokers=$brokers" --set "serving.store=$work/scorer" \
        --set serving.listen=127.0.0.1:0 --set serving.max_wait=0s --set admin.scorer=127.0.0.1:0 --set "backup.path=$work/backups" \
        >>"$work/scorer.log" 2>&1 &
    scorer_pid=$!
    scorer_news() { tail -n +$((lines + 1)) "$work/scorer.log" | grep -o "component=scorer msg=listening.*"; }
    wait_for "the scorer" scorer_news >/dev/null
    scorer_port=$(scorer_news | sed 's/.* port=\([0-9]*\).*/\1/')
    scorer_admin=127.0.0.1:$(scorer_news | sed 's/.* admin_port=\([0-9]*\).*/\1/')
}
stop_scorer() {
    kill -TERM $scorer_pid
    wait $scorer_pid || fail "the scorer ended with status $?"
    scorer_pid=
}
scorer_version() { admin=$scorer_admin metric sluice_scorer_version; }
trainer_version() { metric sluice_trainer_version; }
trainer_over() { [ "$(trainer_version)" -gt "$1" ] 2>/dev/null; }
scorer_over() { [ "$(scorer_version)" -gt "$1" ] 2>/dev/null; }
version_of() { sed -n 's/^version //p' "$1/BACKUP"; }
sums() { "$store" sum --store "$1" | grep -o '[0-9a-f]\{32\}' | sort -u | tr '\n' ' '; }
same_sums() { [ "$(sums "$work/store")" = "$(sums "$work/scorer")" ]; }
verified() { # ARGUMENTS of verify
    "$store" verify "$@" >"$work/verify.out" 2>&1 || fail "verify $*: $(grep -v '^ok' "$work/verify.out")"
}
# The trainer has learned all that was sent, and the scorer has the version.
settled() {
    local at
    at=$(trainer_version)
    sleep 1
    [ "$at" = "$(trainer_version)" ] && [ "$at" = "$(scorer_version)" ]
}

start_broker
"$sim" topics --config "$config" --set "kafka.brokers=$brokers" >/dev/null
start_trainer "${fast[@]}"
"$sim" produce --config "$config" --set "kafka.brokers=$brokers" --impressions 200000 --rate 3000 --outstanding 0 \
    >"$work/produce.log" 2>&1 &
producer_pid=$!
start_scorer
wait_for "versions" trainer_over 20
wait_for "a model" scorer_over 10

backup=$("$store" backup --store "$work/store") || fail "no backup of the live trainer"
scorer_backup=$("$store" backup --store "$work/scorer") || fail "no backup of the live scorer"
case $backup in "$work/backups/trainer/"*) ;; *) fail "the backup is at $backup" ;; esac
old=$(version_of "$backup")
scorer_old=$(version_of "$scorer_backup")
verified --backup "$backup"
verified --backup "$scorer_backup"
verified --store "$work/store"
say "backups at version $old of the trainer, $scorer_old of the scorer"

"$sim" ask --config "$config" --to "127.0.0.1:$scorer_port" --load --rate 50 --for 20s >"$work/client.log" 2>&1 &
client_pid=$!
wait_for "more versions" trainer_over $((old + 20))
! "$store" restore --backup "$backup" --store "$work/store" --replace 2>"$work/refused" || fail "a live store was replaced"
grep -q "in use" "$work/refused" || fail "$(cat "$work/refused")"

say "the trainer back to version $old, under traffic"
stop_trainer
"$store" restore --backup "$backup" --store "$work/store" --replace >"$work/restore.log" || fail "$(cat "$work/restore.log")"
start_trainer "${fast[@]}"
grep "msg=started" "$work/trainer.log" | tail -1 | grep -q " version=$old " || fail "it did not begin at version $old"
check_balance
wait $client_pid || fail "a request failed: $(tail -5 "$work/client.log")"
client_pid=
say "no request failed: $(grep -m1 -i 'request' "$work/client.log" || true)"
wait "$producer_pid" || fail "not all events were produced: $(tail -2 "$work/produce.log")"
producer_pid=
wait_for "the scorer at the trainer's version" settled
wait_for "equal sums" same_sums
verified --store "$work/store"
verified --store "$work/scorer"
say "trainer and scorer agree at version $(trainer_version): $(sums "$work/store")"

say "the scorer alone back to version $scorer_old, held"
began=$(date +%s%N)
stop_scorer
"$store" restore --backup "$scorer_backup" --store "$work/scorer" --replace --hold >/dev/null || fail "no restore"
start_scorer
say "that took $((($(date +%s%N) - began) / 1000000)) ms"
"$sim" ask --config "$config" --to "127.0.0.1:$scorer_port" --load --requests 100 >"$work/client.log" 2>&1 ||
    fail "held, it does not answer"
sleep 2
expect "version of the held scorer" "$(scorer_version)" "$scorer_old"
"$store" release --store "$work/scorer"
wait_for "the released scorer" settled
wait_for "equal sums" same_sums
stop_scorer
stop_trainer
verified --store "$work/store"
say "passed"
