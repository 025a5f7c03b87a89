"""Run all trainings of a question, and compare them."""

from mmdet_attn.__main__ import run

if __name__ == '__main__':
    run('study')
