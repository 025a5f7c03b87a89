"""Train, evaluate and look at a small detector with ECA, with no download."""

from mmdet_attn.commands.demo import main

if __name__ == '__main__':
    main()
