#!/usr/bin/env bash
# What Culvert is for: a Samba server and an SSH login at home, used from outside by smbclient, ssh and scp. Directly
# between two NATs; where UDP is blocked at home, through the relay; where it is blocked outside and nothing but an HTTP
# proxy leads out; and with the direct path cut while a file is on its way. Every file arrives whole, both ways.
source "$(dirname "$0")/../../scripts/netns/claim.sh"

BYTES=$(at_size 8388608 268435456)

smb_port=1445 ssh_port=2222

start_samba() {
    local dir=$NETNS_WORK/samba
    mkdir -p "$dir/private" "$dir/share"
    cat >"$dir/smb.conf" <<CONF
[global]
server role = standalone server
smb ports = $smb_port
interfaces = 127.0.0.1
bind interfaces only = yes
map to guest = bad user
guest account = root
disable spoolss = yes
load printers = no
log file = $dir/log
pid directory = $dir
lock directory = $dir
state directory = $dir
cache directory = $dir
private dir = $dir/private
ncalrpc dir = $dir/ncalrpc
[nas]
path = $dir/share
guest ok = yes
read only = no
force user = root
CONF
    spawn samba h1 smbd --foreground --configfile="$dir/smb.conf"
}

start_ssh() {
    local dir=$NETNS_WORK/ssh
    mkdir -p "$dir" /run/sshd
    ssh-keygen -q -t ed25519 -N '' -f "$dir/host"
    ssh-keygen -q -t ed25519 -N '' -f "$dir/visitor"
    cat >"$dir/sshd_config" <<CONF
ListenAddress 127.0.0.1:$ssh_port
HostKey $dir/host
AuthorizedKeysFile $dir/visitor.pub
PidFile $dir/pid
StrictModes no
UsePAM no
PermitRootLogin yes
Subsystem sftp internal-sftp
CONF
    spawn ssh h1 "$(command -v sshd)" -D -e -f "$dir/sshd_config"
}

# connects ENVIRONMENT…: the NAS's two ports are open at home 2.
connects() {
    head -c "$BYTES" /dev/urandom >"$NETNS_WORK/big.bin"
    HASH=$(sha256sum <"$NETNS_WORK/big.bin")
    start_samba
    start_ssh
    await_port samba h1 "$smb_port" || { cat "$NETNS_WORK/samba/log" "$NETNS_WORK"/samba/err 2>/dev/null; return 1; }
    await_port ssh h1 "$ssh_port" || { cat "$NETNS_WORK/ssh/err"; return 1; }
    spawn rendezvous pub "$NETNS_BIN/rendezvous" --json --udp "$NETNS_SERVER:3478" --http "$NETNS_SERVER:8080"
    await_event rendezvous 10 listening >/dev/null || return 1
    spawn share h1 "$NETNS_BIN/peer" share "$smb_port" "$ssh_port" --server "http://$NETNS_SERVER:8080" --json
    TICKET=$(await_event share 20 ready --print ticket) || return 1
    spawn connect h2 env "$@" "$NETNS_BIN/peer" connect "$TICKET" --json
    await_event connect 20 ready >/dev/null
}

smb() {
    in_ns h2 smbclient --no-pass --port "$smb_port" //127.0.0.1/nas --directory / --command "$1" >/dev/null
}

uploads_and_downloads() {
    (cd "$NETNS_WORK" && smb 'put big.bin; get big.bin back.bin') || return 1
    [[ $(sha256sum <"$NETNS_WORK/back.bin") == "$HASH" ]]
}

ssh_options() {
    printf -- '-o\nStrictHostKeyChecking=no\n-o\nUserKnownHostsFile=/dev/null\n-o\nLogLevel=ERROR\n-i\n%s\n' "$NETNS_WORK/ssh/visitor"
}

logs_in_and_copies() {
    local options
    mapfile -t options < <(ssh_options)
    [[ $(in_ns h2 ssh "${options[@]}" -p "$ssh_port" root@127.0.0.1 echo culvert) == culvert ]] || return 1
    in_ns h2 scp -q "${options[@]}" -P "$ssh_port" "$NETNS_WORK/big.bin" "root@127.0.0.1:$NETNS_WORK/copied.bin" || return 1
    [[ $(sha256sum <"$NETNS_WORK/copied.bin") == "$HASH" ]]
}

directly() {
    connects && last_path connect direct && uploads_and_downloads && logs_in_and_copies && last_path connect direct
}

through_the_relay() {
    connects && uploads_and_downloads && logs_in_and_copies && last_path connect relay
}

through_a_proxy() {
    printf 'Port 3128\nListen %s\nTimeout 600\nLogLevel Critical\nConnectPort 8080\n' "$NETNS_SERVER" >"$NETNS_WORK/proxy.conf"
    spawn proxy pub tinyproxy -d -c "$NETNS_WORK/proxy.conf"
    # Not even TCP leads out of home 2 but to the proxy.
    in_ns r2 nft -f - <<NFT
table ip only_proxy {
    chain forward {
        type filter hook forward priority -20;
        iifname lan ip daddr $NETNS_SERVER tcp dport 3128 accept
        iifname lan drop
    }
}
NFT
    connects "HTTPS_PROXY=http://$NETNS_SERVER:3128" && uploads_and_downloads && logs_in_and_copies && last_path connect relay
}

while_the_path_is_cut() {
    connects && last_path connect direct || return 1
    # In the middle of the upload.
    cut_udp $((BYTES / 2))
    uploads_and_downloads && last_path connect relay && logs_in_and_copies
}

if [[ ${1:-} == inside ]]; then
    # shellcheck source=scripts/netns/programs.sh
    source "$NETNS_LIB"
    trap stop_programs EXIT
    claim "$NAME (${3//_/ })" "$3"
else
    for program in smbd:samba smbclient:smbclient sshd:openssh-server scp:openssh-client tinyproxy:tinyproxy; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${program%%:*}" >/dev/null ||
            unable "${program%%:*} is missing (Debian: ${program#*:})"
    done
    [[ $(id -u) == 0 ]] || unable "smbd and sshd are only started as root"
    export PATH=$PATH:/usr/sbin:/sbin
    SELF=$(realpath "$0") status=0
    pair() {
        netns run --nat1 "$1" --nat2 "$2" -- "$SELF" inside "$1 × $2" "$3" || status=$?
    }
    pair port-restricted port-restricted directly
    pair udp-blocked port-restricted through_the_relay
    pair port-restricted udp-blocked through_a_proxy
    pair port-restricted port-restricted while_the_path_is_cut
    ((status != SKIPPED)) || unable "there are no namespaces"
    exit "$status"
fi
