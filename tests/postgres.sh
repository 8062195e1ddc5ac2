#!/usr/bin/env bash
# Runs a command with a PostgreSQL of its own:
#
#   tests/postgres.sh COMMAND [ARGUMENT…]
#
# The command finds the superuser's URL in SEGNO_TEST_POSTGRES_URL. The cluster lives in a temporary
# directory on a free port of loopback, without passwords, and is gone when the command ends. If the
# variable is set already, that server is used and nothing is started. Without a PostgreSQL to start,
# the command runs without the variable.
#
#   SEGNO_POSTGRES_BIN      the directory of initdb and pg_ctl, if not where distributions put it
#   SEGNO_POSTGRES_DURABLE  "1": commits reach the disk (benchmarks). Otherwise they are left to the
#                           operating system, which loses nothing when processes are killed
#
# `tests/postgres.sh --find` prints the programs' directory, or fails.
set -euo pipefail

find_programs() {
    local candidates dir
    candidates=$(ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin \
        2>/dev/null | sort --version-sort --reverse || true)
    for dir in "${SEGNO_POSTGRES_BIN:-}" $candidates "$(dirname "$(command -v initdb || echo /)")"; do
        if [[ -n $dir && -x $dir/initdb && -x $dir/pg_ctl ]]; then
            echo "$dir"
            return
        fi
    done
    return 1
}

if [[ ${1:-} == --find ]]; then
    find_programs
    exit
fi
if [[ -n ${SEGNO_TEST_POSTGRES_URL:-} ]]; then
    exec "$@"
fi
if ! programs=$(find_programs); then
    echo "postgres: no server programs found; set SEGNO_POSTGRES_BIN or install PostgreSQL" >&2
    exec "$@"
fi

# PostgreSQL refuses to run as root: there it runs as the distribution's user for it.
as_owner=()
owner=$(id -un)
if ((EUID == 0)); then
    owner=nobody
    if id postgres &>/dev/null; then owner=postgres; fi
    as_owner=(runuser -u "$owner" --)
fi

# Not inside the clone: its path may be closed to that user.
home=$(mktemp -d "${TMPDIR:-/tmp}/segno-postgres.XXXXXX")
chown "$owner" "$home"

pg() {
    (cd "$home" && ${as_owner[@]+"${as_owner[@]}"} "$programs/$1" "${@:2}")
}

stop() {
    pg pg_ctl stop --pgdata="$home/data" --mode=immediate --silent &>/dev/null || true
    rm -rf "$home"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

pg initdb --pgdata="$home/data" --username=postgres --auth=trust --encoding=UTF8 --no-sync \
    >"$home/initdb.log" 2>&1 || { cat "$home/initdb.log" >&2; exit 1; }
cat >>"$home/data/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 500
CONF
if [[ ${SEGNO_POSTGRES_DURABLE:-} != 1 ]]; then
    printf 'fsync = off\nfull_page_writes = off\n' >>"$home/data/postgresql.conf"
fi

# Between finding a free port and listening on it, somebody else may take it: then try another.
for attempt in 1 2 3 4 5; do
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    if pg pg_ctl start --pgdata="$home/data" --wait --silent --log="$home/server.log" --options="-p $port"; then
        break
    elif ((attempt == 5)); then
        cat "$home/server.log" >&2
        exit 1
    fi
done

export SEGNO_TEST_POSTGRES_URL="postgres://postgres@127.0.0.1:$port/postgres"
"$@"
