"""Show what the attention of a detector does in images: PNGs and a page."""

from mmdet_attn.__main__ import run

if __name__ == '__main__':
    run('visualize-attention')
