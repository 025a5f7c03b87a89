"""Train a detector."""

from mmdet_attn.commands.train import main

if __name__ == '__main__':
    main()
