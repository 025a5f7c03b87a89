#!/usr/bin/env bash
# Audit the last checkpoint of seed 0 of each attention of a study.
#   docs/studies/audits.sh work_dirs/start_shapes
# An audit that is there is not repeated.
set -euo pipefail
for config in "$1"/configs/*_seed0.py; do
    run=$(basename "$config" .py)
    name=${run%_seed0}
    out=$1/audits/${name#faster_rcnn_}
    if [ "${run#*_none_}" != "$run" ] || [ -f "$out/audit.json" ]; then
        continue
    fi
    checkpoint=$(ls -v "$1/runs/$run"/epoch_*.pth | tail -n 1)
    python -m mmdet_attn audit "$config" "$checkpoint" --no-stages --out-dir "$out"
done
