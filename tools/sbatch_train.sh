#!/usr/bin/env bash
# Train in a batch job that carries on after preemption and its time limit.
#   sbatch --partition=... [OPTIONS OF sbatch] \
#   tools/sbatch_train.sh CONFIG WORK_DIR [OPTIONS OF train.py]
#SBATCH --ntasks=8 --ntasks-per-node=8 --gres=gpu:8 --cpus-per-task=5
#SBATCH --requeue --open-mode=append --signal=TERM@120

if [ $# -lt 2 ]; then
    echo "usage: sbatch tools/sbatch_train.sh CONFIG WORK_DIR" \
        "[options of train.py]" >&2
    exit 2
fi
tools/slurm_train.sh "$SLURM_JOB_PARTITION" "$SLURM_JOB_NAME" "$1" "$2" \
    --resume "${@:3}"
code=$?
# 143: SIGTERM has stopped the training, which has saved.
if [ $code -eq 143 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
