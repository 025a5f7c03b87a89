"""The engines that compute AP: faster-coco-eval and pycocotools."""

from mmdet_attn.errors import InputError


def find_evaluator(backend: str, use_mp_eval: bool = False) -> type:
    """Find the `COCOeval` class of a backend.

    Raises:
        InputError: The backend is unknown, is not installed, or does not
            support `use_mp_eval`.
    """
    from mmdet.datasets.api_wrappers import COCOeval, COCOevalMP

    if backend == 'pycocotools':
        return COCOevalMP if use_mp_eval else COCOeval
    if backend != 'faster':
        raise InputError(
            f"backend must be 'faster' or 'pycocotools', got {backend!r}."
        )
    if use_mp_eval:
        raise InputError(
            'use_mp_eval=True is for pycocotools: leave it out, or take '
            '--eval-backend pycocotools.'
        )
    try:
        from mmdet_attn.evaluation.faster import FasterCOCOeval
    except ImportError as error:
        raise InputError(
            f'the default evaluation needs faster-coco-eval, but: {error}. '
            'pip install faster-coco-eval, or take the slow one: '
            '--eval-backend pycocotools.'
        ) from error
    return FasterCOCOeval
