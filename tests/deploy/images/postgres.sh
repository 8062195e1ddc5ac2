#!/bin/sh
# Stands for the official PostgreSQL image: a cluster is made when the volume is empty, with the password from a file
# and the scripts of /docker-entrypoint-initdb.d, and then served on all addresses.
set -eu
data=/var/lib/postgresql/data
chown postgres "$data"
chmod 700 "$data"
as_owner() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }
cd "$data"
if [ ! -s "$data/PG_VERSION" ]; then
    install --owner=postgres --mode=600 "$POSTGRES_PASSWORD_FILE" /tmp/password
    as_owner initdb --pgdata="$data" --username="$POSTGRES_USER" --auth=scram-sha-256 --pwfile=/tmp/password \
        --encoding=UTF8 --locale=C.UTF-8 --no-sync
    echo "host all all all scram-sha-256" >>"$data/pg_hba.conf"
    install --directory --owner=postgres /tmp/socket
    as_owner pg_ctl --pgdata="$data" --wait --options="-c fsync=off -c listen_addresses='' -k /tmp/socket" start
    for script in /docker-entrypoint-initdb.d/*.sql; do
        PGPASSWORD=$(cat "$POSTGRES_PASSWORD_FILE") \
            psql --host=/tmp/socket --username="$POSTGRES_USER" --set=ON_ERROR_STOP=1 --file="$script"
    done
    as_owner pg_ctl --pgdata="$data" --wait --mode=fast stop
fi
exec setpriv --reuid=postgres --regid=postgres --clear-groups \
    postgres -D "$data" -c listen_addresses='*' -c unix_socket_directories=/tmp -c fsync=off
