#!/usr/bin/env bash
# Builds the server as it was before, and prints where the binary is:
#
#   tests/deploy/previous.sh [COMMIT]
#
# Without a COMMIT: what is committed, if the server's sources were changed since; else the newest commit before this one
# in which they were others. Only the server is compiled, about two minutes: the dependencies are those that
# the tests have built, linked into a target directory of its own. The binary is kept in .cache until another is wanted.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
sources=(Cargo.toml Cargo.lock protocol/src server/src server/recovery/src migrations)

trees() { for each in "${sources[@]}"; do git rev-parse "$1:$each"; done; }

before() {
    local commit now
    if ! git diff --quiet HEAD -- "${sources[@]}"; then
        git rev-parse HEAD
        return
    fi
    now=$(trees HEAD)
    # A clone that was cut short may not reach far enough.
    for commit in $(git rev-list --first-parent --max-count=200 HEAD~1 -- "${sources[@]}" 2>/dev/null); do
        if [[ $(trees "$commit") != "$now" ]]; then
            echo "$commit"
            return
        fi
    done
    echo "previous: no commit before this one; git fetch --unshallow" >&2
    return 1
}

commit=$(git rev-parse --verify --quiet "${1:-$(before)}^{commit}") || { echo "previous: there is no commit ${1:-}" >&2; exit 1; }
place=$root/.cache/deploy/previous
mkdir -p "$place"
exec 9>"$place.lock"
flock 9
binary=$place/$commit/segno
if [[ ! -x $binary ]]; then
    target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
    rm -rf "$place"
    mkdir -p "$place/source" "$place/target/debug" "$place/$commit"
    git archive "$commit" | tar --extract --directory "$place/source"
    for part in deps build .fingerprint; do
        # Links, not copies: nothing is written into a dependency's files. The target may be on another file system.
        if [[ -d $target/debug/$part ]]; then
            cp --archive --link "$target/debug/$part" "$place/target/debug/" 2>/dev/null ||
                cp --archive "$target/debug/$part" "$place/target/debug/"
        fi
    done
    # The whole workspace is named, for its features are what the dependencies were compiled with.
    (cd "$place/source" && CARGO_TARGET_DIR=$place/target cargo build --quiet --workspace --bin segno) >&2
    cp "$place/target/debug/segno" "$binary"
    rm -rf "$place/source" "$place/target"
fi
git log -1 --format='previous: %h %s' "$commit" >&2
echo "$binary"
