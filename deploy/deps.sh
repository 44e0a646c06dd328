#!/usr/bin/env bash
# Installs the Debian packages that a group needs and this machine lacks. Quick when there is nothing to do.
#   deploy/deps.sh build|run|fuzz|format|bench ...
set -euo pipefail

run=(librdkafka1 librocksdb7.8 libopenblas0-pthread libprotobuf-c1 libnghttp2-14 liburcu8 libcyaml1 libyaml-0-2
     libmicrohttpd12 libjansson4 zlib1g libxxhash0 libssl3)
build=(cmake ninja-build gcc libc6-dev pkg-config librdkafka-dev librocksdb-dev libopenblas-dev libprotobuf-c-dev
       protobuf-c-compiler protobuf-compiler libnghttp2-dev liburcu-dev libcyaml-dev libyaml-dev
       libmicrohttpd-dev libjansson-dev zlib1g-dev libxxhash-dev libssl-dev libdnnl-dev
       check openjdk-17-jre-headless maven python3-venv curl ca-certificates)
fuzz=(clang llvm)
format=(clang-format)
bench=(nghttp2-client util-linux)

wanted=()
for group in "${@:-build}"; do
    case $group in
    run | build | fuzz | format | bench) declare -n list=$group && wanted+=("${list[@]}") ;;
    *) echo "deps.sh: no group '$group'; there are: build, run, fuzz, format, bench" >&2 && exit 2 ;;
    esac
done

have=$(dpkg-query -W -f='${db:Status-Abbrev} ${Package}\n' "${wanted[@]}" 2>/dev/null | sed -n 's/^ii *//p' || true)
missing=$(comm -23 <(printf '%s\n' "${wanted[@]}" | sort -u) <(sort -u <<<"$have"))
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "deps.sh: these Debian packages (or your system's equivalents) are needed:" $missing >&2
    exit 1
fi
echo "deps: installing" $missing
as_root=()
if [ "$(id -u)" != 0 ]; then
    as_root=(sudo)
    command -v sudo >/dev/null || { echo "deps.sh: run as root, or install sudo" >&2; exit 1; }
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 "$@" \
        </dev/null >>"$log" 2>&1 || { cat "$log" >&2; echo "deps.sh: apt-get $1 failed, see above" >&2; exit 1; }
}
apt update
apt install -y --no-install-recommends $missing
echo "deps: done"
