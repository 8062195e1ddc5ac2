#!/usr/bin/env bash
# Builds what a release consists of, into dist/:
#
#   deploy/release.sh            segno, checkout, completions/, sbom/, openapi.json, a tarball of them, the chart, SHA256SUMS
#
# The binary is static (glibc); RUSTFLAGS, when set, decides otherwise. Needs cargo and npm; helm for the chart and
# cargo-cyclonedx for the bill of materials of the Rust side are used when they are there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
triple=$(rustc -vV | sed -n 's/^host: //p')
grep -q "^## $version" CHANGELOG.md || { echo "release: CHANGELOG.md has no heading for $version" >&2; exit 1; }

make --no-print-directory console
export RUSTFLAGS=${RUSTFLAGS--C target-feature=+crt-static}
cargo build --locked --release --target "$triple" --bin segno --bin checkout
built=${CARGO_TARGET_DIR:-target}/$triple/release

rm -rf dist
mkdir -p dist/{completions,sbom}
cp "$built/segno" "$built/checkout" LICENSE CHANGELOG.md deploy/systemd/segno.service dist/
for shell in bash zsh fish; do
    dist/segno completions "$shell" >"dist/completions/segno.$shell"
done
dist/segno openapi >dist/openapi.json
(cd web && npm sbom --sbom-format cyclonedx --package-lock-only --loglevel=error) >dist/sbom/console.cdx.json
if cargo cyclonedx --version &>/dev/null; then
    cargo cyclonedx --manifest-path server/Cargo.toml --target "$triple" --format json
    mv server/segno-server.cdx.json dist/sbom/segno.cdx.json
    find . -name '*.cdx.json' -not -path './dist/*' -not -path '*/node_modules/*' -not -path './target/*' -delete
else
    echo "release: no cargo-cyclonedx; dist/sbom lacks the Rust side (cargo install cargo-cyclonedx)" >&2
fi

# The same bytes from the same sources: sorted names, one time, no owners.
stamp=$(git log -1 --format=%ct)
tar --create --gzip --file "segno-$version-$triple.tar.gz" --directory dist \
    --sort=name --mtime="@$stamp" --owner=0 --group=0 --numeric-owner .
mv "segno-$version-$triple.tar.gz" dist/
if command -v helm >/dev/null; then
    helm package deploy/helm/segno --version "$version" --app-version "$version" --destination dist >/dev/null
fi
(cd dist && sha256sum ./*.tar.gz ./*.tgz 2>/dev/null >SHA256SUMS || true)
ls -l dist
