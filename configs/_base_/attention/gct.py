# The authors have it before every convolution: the stem, the three of each
# block, and those of the shortcuts.
attention = dict(
    _delete_=True,
    type='mmdet_attn.insert',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.GCT'),
            at=['conv1', 'layer*.conv?', 'layer*.downsample'],
            place='before',
        )
    ],
)
# The authors train the shift without weight decay.
attention_decay = dict(custom_keys={'.beta': dict(decay_mult=0.0)})
