"""Convert an official checkpoint to the names of this package."""

from mmdet_attn.commands.convert_checkpoint import main

if __name__ == '__main__':
    main()
