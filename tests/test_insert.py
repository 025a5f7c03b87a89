"""`mmdet_attn.insert`: any network, by the names of its modules."""

import copy
import io
import pickle
import re
from pathlib import Path

import pytest
import torch
from mmengine.analysis import get_model_complexity_info
from mmengine.config import Config
from mmengine.model import BaseModule, revert_sync_batchnorm
from mmengine.registry import MODELS
from modules import randomise
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mmdet_attn import ECA, SE, insert
from mmdet_attn.errors import InputError
from mmdet_attn.tracing import trace

X = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
NARROW = dict(base_channels=16, stem_channels=16)


class Net(nn.Module):
    """What a user of plain PyTorch writes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()
            )
            for _ in range(2)
        )
        self.shared = nn.Conv2d(8, 8, 1)
        self.never = nn.Conv2d(8, 8, 1)
        self.flat = nn.Flatten(2)
        self.pair = Pair()
        self.frozen = nn.Conv2d(8, 8, 1).requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        self.flat(x)
        x = self.frozen(x)
        return [self.shared(x), self.shared(self.pair(x)[0][..., ::2, ::2])]


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def net() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


def spec(at, kind='SE', place=None, **cfg):
    more = {} if place is None else dict(place=place)
    return dict(cfg=dict(type=kind, **cfg), at=at, **more)


def resnet(plugins=(), depth=50, **kwargs):
    torch.manual_seed(0)
    host = dict(type='mmdet.ResNet', depth=depth, **NARROW) | kwargs
    return MODELS.build(
        dict(type='mmdet_attn.insert', host=host, plugins=list(plugins))
    )


def assert_same(one, other, tolerance=0.0) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('name', ['ECA', 'CBAM'])
def test_keys_are_those_of_plugins(name):
    """Behind bn3 it is the plugin of a ResNet, to the last bit."""
    plugin = dict(type=f'mmdet_attn.{name}')
    stock = MODELS.build(
        dict(
            type='mmdet.ResNet',
            depth=50,
            plugins=[dict(cfg=plugin, position='after_conv3')],
            **NARROW,
        )
    )
    stock = randomise(stock)
    stock.eval()
    ours = resnet([dict(cfg=plugin, at='layer*.*.bn3')])
    assert type(ours) is type(stock)
    assert ours.state_dict().keys() == stock.state_dict().keys()
    ours.load_state_dict(stock.state_dict())
    ours.eval()
    assert_same(ours(X), stock(X))


def test_plain_weights_load_and_the_start_is_identical():
    plain = randomise(net())
    ours = insert(net(), [spec('stages.?', 'CBAM', identity_init=True)])
    missing, unexpected = ours.load_state_dict(plain.state_dict(), False)
    assert not unexpected
    assert {key.split('.cbam.')[0] for key in missing} == {
        'stages.0.2',
        'stages.1.2',
    }
    assert_same(ours(X), plain(X))


@pytest.mark.parametrize(
    ('at', 'names'),
    [
        # A module of the host itself holds its plugin.
        ('stem', ['stem.se']),
        # A Sequential is its last module; a list holds nothing.
        ('stages.?', ['stages.0.2.se', 'stages.1.2.se']),
        ('stages.[0]', ['stages.0.2.se']),
        (['stages.1.0', 'stem'], ['stages.1.0.se', 'stem.se']),
        ('re:stages\\.\\d\\.1', ['stages.0.1.se', 'stages.1.1.se']),
        # Both are the same place.
        (['stages.0', 'stages.0.2'], ['stages.0.2.se']),
    ],
)
def test_names(at, names):
    ours = insert(net(), [spec(at)])
    assert [item.path for item in ours.insertions.items] == names
    for name, plugin in zip(names, ours.insertions.plugins, strict=True):
        assert ours.get_submodule(name) is plugin
        assert type(plugin) is SE
        assert plugin.in_channels == 8


def test_siblings_have_names_of_their_own():
    ours = resnet([spec('layer1.0.conv?', 'mmdet_attn.ECA', place='before')])
    names = [item.path for item in ours.insertions.items]
    assert names == [f'layer1.0.eca_conv{n}' for n in (1, 2, 3)]
    channels = [plugin.in_channels for plugin in ours.insertions.plugins]
    assert channels == [16, 16, 16]


@pytest.mark.parametrize('place', ['before', 'after'])
def test_place(place):
    ours = randomise(insert(net(), [spec('stages.0.1', place=place)])).eval()
    conv, norm, relu = ours.stages[0]
    x = conv(ours.stem(X))
    if place == 'before':
        y = norm_of(norm, norm.se(x))
    else:
        y = norm.se(norm_of(norm, x))
    torch.testing.assert_close(ours.stages[0](ours.stem(X)), relu(y))


def norm_of(norm: nn.Module, x: Tensor) -> Tensor:
    """A batch norm without the hook that is on it."""
    return type(norm).forward(norm, x)


def test_before_a_sequential_is_before_its_first_module():
    ours = insert(net(), [spec('stages.0', place='before')])
    assert [item.path for item in ours.insertions.items] == ['stages.0.0.se']


def test_one_plugin_for_all_runs_of_a_module():
    ours = insert(net(), [spec('shared')])
    count = []
    ours.shared.se.register_forward_hook(lambda *_: count.append(1))
    ours(X)
    assert len(count) == 2
    assert len(ours.insertions.plugins) == 1


def test_two_plugins_at_one_place_run_in_order():
    plugins = [spec('stem'), spec('stem', 'ECA')]
    ours = randomise(insert(net(), plugins)).eval()
    y = nn.functional.conv2d(X, ours.stem.weight, ours.stem.bias, padding=1)
    torch.testing.assert_close(ours.stem(X), ours.stem.eca(ours.stem.se(y)))
    # And in two calls; what is inside of plugins does not match.
    twice = insert(
        insert(net(), plugins[:1]), [spec(['stem*', 'shared*'], 'ECA')]
    )
    assert not any('se.' in item.at for item in twice.insertions.items)
    assert [*twice.stem._modules] == ['se', 'eca']


@pytest.mark.parametrize(
    ('plugin', 'message'),
    [
        (spec('stage.*'), r"at='stage\.\*' matches no .* are stages"),
        (spec('STEM'), "at='STEM' matches no"),
        (spec(['stem', 'x.y']), r"at='x\.y' matches no"),
        (spec('re:('), 'is not a regular expression'),
        (spec('stages.*'), r"'stages\.0' and, inside of it, 'stages\.0\.0'"),
        (spec('stem', place='behind'), "'before', got 'behind'"),
        (dict(at='stem'), r"perhaps place, got \['at'\]"),
        (dict(spec('stem'), position=1), 'perhaps place, got .*position'),
        (spec('never'), "'never' does not run"),
        (spec('stages'), "'stages' does not run"),
        (spec('flat'), r'returns the shape \(1, 8, 24576\)'),
        (spec('pair'), "'pair' returns a tuple"),
        (spec('stem', postfix='x', place='after', in_channels=4), None),
    ],
)
def test_refuses(plugin, message):
    host = net()
    keys = host.state_dict().keys()
    if message is None:  # in_channels is the user's to set
        assert insert(host, [plugin]).stem.sex.in_channels == 4
        return
    with pytest.raises(InputError, match=message):
        insert(host, [spec('stem'), plugin])
    assert host.state_dict().keys() == keys


@pytest.mark.parametrize(
    'last',
    [spec('shared', 'ECA', kernel_size=4), spec('stem'), spec('x.y')],
    ids=['argument', 'name', 'pattern'],
)
def test_an_error_leaves_the_host_as_it_was(last):
    host, plain = net(), net()
    with pytest.raises(InputError):
        insert(host, [spec('stem'), last])
    assert host.state_dict().keys() == plain.state_dict().keys()
    assert vars(host).keys() == vars(plain).keys()
    assert not host.stem._forward_hooks
    assert_same(host(X), plain(X))


def test_refuses_a_name_that_is_there():
    """A trial had overwritten the attention of Swin itself."""

    class Attn(SE):
        _abbr_ = 'attn'

    host = dict(type='mmdet.SwinTransformer', **SWIN)
    MODELS.register_module(module=Attn, force=True)
    try:
        with pytest.raises(InputError, match=r"0 already has 'attn'.*postfix"):
            insert(MODELS.build(host), [spec('stages.0.blocks.0', 'Attn')])
    finally:
        MODELS.module_dict.pop('Attn')


SWIN = dict(embed_dims=12, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2))


def test_tokens_are_maps_by_hw_shape():
    host = MODELS.build(dict(type='mmdet.SwinTransformer', **SWIN))
    host.eval()
    ours = insert(host, [spec('stages.?.blocks.?', 'mmdet_attn.CBAM')])
    assert len(ours.insertions.items) == 4
    randomise(ours)
    block = ours.stages[1].blocks[0]
    x = torch.randn(2, 7 * 9, 24)
    y = type(block).forward(block, x, (7, 9))
    y = block.cbam(y.transpose(1, 2).reshape(2, 24, 7, 9))
    y = y.flatten(2).transpose(1, 2)
    torch.testing.assert_close(block(x, (7, 9)), y)
    torch.testing.assert_close(block(x, hw_shape=(7, 9)), y)
    with pytest.raises(InputError, match=r'returns the shape .*s are stages'):
        insert(ours, [spec('stages.0.blocks.0.norm1')])


def test_maps_with_channels_last_are_refused():
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 4, 4)
            self.linear = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x).permute(0, 2, 3, 1)
            return self.linear(x).permute(0, 3, 1, 2)

    with pytest.raises(InputError, match=r'shape \(1, 32, 48, 8\)'):
        insert(Last(), [spec('linear')])


def test_host_that_does_not_run_on_zeros():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 1)
            self.block = nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU())

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.block(self.conv(x) + y)

    with pytest.raises(InputError, match=r"'block\.1' needs in_channels in"):
        insert(Odd(), [spec('block')])
    ours = insert(Odd(), [spec('block', in_channels=4), spec('block.0')])
    assert [p.in_channels for p in ours.insertions.plugins] == [4, 4]


def test_trace_leaves_the_network_as_it_is():
    network = resnet(norm_eval=False)
    network.train()
    network.layer2.eval()
    before = copy.deepcopy(network.state_dict())
    modes = [module.training for module in network.modules()]
    seen = trace(network).seen
    assert seen['layer1.0.conv1'] == ((16, 32, 48), (16, 32, 48))
    assert seen['layer2.0.conv2'] == ((32, 32, 48), (32, 16, 24))
    assert modes == [module.training for module in network.modules()]
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_frozen_parts_freeze_their_plugins():
    ours = resnet(
        [spec(['conv1', 'layer*.0.bn3'], 'mmdet_attn.BAM')],
        frozen_stages=2,
        norm_eval=True,
    )
    for _ in range(2):  # as built, and after the host's own freezing
        trained = [
            any(p.requires_grad for p in plugin.parameters())
            for plugin in ours.insertions.plugins
        ]
        assert trained == [False, False, False, True, True]
        ours.train()
    norms = [m for m in ours.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(norm.training for norm in norms)
    assert not insert(
        net(), [spec('frozen')]
    ).frozen.se.fc1.weight.requires_grad


def test_own_initialisation_comes_after_the_hosts(tmp_path):
    """Also where a plugin is in a module that mmengine does not know."""

    class Host(BaseModule):
        def __init__(self, init_cfg=None) -> None:
            super().__init__(init_cfg)
            self.net = Net()

        def forward(self, x: Tensor) -> list[Tensor]:
            return self.net(x)

    ones = [dict(type='Constant', val=1, layer=['Conv2d', 'BatchNorm2d'])]
    cbam = spec('net.stem', 'CBAM')
    host = insert(Host(ones), [cbam])
    host.init_weights()
    assert host.net.shared.weight.eq(1).all()
    assert not host.net.cbam.spatial.norm.weight.any()
    assert host.net.cbam.spatial.conv.weight.std() > 0
    donor = randomise(host)
    torch.save(donor.state_dict(), tmp_path / 'x.pth')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth'))
    loaded = insert(Host(init), [cbam, spec('net.stem', 'CBAM', postfix=2)])
    randomise(loaded).init_weights()
    for key, value in donor.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    assert not loaded.net.cbam2.spatial.norm.weight.any()


def test_attention_pretrained_accounts_for_each_plugin(tmp_path):
    at = 'layer*.*.bn3'
    donor = resnet([spec(at, 'mmdet_attn.ECA')])
    plain = resnet()
    for name, network in dict(eca=donor, plain=plain).items():
        torch.save(randomise(network).state_dict(), tmp_path / f'{name}.pth')

    def load(name, **kwargs):
        init = dict(
            type='mmdet_attn.AttentionPretrained',
            checkpoint=str(tmp_path / f'{name}.pth'),
        )
        plugins = [spec(at, 'mmdet_attn.ECA', **kwargs)]
        network = resnet(plugins, init_cfg=init)
        network.init_weights()
        network.eval()
        return network

    donor.eval(), plain.eval()
    assert_same(load('eca')(X), donor(X))
    assert_same(load('plain', identity_init=True)(X), plain(X))
    with pytest.raises(InputError, match='no weights for 16 plugin'):
        load('plain')
    with pytest.raises(InputError, match='kernel_size'):
        load('eca', kernel_size=7)


@pytest.fixture(scope='module')
def trained():
    """A network whose plugins change its output."""
    return randomise(
        insert(net(), [spec('stages.?', 'CBAM'), spec('stem', place='before')])
    ).eval()


@pytest.mark.parametrize(
    'copied',
    [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))],
    ids=['deepcopy', 'pickle'],
)
def test_copies_are_apart(trained, copied):
    other = copied(trained)
    assert_same(other(X), trained(X))
    before = trained(X)
    for plugin in other.insertions.plugins:
        randomise(plugin)
        plugin.requires_grad_(False).apply(zero)
    assert (other(X)[0] - before[0]).abs().max() > 0
    assert_same(trained(X), before)


def zero(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.data.zero_()


def test_new_norms_get_the_hook_again(trained):
    """SyncBatchNorm's conversion and fusion make new modules."""
    from mmcv.cnn import fuse_conv_bn

    host = insert(net(), [spec('stages.*.1', 'CBAM')])
    host = randomise(host).eval()
    plain = randomise(net()).eval()
    for convert in (
        lambda m: revert_sync_batchnorm(
            nn.SyncBatchNorm.convert_sync_batchnorm(m)
        ),
        fuse_conv_bn,
    ):
        other = convert(copy.deepcopy(host)).eval()
        assert_same(other(X), host(X), 1e-5)
    assert (plain(X)[0] - host(X)[0]).abs().max() > 1e-2


