#!/usr/bin/env bash
# Train in a batch job that carries on after preemption and its time limit.
#   [MAX_RESTARTS=100] sbatch --partition=... [OPTIONS OF sbatch] \
#   tools/slurm_job.sh CONFIG WORK_DIR [OPTIONS OF train.py]
#SBATCH --ntasks=8 --ntasks-per-node=8 --gres=gpu:8 --cpus-per-task=5
#SBATCH --requeue --open-mode=append --signal=TERM@120

if [ $# -lt 2 ]; then
    echo "usage: sbatch tools/slurm_job.sh CONFIG WORK_DIR" \
        "[options of train.py]" >&2
    exit 2
fi
tools/slurm_train.sh "$SLURM_JOB_PARTITION" "$SLURM_JOB_NAME" "$1" "$2" \
    --resume "${@:3}"
code=$?
# 143: SIGTERM stopped the training. A crash of one process while the others
# start looks the same, hence the limit.
if [ $code -eq 143 ] &&
    [ "${SLURM_RESTART_COUNT:-0}" -lt "${MAX_RESTARTS:-100}" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
