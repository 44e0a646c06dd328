#!/usr/bin/env bash
# Runs unit tests under valgrind's memcheck, the children that Check forks included.  deploy/valgrind.sh BUILD [REGEX]
# An error is a wrong access, a decision on something uninitialised, or memory that nothing points to any more; tests
# that measure time or start daemons are left out (see "left out" below). Exit status 1 when a test has one.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1 wanted=${2:-.} status=0 clean=0
# test_alloc_failure replaces malloc itself and counts what is not given back; the others take hours there.
left_out='test_(alloc_failure|gemm|ops|net|world|exchange|trainer_to_scorer|kafka_source|storefront|soak_.*)$'
mkdir -p "$build/valgrind"
for program in "$build"/tests/test_*; do
    name=$(basename "$program")
    [ -x "$program" ] && [ ! -d "$program" ] || continue
    [[ $name =~ $wanted ]] && ! [[ $name =~ $left_out ]] || continue
    if SLU_TEST_SHARE=20 SLU_TEST_TIMEOUT=3600 CK_TIMEOUT_MULTIPLIER=100 valgrind --quiet --leak-check=full \
        --errors-for-leak-kinds=definite --show-leak-kinds=definite --error-exitcode=9 \
        --suppressions=tests/sanitizers/valgrind.supp "$program" >"$build/valgrind/$name.log" 2>&1 &&
        ! grep '^==[0-9]*== ' "$build/valgrind/$name.log" | grep -qv 'Warning: unimplemented fcntl'; then
        clean=$((clean + 1))
    else
        status=1
        echo "$name: see $build/valgrind/$name.log"
        grep -E '^==[0-9]+== |%:' "$build/valgrind/$name.log" | head -n 5 || true
    fi
done
echo "valgrind: $clean tests clean"
exit $status
