#!/usr/bin/env bash
# Runs unit tests under valgrind's memcheck, the children that Check forks included.  deploy/valgrind.sh BUILD [REGEX]
# JOBS at a time (2); one line for each as it ends. An error is a wrong access, a decision on something uninitialised, or
# memory that nothing points to any more; tests that measure time or start daemons are left out (see "left_out" below).
# Exit status 1 when a test has one.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1 wanted=${2:-.}
# test_alloc_failure replaces malloc itself and counts what is not given back; the others take hours there.
left_out='test_(alloc_failure|gemm|ops|net|world|exchange|trainer_to_scorer|kafka_source|storefront|soak_.*)$'

check() { # BUILD PROGRAM: says what became of it, and leaves its log in BUILD/valgrind
    local name log started=$SECONDS
    name=$(basename "$2") log=$1/valgrind/$(basename "$2").log
    if SLU_TEST_SHARE=20 SLU_TEST_TIMEOUT=7200 CK_TIMEOUT_MULTIPLIER=100 valgrind --quiet --leak-check=full \
        --errors-for-leak-kinds=definite --show-leak-kinds=definite --error-exitcode=9 \
        --suppressions=tests/sanitizers/valgrind.supp "$2" >"$log" 2>&1 &&
        ! grep '^==[0-9]*== ' "$log" | grep -qv 'Warning: unimplemented fcntl'; then
        echo "$name: clean, $((SECONDS - started)) s"
    else
        echo "$name: NOT CLEAN, see $log"
        grep -E '^==[0-9]+== |%:' "$log" | head -n 5 || true
    fi
}
export -f check

mkdir -p "$build/valgrind"
said=$build/valgrind/said
for program in "$build"/tests/test_*; do
    name=$(basename "$program")
    [ -x "$program" ] && [ ! -d "$program" ] || continue
    [[ $name =~ $wanted ]] && ! [[ $name =~ $left_out ]] || continue
    echo "$program"
done | xargs -r -P "${JOBS:-2}" -I{} bash -c 'check "$0" "$1"' "$build" {} | tee "$said"
clean=$(grep -c ': clean, ' "$said" || true) dirty=$(grep -c ': NOT CLEAN' "$said" || true)
echo "valgrind: $clean tests clean, $dirty not"
[ "$clean" -gt 0 ] && [ "$dirty" -eq 0 ]
