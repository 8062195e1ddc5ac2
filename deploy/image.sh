#!/usr/bin/env bash
# Builds the image with whichever of docker, podman and buildah is there:
#
#   deploy/image.sh [NAME [ARGUMENT…]]     default: segno:latest; arguments go to the builder
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
name=${1:-segno:latest}
shift || true
# The stage that BINARY names is said even where it is the default: buildah 1.28 leaves it out otherwise.
arguments=(--file deploy/Dockerfile --tag "$name" --build-arg BINARY=source
    --build-arg "VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)"
    --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)"
    --build-arg "CREATED=$(git log -1 --format=%cI 2>/dev/null || date --utc --reference=CHANGELOG.md +%FT%TZ)")
for builder in docker podman buildah; do
    if [[ $builder == docker ]] && ! docker info &>/dev/null; then continue; fi
    if command -v "$builder" >/dev/null; then
        # The Docker format, for OCI's knows no health check.
        if [[ $builder != docker ]]; then arguments+=(--format docker); fi
        exec "$builder" build "${arguments[@]}" "$@" .
    fi
done
echo "image: none of docker (with its daemon running), podman and buildah is there" >&2
exit 1
