#!/usr/bin/env bash
# Train on several GPUs, or on a machine without one on as many processes.
#   tools/dist_train.sh CONFIG GPUS [OPTIONS OF train.py]
# Several nodes: the same on each, with NNODES, NODE_RANK, MASTER_ADDR, PORT.
# MAX_RESTARTS=n starts again, at most n times, after a process has died.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [options of train.py]" >&2
    exit 2
fi
# bash would go on after a SIGINT that python does not get.
trap 'exit 130' INT
HAS_TORCH='import sys, importlib.util as u; sys.exit(not u.find_spec("torch"))'
if ! python -c "$HAS_TORCH" 2>/dev/null; then
    echo "$0: error: there is no python with torch in PATH: activate the" \
        "environment that has it" >&2
    exit 2
fi
TOOLS=$(cd "$(dirname "$0")" && pwd)

export PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}"
exec python -m mmdet_attn.training.torchrun "$0" "$2" "$TOOLS/train.py" \
    "$1" --launcher pytorch "${@:3}"
