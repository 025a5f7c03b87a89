# The authors have it between the 3x3 convolution and its batch norm. The value
# of lambda is theirs for COCO.
attention = dict(
    dcn=dict(type='mmdet_attn.SimAMConv2d', lambda_=0.1, identity_init=True),
    stage_with_dcn=(True, True, True, True),
)
