#!/usr/bin/env bash
# Runs a command behind a transaction pooler:
#
#   tests/postgres.sh tests/pooler.sh COMMAND [ARGUMENT…]
#
# Starts PgBouncer on a free port of loopback, in pool mode `transaction`, in front of the server that
# SEGNO_TEST_POSTGRES_URL names, and lets the command find the pooler in that variable instead. It has few
# connections for many clients, and hands out the one that rested longest, so that two transactions of a client
# hardly ever meet the same session.
set -euo pipefail

: "${SEGNO_TEST_POSTGRES_URL:?names no Postgres; see tests/postgres.sh}"
# Debian keeps it where only root looks.
PATH=$PATH:/usr/sbin
command -v pgbouncer >/dev/null || { echo "pooler: no pgbouncer found" >&2; exit 1; }

read -r host port user < <(python3 - "$SEGNO_TEST_POSTGRES_URL" <<'PY'
import sys
from urllib.parse import urlsplit

url = urlsplit(sys.argv[1])
print(url.hostname, url.port or 5432, url.username or "postgres")
PY
)

home=$(mktemp -d "${TMPDIR:-/tmp}/segno-pooler.XXXXXX")
as=()
if ((EUID == 0)); then
    # It refuses to run as root.
    as=(--user nobody)
    chown nobody "$home"
fi
stop() {
    [[ -z ${pid:-} ]] || kill "$pid" 2>/dev/null || true
    rm -rf "$home"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

own=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$home/pgbouncer.ini" <<INI
[databases]
* = host=$host port=$port user=$user
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $own
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 5
server_round_robin = 1
max_client_conn = 2000
max_db_connections = 20
server_idle_timeout = 5
ignore_startup_parameters = extra_float_digits
INI
pgbouncer --quiet "${as[@]}" "$home/pgbouncer.ini" >"$home/log" 2>&1 &
pid=$!
for _ in $(seq 100); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$own") 2>/dev/null; then
        break
    fi
    kill -0 "$pid" 2>/dev/null || { cat "$home/log" >&2; exit 1; }
    sleep 0.1
done

export SEGNO_TEST_POSTGRES_URL="postgres://$user@127.0.0.1:$own/postgres?pooler=transaction"
"$@"
