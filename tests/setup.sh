#!/usr/bin/env bash
# Installs what `make test` needs beyond the toolchains and is not there yet: the PostgreSQL server,
# Python's venv module, a C compiler, Chromium, Go, a JDK with Maven, Prometheus, Caddy, nginx, sqlite3, buildah, PgBouncer. Safe to repeat; does nothing on a
# machine that has them.
#
# Needs root and apt for that. Elsewhere it prints what to install; the stages that lack something
# are then skipped by tests/run.py, with the reason.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

missing=()
"$here/postgres.sh" --find >/dev/null || missing+=(postgresql)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
command -v cc >/dev/null || missing+=(build-essential)
[[ -x ${SEGNO_CHROMIUM:-/usr/bin/chromium} ]] || missing+=(chromium)
command -v javac >/dev/null || missing+=(default-jdk-headless)
command -v mvn >/dev/null || missing+=(maven)
{ command -v promtool && command -v prometheus; } >/dev/null || missing+=(prometheus)
command -v caddy >/dev/null || missing+=(caddy)
command -v ip >/dev/null || missing+=(iproute2)
PATH=$PATH:/usr/sbin command -v pgbouncer >/dev/null || missing+=(pgbouncer)
PATH=$PATH:/usr/sbin command -v nginx >/dev/null || missing+=(nginx-light)
command -v sqlite3 >/dev/null || missing+=(sqlite3)
command -v buildah >/dev/null || missing+=(buildah)

go_release=$(go env GOVERSION 2>/dev/null || true) # go1.25.3
if ! [[ $go_release =~ ^go1\.([0-9]+) ]] || ((BASH_REMATCH[1] < 25)); then
    offered=$(apt-cache policy golang-go 2>/dev/null | awk '$1 == "Candidate:" { print $2 }')
    if [[ $offered =~ ^2:1\.([0-9]+) ]] && ((BASH_REMATCH[1] >= 25)); then
        missing+=(golang-go)
    else
        echo "setup: no Go 1.25 or later found; install one from https://go.dev/dl" >&2
    fi
fi
if ! command -v cargo >/dev/null && [[ ! -x $HOME/.cargo/bin/cargo ]]; then
    echo "setup: no Rust toolchain found; install one from https://rustup.rs" >&2
fi
if ! command -v npm >/dev/null; then
    echo "setup: no Node.js found; install 20.19 or later from https://nodejs.org" >&2
fi
if ((${#missing[@]} == 0)); then
    exit 0
fi
if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
    echo "setup: please install (names of Debian's packages): ${missing[*]}" >&2
    exit 0
fi

echo "setup: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
if [[ " ${missing[*]} " == *" postgresql "* && ! -e /etc/postgresql-common/createcluster.conf ]]; then
    # Only the programs are wanted, not a cluster of the machine's own that starts at boot.
    mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
fi
if [[ " ${missing[*]} " =~ \ (prometheus|caddy|nginx-light|pgbouncer)\  && ! -e /usr/sbin/policy-rc.d ]]; then
    # The same: no service of the machine's own. Debian asks this program whether one may be started.
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
{
    apt-get update
    apt-get install --yes --no-install-recommends "${missing[@]}"
} >&2
