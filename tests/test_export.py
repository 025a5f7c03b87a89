"""torch.export and ONNX, with dynamic batch, height and width."""

import onnxruntime
import pytest
import torch
from conftest import ROOT
from modules import FORMS, build_identity, randomise
from torch.export import Dim

from mmdet_attn import PSAConv2d, SimAMConv2d, SKConv2d

# aten.searchsorted has no ONNX operator.
NOT_IN_ONNX = ('NonLocal-concat',)
DYNAMIC = {'x': {0: Dim('n', min=1), 2: Dim('h', min=8), 3: Dim('w', min=8)}}


CONVOLUTIONS = {
    'PSAConv2d': lambda: PSAConv2d(32, 64, stride=2, reduction=4),
    'SKConv2d': lambda: SKConv2d(32, 64, stride=2),
    'SimAMConv2d': lambda: SimAMConv2d(32, 32, 3, padding=1),
}


@pytest.mark.parametrize('name', [*FORMS, *CONVOLUTIONS])
def test_export(name):
    """Both from one exported program, at a size that it has not seen."""
    make = CONVOLUTIONS.get(name, lambda: build_identity(name))
    module = randomise(make()).eval()
    example = torch.randn(2, 32, 12, 10)
    program = torch.export.export(module, (example,), dynamic_shapes=DYNAMIC)
    x = torch.randn(1, 32, 9, 17)
    expected = module(x)
    torch.testing.assert_close(program.module()(x), expected)
    if name in NOT_IN_ONNX:
        with pytest.raises(torch.onnx.errors.OnnxExporterError):
            torch.onnx.export(program, dynamo=True, verbose=False)
        return
    onnx = torch.onnx.export(program, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(
        onnx.model_proto.SerializeToString()
    )
    feed = {session.get_inputs()[0].name: x.numpy()}
    found = torch.from_numpy(session.run(None, feed)[0])
    # LSK's values reach thousands here.
    atol = 1e-5 * max(10, expected.abs().max().item())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=atol)


def test_manual_says_what_onnx_lacks():
    pages = [ROOT / 'README.md', *ROOT.joinpath('docs').rglob('*.md')]
    text = ''.join(page.read_text() for page in pages)
    assert "NonLocal(mode='concatenation')" in text
