"""Make a checkpoint of a training fit to be published."""

from mmdet_attn.commands.publish_model import main

if __name__ == '__main__':
    main()
