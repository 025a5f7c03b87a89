"""Run an exported detector in the place of a detector of MMDetection."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from mmdet.models import FCNMaskHead
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel
from mmengine.structures import InstanceData

from mmdet_attn.datasets.coco_folder import dicts_in
from mmdet_attn.errors import InputError
from mmdet_attn.weights.load import keep_ahead


def open_onnx(file: str | Path) -> Any:
    """A session of onnxruntime.

    Raises:
        InputError: The file is missing, or is no detector that `export` wrote.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    # TensorRT, which may be there too, wants other graphs.
    providers = [
        provider
        for provider in ('CUDAExecutionProvider', 'CPUExecutionProvider')
        if provider in onnxruntime.get_available_providers()
    ]
    try:
        session = onnxruntime.InferenceSession(
            str(file), options, providers=providers
        )
    except Exception as error:  # onnxruntime's have no common class
        raise InputError(
            f'{file} is no ONNX file that onnxruntime can run: {error}'
        ) from None
    if 'test_cfg' not in session.get_modelmeta().custom_metadata_map:
        raise InputError(f'{file} was not written by mmdet-attn export.')
    return session


def metadata_of(session: Any) -> dict[str, Any]:
    """What `export` noted in a file."""
    notes = session.get_modelmeta().custom_metadata_map
    return {key: json.loads(value) for key, value in notes.items()}


def use_onnx(cfg: Config, file: str) -> None:
    """Put an exported detector in the place of that of a config.

    mmengine then gets a checkpoint without weights of it.

    Raises:
        InputError: The file cannot be used, or has other thresholds or
            another number of classes.
    """
    notes = metadata_of(open_onnx(file))
    wanted = json.loads(json.dumps(cfg.model.test_cfg.to_dict()))
    if notes['test_cfg'] != wanted:
        raise InputError(
            f'{file} was exported with test_cfg={notes["test_cfg"]}, and the '
            f'config has {wanted}: export it again.'
        )
    classes = tuple(notes['classes'])
    for part in dicts_in(cfg.model):
        count = part.get('num_classes', len(classes))
        if count != len(classes):
            raise InputError(
                f'{file} has {len(classes)} classes {classes}, and the '
                f'{part["type"]} of the config or data has {count}.'
            )
    cfg.model = ConfigDict(type='mmdet_attn.OnnxDetector', file=file)
    meta = {'dataset_meta': {'classes': classes}}
    keep_ahead(file, {'state_dict': {}, 'meta': meta})


@MODELS.register_module()
class OnnxDetector(BaseModel):
    """An exported detector with the methods of a detector of mmdet.

    Args:
        file: The ONNX file.
    """

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file = file
        self.session = open_onnx(file)
        self.test_cfg = metadata_of(self.session)['test_cfg']

    def forward(
        self, inputs: list, data_samples: list, mode: str = 'predict'
    ) -> list:
        """Add `pred_instances` to each sample."""
        for image, sample in zip(inputs, data_samples, strict=True):
            sample.pred_instances = self._detect(image, sample)
        return data_samples

    def _detect(self, image: torch.Tensor, sample: Any) -> InstanceData:
        self._check(image)
        found = self.session.run(
            None, {'image': image.permute(1, 2, 0).cpu().numpy()}
        )
        boxes, scores, labels, *masks = map(torch.from_numpy, found)
        result = InstanceData(bboxes=boxes, scores=scores, labels=labels)
        if masks:
            result.masks = self._pasted(found[3], boxes, labels, sample)
        else:
            boxes /= boxes.new_tensor(sample.scale_factor).repeat(2)
        return result

    def _check(self, image: torch.Tensor) -> None:
        got = *image.shape[1:], image.shape[0]
        wanted = self.session.get_inputs()[0].shape
        fits = all(
            want == have or isinstance(want, str)
            for want, have in zip(wanted, got, strict=True)
        )
        if not fits or image.dtype != torch.uint8:
            raise InputError(
                f'{self.file} takes images of {wanted} uint8, got '
                f'{list(got)} {str(image.dtype).removeprefix("torch.")}: '
                'export with --size dynamic, or change the test pipeline.'
            )

    def _pasted(
        self,
        masks: np.ndarray,
        boxes: torch.Tensor,
        labels: torch.Tensor,
        sample: Any,
    ) -> torch.Tensor:
        """The masks in the image; boxes are rescaled to it."""
        if not len(boxes):
            return torch.zeros(0, *sample.ori_shape[:2], dtype=torch.bool)
        return FCNMaskHead._predict_by_feat_single(
            SimpleNamespace(class_agnostic=True),
            masks[:, None],
            boxes,
            labels,
            sample.metainfo,
            ConfigDict(self.test_cfg['rcnn']),
            rescale=True,
            activate_map=True,  # they are probabilities
        )
