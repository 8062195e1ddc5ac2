#!/usr/bin/env bash
# Renders deploy/kubernetes/segno.yaml from the chart, for clusters without Helm; tests/deploy checks that it is
# up to date. With a file name, writes there instead. Needs helm (HELM names another program).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
{
    echo "# Rendered by deploy/kubernetes/render.sh from deploy/helm/segno with values.yaml of this folder. Before it:"
    echo "#   kubectl create secret generic segno --from-literal=database-url=postgres://… \\"
    echo "#     --from-literal=admin-key=dbos_\$(openssl rand -hex 24) --from-literal=encryption-key=\$(openssl rand -hex 24)"
    "${HELM:-helm}" template segno "$here/../helm/segno" --kube-version 1.31.0 --values "$here/values.yaml" |
        grep -vE '^ +(helm.sh/chart|app.kubernetes.io/managed-by): '
} >"${1:-$here/segno.yaml}"
