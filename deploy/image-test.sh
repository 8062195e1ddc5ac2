#!/usr/bin/env bash
# Builds the image of deploy/Dockerfile with buildah, without a daemon and without pulling anything, and runs it:
#
#   deploy/image-test.sh [SEGNO [CHECKOUT]]      default: the release binaries of this clone, built first
#
# What cannot be pulled is made here. The runtime's base is an empty image with the certificates of public authorities
# and, unless SEGNO is a static binary, the C library of this machine; the binary comes from outside
# (--build-arg BINARY=prebuilt). Then the image's files are unpacked and the program is started in them as the image
# says: its user, its environment, a read-only file system with /data as the only place to write, a network of its own.
#
# Checked: it becomes healthy by its own health check, an executor connects, on SIGTERM it lets the executor go, ends
# with 0 and in time; nothing was written outside /data; the size. Needs root, buildah, python3 with websockets
# (PYTHON names one).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
max_mib=${MAX_MIB:-40}
python=${PYTHON:-python3}
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot

die() { echo "image-test: $*" >&2; exit 1; }
[[ $EUID == 0 ]] || die "needs root: it unpacks an image and starts it in a namespace of its own"
command -v buildah >/dev/null || die "no buildah (apt-get install buildah)"

if [[ $# == 0 ]]; then
    cargo build --release --bin segno --bin checkout
    target=${CARGO_TARGET_DIR:-target}/release
    set -- "$target/segno" "$target/checkout"
fi
segno=$1 checkout=${2:-$(dirname "$1")/checkout}

work=$(mktemp -d)
server=
cleanup() {
    [[ -z $server ]] || kill -KILL "$server" 2>/dev/null || true
    umount --recursive "$work/run" 2>/dev/null || true
    buildah rmi --force "localhost/segno-test:$$" "localhost/segno-base:$$" >/dev/null 2>&1 || true
    ip netns delete "segno-image-$$" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
export CONTAINERS_STORAGE_CONF=$work/storage.conf
printf '[storage]\ndriver = "vfs"\ngraphroot = "%s/graph"\nrunroot = "%s/run-root"\n' "$work" "$work" >"$work/storage.conf"

# ---- a base, from this machine ----------------------------------------------------------------------
base=$work/base
mkdir -p "$base"/{etc/ssl/certs,tmp,usr/bin,usr/share}
chmod 1777 "$base/tmp"
cp /etc/ssl/certs/ca-certificates.crt "$base/etc/ssl/certs/"
echo 'nonroot:x:65532:65532:nonroot:/:/sbin/nologin' >"$base/etc/passwd"
echo 'nonroot:x:65532:' >"$base/etc/group"
echo 'hosts: files dns' >"$base/etc/nsswitch.conf"
kind=static
libraries=$(ldd "$segno" 2>/dev/null || true)
if [[ $libraries == *'=>'* ]]; then
    kind="dynamic, with this machine's C library"
    # Each library at the path where the program looks for it.
    echo "$libraries" | grep -oE '/[^ ]+' | while read -r library; do
        install -D "$(readlink -f "$library")" "$base$library"
    done
fi
container=$(buildah from scratch)
buildah add --quiet "$container" "$base" / >/dev/null
buildah commit --quiet --format docker "$container" "localhost/segno-base:$$" >/dev/null
buildah rm "$container" >/dev/null

# ---- the image, from the Dockerfile -----------------------------------------------------------------
# The context is what .dockerignore lets through of this clone, with the binaries in dist/.
context=$work/context
mkdir -p "$context/dist/sbom" "$context/deploy"
cp -r deploy/Dockerfile deploy/data "$context/deploy/"
cp .dockerignore "$context/"
cp "$segno" "$context/dist/segno"
if [[ -e $checkout ]]; then cp "$checkout" "$context/dist/checkout"; else : >"$context/dist/checkout"; fi
if [[ -d dist/sbom ]]; then
    cp dist/sbom/*.json "$context/dist/sbom/"
elif command -v npm >/dev/null; then
    (cd web && npm sbom --sbom-format cyclonedx --package-lock-only --loglevel=error) >"$context/dist/sbom/console.cdx.json"
fi
buildah build --quiet --format docker --file "$context/deploy/Dockerfile" --target segno \
    --build-arg BINARY=prebuilt --build-arg "RUNTIME_IMAGE=localhost/segno-base:$$" \
    --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)" \
    --tag "localhost/segno-test:$$" "$context" >"$work/id"
echo "image-test: built $(cut -c1-12 "$work/id") from deploy/Dockerfile ($kind)"

buildah inspect --type image "localhost/segno-test:$$" >"$work/image.json"
config() { "$python" -c 'import json, sys; c = json.load(open(sys.argv[1]))["Docker"]["config"]; print(eval(sys.argv[2]))' "$work/image.json" "$1"; }
user=$(config 'c["User"]')
[[ $user == 65532:65532 ]] || die "the image's user is $user"
[[ $(config 'c["StopSignal"]') == SIGTERM ]] || die "the image's stop signal is not SIGTERM"
[[ $(config 'c["Healthcheck"]["Test"]') == "['CMD', '/usr/bin/segno', 'healthcheck']" ]] || die "the image's health check is another"
for label in title source licenses revision version created; do
    [[ $(config "c['Labels'].get('org.opencontainers.image.$label', '')") ]] || die "no label $label"
done

# ---- its files, read-only but for /data -------------------------------------------------------------
container=$(buildah from --pull-never "localhost/segno-test:$$")
files=$(buildah mount "$container")
mkdir -p "$work/run" "$work/data"
size=$(du --summarize --apparent-size --block-size=1 "$files" | cut -f1)
cp -a "$files/data/." "$work/data/"
chown -R "$user" "$work/data"
mount --bind "$files" "$work/run"
mount -o remount,bind,ro "$work/run"
mount --bind "$work/data" "$work/run/data"
touch "$work/started"

ip netns add "segno-image-$$"
ip -n "segno-image-$$" link set lo up
mapfile -t environment < <(config '"\n".join(c["Env"])')
key=dbos_$(od -An -vtx1 -N24 /dev/urandom | tr -d ' \n')
inside=(ip netns exec "segno-image-$$" env -i "${environment[@]}" "SEGNO_ADMIN_KEY=$key"
    "$(command -v chroot)" "--userspec=$user" "$work/run")
"${inside[@]}" /usr/bin/segno serve >"$work/log" 2>&1 &
server=$!

healthy() { "${inside[@]}" /usr/bin/segno healthcheck 2>/dev/null; }
for ((attempt = 0; ; attempt++)); do
    if healthy; then break; fi
    kill -0 "$server" 2>/dev/null || die "it ended:"$'\n'"$(cat "$work/log")"
    ((attempt < 200)) || die "not healthy:"$'\n'"$(cat "$work/log")"
    sleep 0.1
done
[[ $(awk '/^Uid:/ { print $2 }' "/proc/$server/status") == 65532 ]] || die "it does not run as the image's user"
"${inside[@]}" /usr/bin/segno --version
! "${inside[@]}" /usr/bin/segno migrate --data-dir /elsewhere 2>/dev/null || die "it could write outside /data"

# ---- with an executor connected, told to stop -------------------------------------------------------
ip netns exec "segno-image-$$" "$python" "$root/deploy/image_test_executor.py" "$key" "$server"
code=0
wait "$server" || code=$?
server=
[[ $code == 0 ]] || die "SIGTERM ended it with $code:"$'\n'"$(cat "$work/log")"
grep -q '"stopped"' "$work/log" || die "it did not say that it stopped:"$'\n'"$(cat "$work/log")"
! grep -q "$key" "$work/log" || die "the administrator's key is in the log"
changed=$(find "$files" -newer "$work/started" -not -path "$files" | head)
[[ -z $changed ]] || die "written outside /data: $changed"
umount "$work/run/data" "$work/run"
buildah rm "$container" >/dev/null

mib=$(awk "BEGIN { printf \"%.1f\", $size / 1048576 }")
echo "image-test: healthy, served an executor, stopped by SIGTERM with 0, read-only as $user"
echo "image-test: $mib MiB ($kind), of which the binary $(awk "BEGIN { printf \"%.1f\", $(stat -c %s "$segno") / 1048576 }") MiB"
awk "BEGIN { exit !($mib <= $max_mib) }" || die "larger than $max_mib MiB"
