"""Write a detector as an ONNX file."""

from mmdet_attn.__main__ import run

if __name__ == '__main__':
    run('export')
