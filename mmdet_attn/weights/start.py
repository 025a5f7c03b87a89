"""Start a training from the weights of a detector."""

from mmengine.config import Config

from mmdet_attn.datasets.coco_folder import dicts_in
from mmdet_attn.errors import InputError
from mmdet_attn.weights.load import (
    read_ahead,
    refuse_not_finite,
    state_dict_of,
)


def start_from(cfg: Config, address: str, strict: bool = True) -> None:
    """Let a config start from a checkpoint of a detector.

    `StartHook` compares the weights with the network before the training.

    Args:
        cfg: The config of a training, which is changed.
        address: A file, or an address that mmengine knows.
        strict: Whether the checkpoint must have all weights. Then those that
            backbones would load before are neither needed nor fetched.

    Raises:
        InputError: The checkpoint cannot be read, has values that are not
            finite, or is not of a detector.
    """
    content = read_ahead(address)
    refuse_not_finite(address, content)
    parts = {key.partition('.')[0] for key in state_dict_of(content)}
    if 'backbone' not in parts:
        raise InputError(
            f'--load-from {address} is not a checkpoint of a detector: none '
            'of its weights is in a backbone. Weights of a backbone alone go '
            'into --cfg-options model.backbone.init_cfg.checkpoint=FILE.'
        )
    cfg.load_from = address
    if not strict:
        return
    for node in dicts_in(cfg.model):
        init = node.get('init_cfg')
        kind = str(isinstance(init, dict) and init.get('type'))
        if kind.endswith('Pretrained'):
            node['init_cfg'] = None
