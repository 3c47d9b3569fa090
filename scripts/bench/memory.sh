#!/usr/bin/env bash
# resident memory of a relay for each idle peer that is logged in
source "$(dirname "$0")/rounds.sh"

PEERS=${1:-2000}
build_ours
build_bench
WORK=$(mktemp -d)
RELAY='' PEERS_PID=''
trap 'kill "$RELAY" "$PEERS_PID" 2>/dev/null || true; rm -rf "$WORK"' EXIT

# await FILE REGEX
await() {
    local deadline=$((SECONDS + 300))
    until grep -qE "$2" "$1" 2>/dev/null; do
        ((SECONDS < deadline)) || { printf 'no %s in %s\n' "$2" "$1" >&2 && exit 1; }
        sleep 0.1
    done
}

resident() {
    awk '/^VmRSS:/ { print $2 }' "/proc/$RELAY/status"
}

# sessions: how many peers the relay counts.
sessions() {
    curl --silent --noproxy '*' "http://$ADMIN/metrics" | awk '/^culvert_relay_sessions / { print $2 }'
}

"$CULVERT_BIN/relay" serve --http 127.0.0.1:0 --admin 127.0.0.1:0 --data "$WORK/state" --json >"$WORK/out" &
RELAY=$!
await "$WORK/out" listening
HTTP=$(grep -oP '"http":\["\K[^"]+' "$WORK/out")
ADMIN=$(grep -oP '"admin":"\K[^"]+' "$WORK/out")
ID=$(grep -oP '"peer_id":"\K[^"]+' "$WORK/out")
before=$(resident)
mkfifo "$WORK/end"
"$BENCH" idle "http://$HTTP/relay" "$ID" "$PEERS" <"$WORK/end" >"$WORK/peers" &
PEERS_PID=$!
exec {END}>"$WORK/end"
await "$WORK/peers" 'logged in'
until [[ $(sessions) == "$PEERS" ]]; do
    sleep 0.1
done
after=$(resident)
# A ping later, so that every buffer that an idle peer ever uses is there.
sleep 20
later=$(resident)
printf 'the relay: %d kB alone, %d kB with %d idle peers, %d kB a ping later\n' "$before" "$after" "$PEERS" "$later"
awk -v grown="$((later - before))" -v peers="$PEERS" \
    'BEGIN { printf "%.1f kB for each idle peer (goal: at most 40)\n", grown / peers }'
exec {END}>&-
wait "$PEERS_PID"
