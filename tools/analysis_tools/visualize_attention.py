"""Show what the attention of a detector does in images: PNGs and a page."""

from mmdet_attn.commands.visualize_attention import main

if __name__ == '__main__':
    main()
