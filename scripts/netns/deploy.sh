# shellcheck shell=bash
# One deployment in a sandbox of its own. For `netns.sh deploy`, whose deploy.py starts one of these for each run.

# verb_deploy_one NAME PLACE [WORD…]: builds the place, and has the programs run there.
verb_deploy_one() {
    local name=$1 place=$2
    shift 2
    PATH=$PATH:/usr/sbin:/sbin
    local file
    for file in servers homes overlays; do
        # shellcheck source=/dev/null
        source "$NETNS_SCRIPTS/deploy/$file.sh"
    done
    own_etc
    "place_${place//-/_}" "$@"
    "$NETNS_PYTHON" "$NETNS_SCRIPTS/deploy/inside.py" "$name"
}

# own_etc: names are asked for on loopback, where inside.py answers, and no file of this machine knows any.
own_etc() {
    printf '127.0.0.1 localhost\n' >"$NETNS_WORK/hosts"
    printf 'nameserver 127.0.0.1\n' >"$NETNS_WORK/resolv.conf"
    printf 'hosts: files dns\n' >"$NETNS_WORK/nsswitch.conf"
    local file target
    for file in hosts resolv.conf nsswitch.conf; do
        # It may be a link into /run, which is private here, and empty.
        target=$(readlink -m "/etc/$file")
        [[ -e $target ]] || { mkdir -p "${target%/*}" && : >"$target"; }
        mount --bind "$NETNS_WORK/$file" "$target"
    done
}