def test_compile_and_export(trained):
    compiled = torch.compile(trained, backend='eager', fullgraph=True)
    assert_same(compiled(X), trained(X), 1e-6)
    program = torch.export.export(trained, (X,))
    assert_same(program.module()(X), trained(X), 1e-6)


def test_onnx(trained):
    import onnxruntime

    file = io.BytesIO()
    torch.onnx.export(trained, (X,), file, dynamo=False)
    session = onnxruntime.InferenceSession(file.getvalue())
    [name] = [i.name for i in session.get_inputs()]
    outputs = session.run(None, {name: X.numpy()})
    assert_same(map(torch.from_numpy, outputs), trained(X), 1e-4)


def test_activation_checkpointing():
    plugins = [spec('layer*.*.bn3', 'mmdet_attn.ECA')]
    gradients = []
    for with_cp in (False, True):
        network = randomise(resnet(plugins, with_cp=with_cp)).double()
        network.train()
        sum(y.sum() for y in network(X.double())).backward()
        gradients.append([p.grad for p in network.parameters()])
    assert_same(*gradients, 1e-9)


def test_complexity_counts_plugins(trained):
    with_plugins, without = (
        get_model_complexity_info(m, inputs=(X,)) for m in (trained, net())
    )
    own = [p for m in trained.insertions.plugins for p in m.parameters()]
    more = with_plugins['params'] - without['params']
    assert more == sum(p.numel() for p in own)
    assert with_plugins['flops'] > without['flops']


