r"""Where a detector looks: EigenCAM and Grad-CAM of its levels.

The levels $A$ are the maps that the neck gives to the heads, or the backbone
where there is no neck.

EigenCAM (Muhammad and Yeasin, https://arxiv.org/abs/2008.00299) projects a
level on its first principal component $v_1$:

$$M_p = \sum_k (A_{kp} - \bar A_k)\, v_{1k}$$

The paper does not subtract the mean $\bar A_k$ over positions. Its features
come from a ReLU. Those of a neck have a constant part, which would be the
first component.

Grad-CAM (Selvaraju et al., https://arxiv.org/abs/1610.02391) weights each
channel by the mean gradient of the score $y$ of one detection:

$$M_p = \mathrm{ReLU}\Big(\sum_k w_k A_{kp}\Big), \quad
w_k = \frac{1}{HW} \sum_p \frac{\partial y}{\partial A_{kp}}$$
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmdet_attn.look.heat_maps import Geometry

OVERLAP = 0.5  # the least IoU of two detections of one object


class Detection(NamedTuple):
    """One detection: number of its class, score and box."""

    label: int
    score: float
    box: tuple[float, ...]


class Activations(NamedTuple):
    """What one detector shows in one image.

    Attributes:
        geometry: Sizes of the image.
        place: Where the levels come from: `neck` or `backbone`.
        eigen: EigenCAM of each level, (h, w), between -1 and 1.
        grad: Grad-CAM of the levels on which the score depends, by the index
            of the level, (h, w), between 0 and 1.
        detection: The detection whose score it is.
        why: Why there is no Grad-CAM; empty if there is one.
    """

    geometry: Geometry
    place: str
    eigen: list[np.ndarray]
    grad: dict[int, np.ndarray]
    detection: Detection | None
    why: str


def eigen_cam(level: Tensor) -> Tensor:
    """The first principal component of a level `(C, H, W)`: `(H, W)`.

    The sign is free. Here the fewer and stronger positions are positive.
    """
    features = level.double().flatten(1)
    features = features - features.mean(1, keepdim=True)
    component = torch.linalg.eigh(features @ features.T)[1][:, -1]
    values = component @ features
    sign = -1 if values.pow(3).sum() < 0 else 1
    return (sign * values).reshape(level.shape[1:])


def grad_cam(level: Tensor, gradient: Tensor) -> Tensor:
    """Grad-CAM of a level `(C, H, W)` and the gradient there: `(H, W)`."""
    weights = gradient.mean((1, 2))
    return torch.einsum('c,chw->hw', weights, level).relu()


def activations(
    inferencer: Any, path: str, wanted: int | Detection
) -> Activations:
    """Run a detector on an image and look into its levels.

    Args:
        inferencer: An inferencer of MMDetection.
        path: The image.
        wanted: The detection for Grad-CAM: 1 for that with the highest score,
            2 for the next; or that of another detector, for the detection of
            its class that overlaps it most, if by `OVERLAP` or more.
    """
    network = inferencer.model
    ((_, data),) = inferencer.preprocess([path])
    place, modules = _sources(network)
    levels: list[Tensor] = []
    gradients: Sequence[Tensor | None] = ()
    why = f'the score has no gradient in the {place}'
    try:
        with _graph_from(modules, levels):
            (sample,) = network.test_step(data)
            index = _find(sample.pred_instances, wanted)
            if index is not None and levels:
                score = sample.pred_instances.scores[index]
                if score.requires_grad:
                    gradients = torch.autograd.grad(
                        score, levels, allow_unused=True
                    )
    except RuntimeError as error:  # an operation has no derivative
        reason = f'{error}'.partition('\n')[0].rstrip('.')
        why = f'an operation of the detector allows none: {reason}'
        (sample,) = inferencer.forward(data)
        index = _find(sample.pred_instances, wanted)
    detection = None
    if index is not None:
        detection = _detection(sample.pred_instances[index])
    elif isinstance(wanted, int):
        why = f'there are fewer than {wanted} detections'
    else:
        why = 'no detection of the same class is there'
    grad = {
        number: _scale(grad_cam(level[0].detach(), gradient[0]))
        for number, (level, gradient) in enumerate(
            zip(levels, gradients, strict=False)
        )
        if gradient is not None and gradient.any()
    }
    eigen = [_scale(eigen_cam(level[0].detach())) for level in levels]
    geometry = Geometry.of(sample.metainfo)
    return Activations(
        geometry, place, eigen, grad, detection, '' if grad else why
    )


def _scale(values: Tensor) -> np.ndarray:
    """Divide by the greatest magnitude."""
    return (values / values.abs().max().clamp(min=1e-30)).cpu().numpy()


def _find(instances: Any, wanted: int | Detection) -> int | None:
    if isinstance(wanted, int):
        order = instances.scores.argsort(descending=True, stable=True)
        return int(order[wanted - 1]) if wanted <= len(order) else None
    from mmdet.structures.bbox import bbox_overlaps

    overlaps = bbox_overlaps(
        instances.bboxes.new_tensor([wanted.box]), instances.bboxes
    )[0]
    overlaps = overlaps * (instances.labels == wanted.label)
    if not len(overlaps) or overlaps.max() < OVERLAP:
        return None
    return int(overlaps.argmax())


def _detection(one: Any) -> Detection:
    box = tuple(one.bboxes[0].tolist())
    return Detection(one.labels.item(), one.scores.item(), box)


def _sources(network: nn.Module) -> tuple[str, list[nn.Module]]:
    """Where the levels come from: what it is, and the modules."""
    for place in ('neck', 'backbone'):
        # A semi-supervised detector has those of a student and a teacher.
        found = [
            module
            for name, module in network.named_modules()
            if name.rpartition('.')[2] == place
        ]
        if found:
            return place, found
    return 'network, which has neither neck nor backbone', []


class _KeepGraph(TorchFunctionMode):
    """Let scores keep their graph: heads detach them to choose detections."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.detach:
            return args[0]
        if func is Tensor.numpy:
            args = (args[0].detach(), *args[1:])
        return func(*args, **(kwargs or {}))


@contextmanager
def _graph_from(
    modules: list[nn.Module], levels: list[Tensor]
) -> Iterator[None]:
    """Start the graph at the outputs of modules, and keep these."""

    def start(_: nn.Module, __: Any, output: Any) -> Any:
        several = isinstance(output, (list, tuple))
        maps = output if several else [output]
        if not all(isinstance(m, Tensor) and m.dim() == 4 for m in maps):
            return output
        torch.set_grad_enabled(True)  # until the end of no_grad() below
        levels[:] = [one.data.requires_grad_() for one in maps]
        # A head may change its input in place, which a leaf forbids.
        copies = tuple(one.clone() for one in levels)
        return copies if several else copies[0]

    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_hook(start).remove)
        stack.enter_context(torch.no_grad())
        stack.enter_context(_KeepGraph())
        yield
