#!/usr/bin/env bash
# Evaluate on several GPUs, or on a machine without one on as many processes.
#   tools/dist_test.sh CONFIG CHECKPOINT GPUS [OPTIONS OF test.py]
# Several nodes: the same on each, with NNODES, NODE_RANK, MASTER_ADDR, PORT.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT GPUS [options of test.py]" >&2
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
exec python -m mmdet_attn.training.torchrun "$0" "$3" "$TOOLS/test.py" \
    "$1" "$2" --launcher pytorch "${@:4}"
