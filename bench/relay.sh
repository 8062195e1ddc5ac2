#!/usr/bin/env bash
# Builds the open control plane https://github.com/abn/dbos-relay (MIT) from its Go module, to be measured beside
# ours, and prints the path of its program:
#
#   bench/relay.sh DIRECTORY
#
# Prints nothing on standard output, and why on standard error, if it cannot be built here. Its module calls itself
# github.com/abn/relay. Only built and run: nothing of it is part of this repository.
set -euo pipefail
directory=$(mkdir -p "$1" && cd "$1" && pwd)
if [[ -x $directory/relay ]]; then
    echo "$directory/relay"
    exit
fi
command -v go >/dev/null || { echo "relay: no Go to build it with" >&2; exit 0; }
for module in github.com/abn/relay github.com/abn/dbos-relay; do
    if GOBIN=$directory GOFLAGS=-buildvcs=false go install "$module/cmd/relay@latest" >"$directory/$$.log" 2>&1; then
        echo "$directory/relay"
        rm -f "$directory/$$.log"
        exit
    fi
    echo "relay: $module cannot be built: $(tail -n 2 "$directory/$$.log" | tr '\n\t' '  ')" >&2
done
rm -f "$directory/$$.log"
