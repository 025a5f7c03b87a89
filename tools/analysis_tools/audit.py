"""Does the attention of a detector attend?"""

from mmdet_attn.__main__ import run

if __name__ == '__main__':
    run('audit')
