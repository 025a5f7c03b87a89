"""Evaluate a checkpoint: COCO summary; AP, AP by size and recall per class."""

from mmdet_attn.commands.test import main

if __name__ == '__main__':
    main()
