#!/usr/bin/env bash
# Tests the clients and servers in this folder against each other: every client language against
# every server language, in both protocols. They were written from docs/protocol.md alone, so where
# they agree with each other and not with Systole, Systole is wrong.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

programs=$(mktemp -d)
trap 'rm -rf "$programs"' EXIT
export PYTHONDONTWRITEBYTECODE=1

for protocol in native message1028; do
    cc -std=c11 -Wall -Wextra -Werror -O1 -o "$programs/$protocol" "$protocol.c"
done

command_of() { # PROTOCOL LANGUAGE: sets the array `command`
    case $2 in
    c) command=("$programs/$1") ;;
    py) command=(python3 "$PWD/$1.py") ;;
    esac
}

fail() {
    printf '   FAILED: %s\n' "$case: $*" >&2
    for log in "$scratch"/*.log; do printf -- '--- %s\n' "${log##*/}" && cat "$log"; done >&2
    exit 1
}

start_server() { # OPTIONS...: sets `port` and `server_pid`
    command_of "$protocol" "$server"
    : >"$scratch/server.log"
    "${command[@]}" server 0 --limit 20 "$@" >"$scratch/server.log" 2>&1 &
    server_pid=$!
    local tries
    for ((tries = 0; tries < 500; tries++)); do
        port=$(sed -n 's/^listening on //p' "$scratch/server.log")
        [[ -z $port ]] || return 0
        kill -0 "$server_pid" 2>/dev/null || break
        sleep 0.02
    done
    fail "the server does not listen"
}

server_ends_with() { # EXIT CODE
    local code=0
    wait "$server_pid" || code=$?
    server_pid=
    [[ $code == "$1" ]] || fail "exit code $code of the server, expected $1"
}

stop_server() {
    kill "$server_pid"
    wait "$server_pid" 2>/dev/null || true
    server_pid=
}

client_ends_with() { # EXIT CODE, OPTIONS...
    local expected=$1 code=0
    shift
    command_of "$protocol" "$client"
    "${command[@]}" client 127.0.0.1 "$port" --limit 20 "$@" >"$scratch/client.log" 2>&1 || code=$?
    [[ $code == "$expected" ]] || fail "exit code $code of the client, expected $expected"
}

printed() { # client|server, then regular expressions, each of which must match a whole line
    local who=$1 line
    shift
    for line; do
        grep -Eqx -- "$line" "$scratch/$who.log" || fail "the $who did not print: $line"
    done
}

check_heartbeats_and_data() {
    start_server --once --pieces 1
    client_ends_with 0 --pings 3 --every 20 --business hp=97 --data "hello there" --expect-echo \
        --pieces 3 --policy 10000,3000,3
    server_ends_with 0
    printed client "received PONG 1" "received PONG 2" "received PONG 3" \
        "received DATA of 11 bytes: hello there"
    printed server 'received PING 1, business "hp=97"' 'received PING 3, business "hp=97"' \
        "received DATA of 11 bytes: hello there"
    if [[ $protocol == native ]]; then
        printed client "welcome session 0000000000000001 epoch 1 idle 10000 interval 3000 probes 3"
        printed server 'hello identity "outside"' "asked for idle 10000 interval 3000 probes 3" \
            'received CLOSE 0 \(done\) flags 0 return-after 0 ""'
    fi
}

# More PINGs are outstanding than the server remembers: a late PONG confirms the earlier ones.
check_cumulative_pongs() {
    [[ $protocol == native ]] || return 0
    start_server --once --delay 300
    client_ends_with 0 --pings 100 --every 1
    server_ends_with 0
    printed client "received PONG 100"
}

# 300 PINGs, so that a sequence number of one byte wraps.
check_many_heartbeats() {
    start_server --once
    client_ends_with 0 --pings 300 --every 1 --stay 100
    server_ends_with 0
    [[ $(grep -c "^received PONG" "$scratch/client.log") == 300 ]] || fail "not 300 PONGs"
}

check_probes_of_the_server() {
    start_server --once --probe 30 --delay 40
    client_ends_with 0 --pings 1 --stay 250
    server_ends_with 0
    printed client "received PING 1" "received PING 2" "received PONG 1"
    printed server "received PONG 1" "received PONG 2"
}

check_silence() {
    start_server --once --probe 100 --close-after 350 --retune 2000,1000,3
    client_ends_with 0 --silent-after 0
    server_ends_with 0
    local elapsed
    elapsed=$(sed -n 's/^closed by the other end \([0-9]*\) ms after.*/\1/p' "$scratch/client.log")
    ((elapsed >= 300 && elapsed < 2000)) || fail "closed after '$elapsed' ms instead of 350"
    printed client "silent from now on"
    ! grep -q "^received PONG" "$scratch/server.log" || fail "the silent client answered"
    [[ $protocol != native ]] || printed client \
        "received RETUNE idle 2000 interval 1000 probes 3" \
        'received CLOSE 1 \(drained\) flags 0 return-after 2500 ""'
}

check_two_clients() {
    start_server
    client_ends_with 0 --pings 2 --every 10 &
    local first=$!
    command_of "$protocol" "$client"
    "${command[@]}" client 127.0.0.1 "$port" --limit 20 --pings 2 --every 10 \
        >"$scratch/second.log" 2>&1 || fail "the second client"
    wait "$first" || fail "the first client"
    stop_server
}

check_failures_are_reported() {
    start_server --once --mute --close-after 100
    client_ends_with 1 --pings 1
    server_ends_with 0
    grep -q "closed too early: 0 of 1" "$scratch/client.log" || fail "no reason was given"
    start_server --mute
    client_ends_with 3 --pings 1 --limit 1
    stop_server
    client_ends_with 1 --pings 1 # the server has ended
    client_ends_with 2 --no-such-option
}

check_garbage() {
    start_server --once
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    head -c 1028 /dev/zero >&3
    server_ends_with 1
    exec 3>&-
    grep -q "illegal" "$scratch/server.log" || fail "garbage was accepted"
}

check_little_endian_pong() {
    [[ $protocol == message1028 ]] || return 0
    start_server --once --little-endian-pong --probe 20
    client_ends_with 0 --pings 2 --every 20 --stay 200 --little-endian-pong
    server_ends_with 0
    printed client "received PONG 2, in little-endian"
    printed server "received PONG 1, in little-endian"
}

checks=$(declare -F | sed -n 's/^declare -f \(check_.*\)/\1/p')

check_pair() { # PROTOCOL CLIENT SERVER
    protocol=$1 client=$2 server=$3
    scratch=$programs/$1-$2-$3.d
    server_pid=
    trap '[[ -z $server_pid ]] || kill "$server_pid" 2>/dev/null || true' EXIT
    mkdir "$scratch"
    for check in $checks; do
        case="$protocol, client in $client, server in $server, ${check//_/ }"
        rm -f "$scratch"/*.log
        "$check"
    done
    printf '   %s: client in %s, server in %s: agree\n' "$protocol" "$client" "$server"
}

# The checks mostly wait, so all pairs run in parallel.
pids=()
for protocol in native message1028; do
    for client in c py; do
        for server in c py; do
            (check_pair "$protocol" "$client" "$server") &
            pids+=($!)
        done
    done
done
failed=0
for pid in "${pids[@]}"; do wait "$pid" || failed=$((failed + 1)); done
((failed == 0)) || { printf '   %d of %d pairs disagree\n' "$failed" "${#pids[@]}" >&2 && exit 1; }
printf '   %d pairs agree in %d checks each\n' "${#pids[@]}" "$(wc -w <<<"$checks")"
