#!/usr/bin/env bash
# Makes the Python environment of the tests of deploy/ and docs/, .cache/deploy/python, from requirements.txt here and
# that of the tests of the SDKs. Kept, and made anew when one of them changes.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
place=$root/.cache/deploy/python
lists=("$root/tests/sdk/requirements.txt" "$root/tests/deploy/requirements.txt")
wanted=$(python3 -V; sha256sum "${lists[@]}")
if [[ -e $place/made-from && $(cat "$place/made-from") == "$wanted" ]]; then
    exit
fi
rm -rf "$place"
python3 -m venv "$place"
"$place/bin/python" -m pip install --quiet --disable-pip-version-check \
    --requirement "${lists[0]}" --requirement "${lists[1]}"
echo "$wanted" >"$place/made-from"
