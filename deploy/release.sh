#!/usr/bin/env bash
# Builds what a release consists of:
#
#   deploy/release.sh                into dist/, static binaries (glibc; RUSTFLAGS, when set, decides otherwise)
#   deploy/release.sh BINARIES       packs the segno and checkout of that directory instead of building them
#
# segno, checkout, man/, completions/, sbom/, the systemd unit, openapi.json; a tarball of them, the chart if helm is there, and
# SHA256SUMS. DIST names another directory. Needs cargo and npm, and cargo-cyclonedx for the bill of materials of the
# Rust side (SBOM=npm: leave that out).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
dist=$(realpath -m "${DIST:-dist}")
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
triple=$(rustc -vV | sed -n 's/^host: //p')
grep -q "^## $version" CHANGELOG.md || { echo "release: CHANGELOG.md has no heading for $version" >&2; exit 1; }
if [[ ${SBOM:-} != npm ]] && ! cargo cyclonedx --version &>/dev/null; then
    echo "release: no cargo-cyclonedx (cargo install cargo-cyclonedx), or SBOM=npm to do without the Rust side's" >&2
    exit 1
fi

if [[ $# == 0 ]]; then
    make --no-print-directory console
    # A target is named so that build scripts and procedural macros, which must be dynamic, do not get the flag.
    RUSTFLAGS=${RUSTFLAGS--C target-feature=+crt-static} \
        cargo build --locked --release --target "$triple" --bin segno --bin checkout
    built=${CARGO_TARGET_DIR:-target}/$triple/release
else
    built=$1
fi

rm -rf "$dist"
mkdir -p "$dist"/{completions,man,sbom}
cp "$built/segno" "$built/checkout" LICENSE CHANGELOG.md deploy/systemd/segno.service "$dist/"
for shell in bash zsh fish; do
    "$dist/segno" completions "$shell" >"$dist/completions/segno.$shell"
done
"$dist/segno" man "$dist/man"
"$dist/segno" openapi >"$dist/openapi.json"
(cd web && npm sbom --sbom-format cyclonedx --package-lock-only --loglevel=error) >"$dist/sbom/console.cdx.json"
if [[ ${SBOM:-} != npm ]]; then
    cargo cyclonedx --manifest-path server/Cargo.toml --target "$triple" --format json --override-filename segno
    # One for each member of the workspace; the server's names what is in the binary.
    mv server/segno.json "$dist/sbom/segno.cdx.json"
    find . -name segno.json -newer "$dist/openapi.json" -not -path '*/node_modules/*' -not -path "./target/*" -delete
fi

# The same bytes from the same sources: sorted names, one time, no owners.
stamp=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat --format=%Y CHANGELOG.md)}
tarball=segno-$version-$triple.tar.gz
tar --create --file - --directory "$dist" --sort=name --mtime="@$stamp" --owner=0 --group=0 --numeric-owner \
    segno checkout LICENSE CHANGELOG.md segno.service completions man sbom openapi.json | gzip --no-name >"$dist/$tarball"
chart=()
if command -v "${HELM:-helm}" >/dev/null; then
    "${HELM:-helm}" package deploy/helm/segno --version "$version" --app-version "$version" --destination "$dist" >/dev/null
    chart=("segno-$version.tgz")
fi
(cd "$dist" && sha256sum "$tarball" ${chart[@]+"${chart[@]}"} >SHA256SUMS)
ls -l "$dist"
