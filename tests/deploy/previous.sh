#!/usr/bin/env bash
# Builds the server as it was before, and prints where the binary is:
#
#   tests/deploy/previous.sh [COMMIT]
#
# Without a COMMIT: what is committed, if the server's sources were changed since; else the newest commit before this one
# in which they were others and that compiles. Only the server is compiled, about two minutes: the dependencies are those
# that the tests have built, linked into a target directory of its own. The binary is kept in .cache until another is
# wanted.
#
# Without a commit before this one (a clone of depth 1, an unpacked archive), it is the binary under test itself,
# $SEGNO_BIN or what is built here, and this says so: what was added since is then tried by test_schema.py alone.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
place=$root/.cache/deploy/previous
sources=(Cargo.toml Cargo.lock protocol/src server/src server/recovery/src migrations)
# Commits that do not compile are passed over, so many at most.
most=8

# A clone may belong to somebody else than who runs the tests, as containers mount it.
git() { command git -c safe.directory="$root" "$@"; }

trees() { for each in "${sources[@]}"; do git rev-parse --quiet --verify "$1:$each"; done; }

# What may be taken, the newest first; nothing without history. A clone that was cut short may not reach far enough.
candidates() {
    local commit last found=()
    last=$(trees HEAD 2>/dev/null) || return 0
    git diff --quiet HEAD -- "${sources[@]}" || found=("$(git rev-parse HEAD)")
    for commit in $(git rev-list --first-parent --max-count=200 HEAD~1 -- "${sources[@]}" 2>/dev/null); do
        if [[ $(trees "$commit") != "$last" ]]; then
            found+=("$commit")
            last=$(trees "$commit")
        fi
    done
    printf '%s\n' "${found[@]:0:most}"
}

compile() {
    rm -rf "$place/source"
    mkdir -p "$place/source" "$place/target/debug"
    # As of now: files that look older than what was built here would be taken for built.
    git archive "$1" | tar --extract --touch --directory "$place/source"
    for part in deps build .fingerprint; do
        # Links, not copies: nothing is written into a dependency's files. The target may be on another file system.
        if [[ -d $target/debug/$part && ! -e $place/target/debug/$part ]]; then
            cp --archive --link "$target/debug/$part" "$place/target/debug/" 2>/dev/null ||
                cp --archive "$target/debug/$part" "$place/target/debug/"
        fi
    done
    # The whole workspace is named, for its features are what the dependencies were compiled with.
    (cd "$place/source" && CARGO_TARGET_DIR=$place/target cargo build --quiet --workspace --bin segno) >&2
}

if [[ $# -gt 0 ]]; then
    wanted=$(git rev-parse --verify --quiet "$1^{commit}") || { echo "previous: there is no commit $1" >&2; exit 1; }
else
    wanted=$(candidates)
fi
if [[ -z $wanted ]]; then
    binary=${SEGNO_BIN:-$target/debug/segno}
    echo "previous: NO HISTORY HERE, UPGRADING FROM THE SAME SOURCES: $binary (git fetch --unshallow for more)" >&2
    [[ -x $binary ]] || { echo "previous: it is not there; cargo build --workspace --bins" >&2; exit 1; }
    echo "$binary"
    exit
fi

mkdir -p "$place"
exec 9>"$place.lock"
flock 9
# By what was asked for, so that what does not compile is not tried again.
key=$(sha256sum <<<"$wanted" | cut -c1-16)
if [[ ! -e $place/$key/commit ]]; then
    rm -rf "$place"
    mkdir -p "$place/$key"
    for commit in $wanted; do
        if compile "$commit"; then
            cp "$place/target/debug/segno" "$place/$key/segno"
            echo "$commit" >"$place/$key/commit"
            break
        fi
        git log -1 --format='previous: %h %s: does not compile' "$commit" >&2
    done
    rm -rf "$place/source" "$place/target"
    [[ -e $place/$key/commit ]] || exit 1
fi
git log -1 --format='previous: %h %s' "$(cat "$place/$key/commit")" >&2
echo "$place/$key/segno"
