#!/usr/bin/env bash
# Train in a batch job that carries on after preemption and its time limit.
#   sbatch --partition=... [OPTIONS OF sbatch] \
#   tools/slurm_job.sh CONFIG WORK_DIR [OPTIONS OF train.py]
#SBATCH --ntasks=8 --ntasks-per-node=8 --gres=gpu:8 --cpus-per-task=5
#SBATCH --requeue --open-mode=append
#SBATCH --signal=TERM@120

tools/slurm_train.sh "$SLURM_JOB_PARTITION" "$SLURM_JOB_NAME" "$1" "$2" \
    --resume "${@:3}"
code=$?
# 143: the training got SIGTERM and has saved, but has not finished.
if [ $code -eq 143 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
