#!/usr/bin/env bash
# Makes the secrets of the compose files, each in a file of its own, unless they are there already:
#
#   deploy/secrets.sh [DIRECTORY]      default: deploy/secrets
#
# The files are readable for the containers' users; the directory is closed to everybody else on this machine.
set -euo pipefail
cd "${1:-$(mkdir -p "$(dirname "$0")/secrets" && cd "$(dirname "$0")/secrets" && pwd)}"
chmod 700 .

secret() { # NAME VALUE
    if [[ ! -e $1 ]]; then
        printf '%s' "$2" >"$1"
        chmod 644 "$1"
    fi
}
random() { od -An -vtx1 -N24 /dev/urandom | tr -d ' \n'; }

secret postgres_password "$(random)"
for database in segno orders checkout; do
    secret "${database}_database_url" "postgresql://postgres:$(cat postgres_password)@postgres:5432/$database"
done
secret admin_key "dbos_$(random)"
secret encryption_key "$(random)"
echo "The secrets are in $PWD."
