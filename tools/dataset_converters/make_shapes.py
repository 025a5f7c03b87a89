"""Render a small COCO-format detection set of coloured shapes."""

from mmdet_attn.commands.make_shapes import main

if __name__ == '__main__':
    main()
