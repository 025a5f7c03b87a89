"""Compare two starts of attention in a trained detector."""

from mmdet_attn.commands.identity_start import main

if __name__ == '__main__':
    main()
