"""Measure time and memory of attention as ratios in one run."""

from mmdet_attn.commands.benchmark import main

if __name__ == '__main__':
    main()
