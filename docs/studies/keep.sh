#!/usr/bin/env bash
# Copy the results of a study that has finished to where its protocol is.
#   docs/studies/keep.sh work_dirs/shapes
set -euo pipefail
from=$1
to=$(dirname "$0")/$(basename "$1")
mkdir -p "$to/configs" "$to/audits"
cp -r "$from"/{results.md,results.csv,results.json,page.html,plots} "$to"
cp "$from"/configs/*_seed0.py "$to/configs"
for audit in "$from"/audits/*/; do
    cp "$audit/audit.md" "$to/audits/$(basename "$audit").md"
done
