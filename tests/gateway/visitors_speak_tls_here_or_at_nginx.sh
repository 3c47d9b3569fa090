#!/usr/bin/env bash
# Visitors over TLS, to real programs: at the server's own door, and through the real nginx with the configuration that
# the documentation gives. A second nginx is the local server of one share. On loopback.
source "$(dirname "$0")/../../scripts/netns/claim.sh"
source "$ROOT/scripts/netns/programs.sh"

TEST_NODE=${TEST_NODE:-$ROOT/target/test-node}
for program in node nginx openssl; do
    command -v "$program" >/dev/null || unable "$program is missing (Debian: nodejs, nginx-light, openssl)"
done
[[ -d $TEST_NODE/node_modules/ws ]] || unable "the npm package ws is missing from $TEST_NODE"
NETNS_WORK=$(mktemp -d)
trap 'stop_programs; rm -rf "$NETNS_WORK"' EXIT
BIN=${CULVERT_BIN:-$ROOT/target/release}
CERT=$NETNS_WORK/cert.pem KEY=$NETNS_WORK/key.pem

# issue CERT KEY: a certificate for the server and the two shares.
issue() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
        -addext basicConstraints=critical,CA:FALSE \
        -addext subjectAltName=DNS:localhost,DNS:app.localhost,DNS:files.localhost -keyout "$2" -out "$1" 2>/dev/null
}

# free_port: one that nobody has now.
free_port() {
    "$NETNS_PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# start_nginx NAME BLOCK: nginx in the foreground with this inside `http`.
start_nginx() {
    local dir=$NETNS_WORK/$1
    mkdir -p "$dir"
    printf '%s\n' 'daemon off; master_process off; worker_rlimit_nofile 4096;' "pid $dir/pid; error_log $dir/errors;" \
        'events { worker_connections 2048; }' "http { access_log off; client_body_temp_path $dir/body;" \
        "proxy_temp_path $dir/proxy; types { text/plain txt; } $2 }" >"$dir/nginx.conf"
    spawn "$1" - nginx -p "$dir" -c "$dir/nginx.conf"
}

# The local server: a file, in pieces and compressed, on connections that are kept.
start_files() {
    FILES=$(free_port)
    mkdir -p "$NETNS_WORK/www"
    yes 'a file of nginx' | head -c 2000000 >"$NETNS_WORK/www/file.txt"
    start_nginx files "gzip on; gzip_types text/plain; gzip_proxied any; keepalive_timeout 60;
        server { listen 127.0.0.1:$FILES; root $NETNS_WORK/www; }"
    await_port files - "$FILES"
}

# start_front PORT UPSTREAM: the documented configuration, with what everybody replaces replaced. It comes from an address
# of its own, so that it alone is the trusted proxy.
start_front() {
    local conf
    conf=$(sed -e "s/listen 443 ssl http2/listen 127.0.0.1:$1 ssl http2/" -e '/listen \[::\]:443/d' \
        -e "s/server 127.0.0.1:8080;/server 127.0.0.1:$2;/" -e 's/example.com \*.example.com/localhost *.localhost/' \
        -e "s|/etc/ssl/culvert/fullchain.pem|$CERT|" -e "s|/etc/ssl/culvert/privkey.pem|$KEY|" \
        -e 's|proxy_pass http://culvert;|& proxy_bind 127.0.0.2;|' "$ROOT/docs/nginx/culvert.conf")
    start_nginx front "$conf"
    await_port front - "$1"
}

visit() {
    NODE_PATH=$TEST_NODE/node_modules timeout 120 node "$ROOT/tests/gateway/secure.js" "$1" "$BIN/peer" "$2" "$CERT" \
        "$FILES" "$3"
}

serve() {
    spawn "$@" --json --udp 127.0.0.1:0 --http 127.0.0.1:0 --admin 127.0.0.1:0 --tunnel-ports 0-0
}

# certificate_at PORT: the fingerprint of the certificate that is served there.
certificate_at() {
    openssl s_client -connect "127.0.0.1:$1" -servername localhost -alpn h2,http/1.1 </dev/null 2>/dev/null |
        openssl x509 -noout -fingerprint -sha256
}

a_certificate_is_replaced_on_sighup() {
    local before after
    before=$(certificate_at "$1")
    issue "$CERT.next" "$KEY.next"
    after=$(openssl x509 -noout -fingerprint -sha256 -in "$CERT.next")
    mv "$KEY.next" "$KEY" && mv "$CERT.next" "$CERT"
    kill -HUP "${PROGRAMS[own]}"
    [[ $before != "$after" ]]
    until [[ $(certificate_at "$1") == "$after" ]]; do
        ((SECONDS < 100)) || return 1
    done
    # And a bad one is refused with one line.
    printf 'nonsense\n' >"$CERT"
    kill -HUP "${PROGRAMS[own]}"
    await_stderr own 'the certificate stays the one before: .* holds no certificate in PEM'
    [[ $(certificate_at "$1") == "$after" ]]
}

# await_stderr NAME REGEX: until the program says so.
await_stderr() {
    local deadline=$((SECONDS + 10))
    until grep -q "$2" "$NETNS_WORK/$1/err"; do
        ((SECONDS < deadline)) || return 1
    done
}

issue "$CERT" "$KEY"
mkdir -p "$NETNS_WORK/home"
export HOME=$NETNS_WORK/home XDG_STATE_HOME=$NETNS_WORK/home/state
start_files || claim "$NAME" false
failed=0

printf -- '--- the server speaks TLS itself\n'
serve own - "$BIN/rendezvous" serve --https 127.0.0.1:0 --cert "$CERT" --key "$KEY"
read -r https http < <(await_event own 10 listening --print https http) || claim "$NAME" false
visit own "${https##*:}" "${http##*:}" || failed=1
claim a_certificate_is_replaced_on_sighup a_certificate_is_replaced_on_sighup "${https##*:}" || failed=1

printf -- '--- nginx speaks TLS for it\n'
issue "$CERT" "$KEY"
PORT=$(free_port)
serve behind - "$BIN/rendezvous" serve --public-url "https://localhost:$PORT" --trusted-proxy 127.0.0.2
http=$(await_event behind 10 listening --print http) || claim "$NAME" false
start_front "$PORT" "${http##*:}" || claim "$NAME" false
visit nginx "$PORT" "${http##*:}" || failed=1
exit "$failed"
