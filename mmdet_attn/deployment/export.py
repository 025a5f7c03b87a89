"""Write a detector as an ONNX file."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from torch import nn
from torch.export import Dim

import mmdet_attn
from mmdet_attn.deployment.graph import Graph
from mmdet_attn.deployment.operators import onnx_nodes
from mmdet_attn.deployment.pipeline import canvas_of, resize_of
from mmdet_attn.errors import InputError
from mmdet_attn.terminal import quiet
from mmdet_attn.weights.save import write_bytes

OPSET = 18
OUTPUTS = 'boxes', 'scores', 'labels', 'masks'
# Traced with this size where sizes are dynamic; no other size is like it.
EXAMPLE = 160, 224


def write_onnx(
    detector: nn.Module,
    cfg: Config,
    classes: tuple[str, ...],
    file: str | Path,
    size: tuple[int, int] | None = None,
    half: bool = False,
) -> None:
    """Write a detector as an ONNX file.

    Args:
        detector: A detector that `refuse_unknown` accepts, in eval mode.
        cfg: Its config.
        classes: The names of its classes.
        file: The file.
        size: Height and width of the images that it takes; None is any.
        half: Whether the network computes in half precision.

    Raises:
        InputError: `torch.export` cannot follow the network, or it needs
            images of one size.
    """
    nodes = onnx_nodes()
    graph = Graph(detector, canvas_of(cfg), half).eval()
    image = torch.zeros(*(size or EXAMPLE), 3, dtype=torch.uint8)
    free = None if size else {'image': {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}}
    with torch.no_grad(), warnings.catch_warnings(), quiet(logging.WARNING):
        warnings.simplefilter('ignore')
        try:
            program = torch.export.export(
                graph, (image,), dynamic_shapes=free, strict=False
            )
        except Exception as error:
            raise InputError(
                f'export: torch.export cannot follow this network '
                f'({str(error).splitlines()[0]}); --size H W may help.'
            ) from error
        refuse_free_pooling(program)
        onnx: Any = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            custom_translation_table=nodes,
            input_names=['image'],
            output_names=OUTPUTS[: len(program.graph_signature.user_outputs)],
        )
    if half:
        halve_folded(onnx.model)
    name_sizes(onnx.model, size)
    for key, value in metadata(cfg, classes).items():
        onnx.model.metadata_props[key] = json.dumps(value)
    # The file is complete, or as it was before.
    write_bytes(file, onnx.model_proto.SerializeToString())


def refuse_free_pooling(program: Any) -> None:
    """Refuse adaptive pooling of maps whose size is free.

    The exporter would write the windows of the size that was traced.
    """
    for node in program.graph.nodes:
        if 'adaptive' not in str(node.target) or set(node.args[1]) == {1}:
            continue
        sizes = node.args[0].meta['val'].shape[2:]
        if any(isinstance(length, torch.SymInt) for length in sizes):
            raise InputError(
                f'export: {node.target} to {tuple(node.args[1])} cells needs '
                'images of one size: give --size H W.'
            )


def halve_folded(model: Any) -> None:
    """Halve the weights into which the exporter has folded batch norms.

    It leaves them in float32, which a convolution of half precision refuses.
    """
    import onnx_ir

    half = onnx_ir.DataType.FLOAT16
    for node in model.graph.all_nodes():
        x, *weights = node.inputs
        if node.op_type not in ('Conv', 'ConvTranspose') or x.dtype != half:
            continue
        for weight in weights:
            if weight is None or weight.const_value is None:
                continue
            value = weight.const_value.numpy().astype('float16')
            weight.const_value = onnx_ir.tensor(value, name=weight.name)
            weight.dtype = half


def name_sizes(model: Any, size: tuple[int, int] | None) -> None:
    """Name the sizes that are free, and drop notes of the exporter.

    The notes name folders of the machine that has exported.
    """
    from onnx_ir import Shape

    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
            value.shape = None
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    (image,) = model.graph.inputs
    image.shape = Shape([*(size or ('height', 'width')), 3])
    shapes: Any = [4], [], [], ['mask_height', 'mask_width']
    for value, rest in zip(model.graph.outputs, shapes, strict=False):
        value.shape = Shape(['detections', *rest])


def classes_of(cfg: Config, content: dict) -> tuple[str, ...]:
    """The names of the classes that a checkpoint was trained for."""
    meta = content.get('meta', {}).get('dataset_meta') or {}
    dataset = cfg.test_dataloader.dataset
    default = getattr(DATASETS.get(dataset.type), 'METAINFO', {})
    for names in (meta, dataset.get('metainfo') or {}, default):
        if names.get('classes'):
            return tuple(names['classes'])
    return ()


def metadata(cfg: Config, classes: tuple[str, ...]) -> dict:
    """What the file says of the detector, each as JSON."""
    return {
        'classes': classes,
        'test_cfg': cfg.model.test_cfg.to_dict(),
        **resize_of(cfg),
        'mmdet_attn': mmdet_attn.__version__,
    }
