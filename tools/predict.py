"""Detect objects in images: pictures and JSON."""

from mmdet_attn.commands.predict import main

if __name__ == '__main__':
    main()
