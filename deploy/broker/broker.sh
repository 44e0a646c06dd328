#!/bin/bash
# A single-node Apache Kafka broker (KRaft, no ZooKeeper) for development and for the integration tests.
#
#   broker.sh fetch              gets Kafka's jars from Maven Central once (54 MB) and checks them
#   broker.sh start DIR [PORT]   starts a broker with its data below DIR; prints host:port when it is ready
#   broker.sh stop DIR           stops it cleanly
#   broker.sh kill DIR           SIGKILL, as a crash would; start DIR goes on with the same data and port
#   broker.sh run [DIR] [PORT]   the same in the foreground, until Ctrl-C; default ~/.cache/sluice/broker and 9092
#
# Needs Java 17 or newer, and Maven for fetch: apt-get install openjdk-17-jre-headless maven
# SLU_KAFKA_DIR says where the jars are kept (default ~/.cache/sluice/kafka). A second start on the same DIR uses
# the port of the first one, so clients find the broker again. Without PORT a free one is taken.
# SLU_BROKER_CONFIG may hold further lines for server.properties, SLU_BROKER_FORMAT further arguments for the first
# formatting of the storage, e.g. --add-scram.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
jars=${SLU_KAFKA_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/sluice/kafka}
# Ready in 2-3 s and below 400 MB: one compiler tier, the small collector, a bounded heap.
java_flags=(-Xmx400m -Xms64m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:MaxDirectMemorySize=128m
    -Dorg.slf4j.simpleLogger.defaultLogLevel=info -Dorg.slf4j.simpleLogger.showDateTime=true)
cluster_id=c2x1aWNlLWRldmVsb3BtZQ # any 16 bytes in base64

die() {
    echo "broker.sh: $*" >&2
    exit 1
}

need() {
    command -v "$1" >/dev/null || die "$1 is missing; apt-get install $2"
}

checked() {
    (cd "$jars" 2>/dev/null && sha256sum --quiet --strict -c "$here/jars.sha256" >/dev/null 2>&1)
}

fetch() {
    # The stamp names the very list that was checked, so a changed list is fetched again.
    local stamp
    stamp=$(sha256sum "$here/jars.sha256" | cut -c1-16)
    [ -e "$jars/.checked-$stamp" ] && return
    mkdir -p "$jars"
    exec 9>"$jars/.lock"
    flock 9
    if ! checked; then
        need mvn maven
        echo "fetching Apache Kafka's jars from Maven Central into $jars" >&2
        local log=$jars/fetch.log
        mvn -B -q -C -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
            -DoutputDirectory="$jars" >"$log" 2>&1 || {
            tail -20 "$log" >&2
            die "Maven could not fetch the jars (its words are above and in $log)"
        }
        checked || die "the jars in $jars are not those of jars.sha256; remove the folder and try again"
    fi
    touch "$jars/.checked-$stamp"
    exec 9>&-
}

in_use() {
    (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

free_port() {
    local port
    for _ in $(seq 100); do
        port=$((20000 + RANDOM % 12000)) # below the range that the kernel gives to outgoing connections
        if ! in_use "$port"; then
            echo "$port"
            return
        fi
    done
    die "found no free port"
}

running() {
    local pid
    pid=$(cat "$1/pid" 2>/dev/null) && [ -n "$pid" ] && [ -e "/proc/$pid" ] &&
        tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q kafka.Kafka
}

# Writes DIR/server.properties, formats the storage at the first start. Sets $port.
prepare() {
    local dir=$1 controller
    port=${2:-}
    mkdir -p "$dir"
    if [ -z "$port" ] && [ -s "$dir/port" ]; then
        port=$(cat "$dir/port")
    fi
    [ -n "$port" ] || port=$(free_port)
    controller=$(cat "$dir/controller-port" 2>/dev/null || free_port)
    [ "$controller" != "$port" ] || controller=$((port + 1))
    echo "$port" >"$dir/port"
    echo "$controller" >"$dir/controller-port"
    cat >"$dir/server.properties" <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$dir/data
num.partitions=1
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
message.max.bytes=16777216
replica.fetch.max.bytes=16777216
auto.create.topics.enable=true
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
${SLU_BROKER_CONFIG:-}
EOF
    if [ ! -e "$dir/data/meta.properties" ]; then
        java "${java_flags[@]}" -cp "$jars/*" kafka.tools.StorageTool format -t "$cluster_id" \
            -c "$dir/server.properties" ${SLU_BROKER_FORMAT:-} >"$dir/format.log" 2>&1 || {
            tail -20 "$dir/format.log" >&2
            die "the storage below $dir cannot be formatted"
        }
    fi
}

command=("${java_flags[@]}" -cp "$jars/*" kafka.Kafka)

start() {
    local dir=$1 pid
    if running "$dir"; then
        echo "127.0.0.1:$(cat "$dir/port")"
        return
    fi
    prepare "$@"
    in_use "$port" && die "port $port is in use by another program"
    setsid java "${command[@]}" "$dir/server.properties" >"$dir/broker.log" 2>&1 </dev/null &
    pid=$!
    echo "$pid" >"$dir/pid"
    for _ in $(seq 1200); do # two minutes: a loaded machine is slow, not broken
        if grep -q "Kafka Server started" "$dir/broker.log" 2>/dev/null && in_use "$port"; then
            echo "127.0.0.1:$port"
            return
        fi
        kill -0 "$pid" 2>/dev/null || {
            tail -20 "$dir/broker.log" >&2
            die "the broker did not start (its words are above and in $dir/broker.log)"
        }
        sleep 0.1
    done
    die "the broker was not ready within two minutes; see $dir/broker.log"
}

# Sends a signal and waits until the process is gone; after 30 s it is killed.
end() {
    local dir=$1 signal=$2 pid
    running "$dir" || {
        rm -f "$dir/pid"
        return 0
    }
    pid=$(cat "$dir/pid")
    kill "-$signal" "$pid" 2>/dev/null || true
    for _ in $(seq 300); do
        [ -e "/proc/$pid" ] || break
        # A zombie whose other threads are still ending has its port yet.
        [ "$(cut -d' ' -f3 "/proc/$pid/stat" 2>/dev/null)" = Z ] &&
            [ "$(ls "/proc/$pid/task" 2>/dev/null | wc -l)" -le 1 ] && break
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
    rm -f "$dir/pid"
}

case "${1:-}" in
fetch)
    fetch
    ;;
start)
    [ $# -ge 2 ] || die "start needs a folder for the broker's data"
    need java openjdk-17-jre-headless
    fetch
    start "$(realpath -m "$2")" "${3:-}"
    ;;
stop)
    [ $# -eq 2 ] || die "stop needs the folder that start was given"
    end "$(realpath -m "$2")" TERM
    ;;
kill)
    [ $# -eq 2 ] || die "kill needs the folder that start was given"
    end "$(realpath -m "$2")" KILL
    ;;
run)
    need java openjdk-17-jre-headless
    fetch
    dir=$(realpath -m "${2:-${XDG_CACHE_HOME:-$HOME/.cache}/sluice/broker}")
    prepare "$dir" "${3:-9092}"
    echo "broker at 127.0.0.1:$port, data below $dir; Ctrl-C stops it" >&2
    exec java -Dorg.slf4j.simpleLogger.log.org=warn "${command[@]}" "$dir/server.properties"
    ;;
*)
    sed -n '2,14s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