def test_print_shows_plugins():
    shown = repr(insert(net(), [spec('stem', 'ECA', kernel_size=5)]))
    assert re.search(r'\(eca\): ECA\(8, kernel_size=5\)', shown)


def test_config_wraps_what_it_inherits(tmp_path):
    (tmp_path / 'base.py').write_text(
        "model = dict(backbone=dict(type='mmdet.ResNet', depth=18))"
    )
    (tmp_path / 'leaf.py').write_text(
        "_base_ = 'base.py'\n"
        'model = dict(backbone=dict(\n'
        "    _delete_=True, type='mmdet_attn.insert',\n"
        '    host=_base_.model.backbone,\n'
        "    plugins=[dict(cfg=dict(type='mmdet_attn.ECA'), at='*.bn2')]))\n"
    )
    cfg = Config.fromfile(tmp_path / 'leaf.py')
    dumped = tmp_path / 'dumped.py'
    cfg.dump(dumped)
    for backbone in (
        cfg.model.backbone,
        Config.fromfile(dumped).model.backbone,
    ):
        network = MODELS.build(backbone)
        assert sum(type(m) is ECA for m in network.modules()) == 8
        assert type(network).__name__ == 'ResNet'


def _train(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', f'file://{folder}/store', rank=rank, world_size=2
    )
    network = insert(net().train(), [spec('stages.?', 'CBAM')])
    network.never.requires_grad_(False)
    parallel = DistributedDataParallel(network)
    sum(y.square().mean() for y in parallel(X[rank : rank + 1])).backward()
    plugins = network.insertions.plugins
    grads = [p.grad for m in plugins for p in m.parameters()]
    torch.save(grads, folder / f'{rank}.pth')
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_same_gradients(tmp_path):
    torch.multiprocessing.spawn(_train, (tmp_path,), nprocs=2)
    first, second = (torch.load(tmp_path / f'{n}.pth') for n in (0, 1))
    assert_same(first, second)
    assert len(first) == 14
    assert any(grad.any() for grad in first)
