"""Parameters and GFLOPs of detectors, beside those of the ECA-Net paper."""

from mmdet_attn.commands.complexity import main

if __name__ == '__main__':
    main()
