# shellcheck shell=bash
# What the check-* scripts of this directory have in common. They source it at the top
# of the checkout, as root, and have $work, a directory of their own.
#
# FJMCP_DEPLOY_TREES: a directory with bare Debians, made when missing, to save time.
# FJMCP_DEPLOY_KEEP: not empty: leave the work directory.
# PYTHON: has this package and its extra "test".

PYTHON=${PYTHON:-python3}
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive

say() { printf -- '-- [%ss] %s\n' "$SECONDS" "$*"; }
quietly() { "$@" >>"$work/log" 2>&1 || { tail -n 100 "$work/log"; return 1; }; }

# need PACKAGE...: install what is missing, one caller at a time.
need() {
    local package missing=()
    for package in "$@"; do
        dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
    done
    [ "${#missing[@]}" -eq 0 ] || flock /var/lock/fjmcp-check-apt sh -e -c '
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends "$@" >/dev/null' sh "${missing[@]}"
}

mirror() { awk '/^URIs:/ { print $2; exit }' /etc/apt/sources.list.d/debian.sources; }

# bare NAME: print the path of the tar file of a bare Debian.
#   base     in the place of docker.io/library/python: Debian's Python under its names
#   golang   in the place of docker.io/library/golang
#   podman   boots, with podman 5
#   systemd  boots, with the systemd of Debian 12
bare() {
    local name=$1 file=${FJMCP_DEPLOY_TREES:-$work}/$1.tar from
    local small=(--dpkgopt='path-exclude=/usr/share/doc/*'
        --dpkgopt='path-exclude=/usr/share/locale/*')
    from=$(mirror)
    [ -s "$file" ] || case $name in
        base)
            # trixie, for its Python 3.13. tzdata and the certificates are in the real
            # one, too.
            mmdebstrap --quiet --mode=root --variant=apt --format=tar "${small[@]}" \
                --include=python3-venv,ca-certificates,tzdata \
                --customize-hook='chroot "$1" sh -c "python3 -m venv /usr/local/py &&
                    ln -s ../py/bin/python ../py/bin/python3 ../py/bin/pip /usr/local/bin/"' \
                --customize-hook='rm -f "$1"/etc/apt/sources.list' \
                trixie "$file.new" "$from" ;;
        golang)
            mmdebstrap --quiet --mode=root --variant=essential --format=tar "${small[@]}" \
                --include=golang-1.26-go,ca-certificates \
                trixie "$file.new" "deb $from trixie main" "deb $from trixie-backports main" ;;
        podman)
            mmdebstrap --quiet --mode=root --variant=apt --format=tar "${small[@]}" \
                --include=systemd,systemd-sysv,dbus,podman,crun,netavark,aardvark-dns,nftables \
                --include=iproute2,ca-certificates,procps,python3,python3-attr \
                --include=uidmap,passt,dbus-user-session,libpam-systemd \
                trixie "$file.new" "$from" ;;
        systemd)
            mmdebstrap --quiet --mode=root --variant=apt --format=tar "${small[@]}" \
                --include=systemd,systemd-sysv,dbus,python3-venv,ca-certificates \
                --include=util-linux,procps \
                bookworm "$file.new" "$from" ;;
    esac || return 1
    [ -s "$file" ] || mv "$file.new" "$file" || return 1
    printf '%s\n' "$file"
}

# sources DIRECTORY: copy what git would commit to a new directory.
sources() {
    mkdir "$1"
    git ls-files -co --exclude-standard -z |
        while IFS= read -r -d '' name; do [ ! -e "$name" ] || printf '%s\0' "$name"; done |
        tar --null --files-from=- -cf - | tar -xf - -C "$1"
}

# boot TREE SECONDS UNIT TESTS_COMMAND [ARGUMENT OF systemd-nspawn...]: boot the tree in
# namespaces of its own, with no network but loopback, run a shell command line in
# /srv/check as soon as it is up, print what that printed, return its exit status.
boot() {
    local tree=$1 seconds=$2 unit=$3 command=$4 group status
    shift 4
    printf '%s\n' "$command" >"$tree/srv/check/command"
    cat >"$tree/etc/systemd/system/check.service" <<UNIT
[Unit]
After=multi-user.target
[Service]
Type=oneshot
TimeoutStartSec=$seconds
WorkingDirectory=/srv/check
ExecStart=/bin/sh -c 'sh command >check.out 2>&1; echo \$? >check.rc; journalctl --unit $unit --no-pager >check.journal; systemctl poweroff --no-block'
UNIT
    mkdir -p "$tree/etc/systemd/system/multi-user.target.wants"
    ln -sf ../check.service "$tree/etc/systemd/system/multi-user.target.wants/"
    ln -sf /lib/systemd/system/multi-user.target "$tree/etc/systemd/system/default.target"
    # A control group of its own, and a pure cgroup2: what systemd wants to find.
    group=/sys/fs/cgroup/unified/fjmcp-check.$$
    [ -d /sys/fs/cgroup/unified ] || group=/sys/fs/cgroup/fjmcp-check.$$
    mkdir "$group"
    bash -c 'echo $$ >"$1/cgroup.procs"
        tree=$2 seconds=$3
        shift 3
        exec timeout -k 5 "$seconds" unshare -m --propagation private bash -c "
            umount -l /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup &&
            exec systemd-nspawn --register=no --keep-unit --private-network \
                --capability=all --console=pipe \"\$@\" -b" _ -D "$tree" "$@"' \
        _ "$group" "$tree" $((seconds + 20)) "$@" </dev/null >"$work/boot.log" 2>&1 || true
    find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null || true
    cat "$tree/srv/check/check.out" 2>/dev/null || tail -n 50 "$work/boot.log"
    status=$(cat "$tree/srv/check/check.rc" 2>/dev/null || echo 1)
    [ "$status" -eq 0 ] || tail -n 100 "$tree/srv/check/check.journal" || true
    return "$status"
}
