"""Results of trainings, finished or not, beside those of the ECA-Net paper."""

from mmdet_attn.__main__ import run

if __name__ == '__main__':
    run('compare-results')
