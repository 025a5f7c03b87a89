"""Measure what inserting attention does to a trained detector.

A small detector is trained on the shapes set. Modules are then inserted as
their papers start them, or as the identity, and the training goes on. AP is
measured before the first step and after every epoch.
"""

import contextlib
import io
import json
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

AP = 'coco/bbox_mAP'
BATCH = 8
TRAIN = 160  # images of an epoch after the insertion
STARTS = ('paper', 'identity')


class Job(NamedTuple):
    """One training that starts from the trained detector."""

    module: str | None
    start: str
    seed: int

    @property
    def name(self) -> str:
        return '_'.join([self.module or 'plain', self.start, str(self.seed)])


def make_jobs(modules: list[str], seeds: list[int]) -> list[Job]:
    """All trainings that start from the trained detector.

    The detector without attention is trained on, too, to know what it gains
    without modules.
    """
    inserted = [(m, start) for m in modules for start in STARTS]
    return [
        Job(module, start, seed)
        for seed in seeds
        for module, start in [(None, 'none'), *inserted]
    ]


def job_config(
    job: Job, cfg: Config, trained: str, work: Path, epochs: int
) -> Config:
    """The config of a training, from that of the demo's detector."""
    cfg.work_dir = str(work / job.name)
    cfg.experiment_name = job.name
    cfg.randomness = dict(seed=job.seed)
    cfg.log_level = 'WARNING'
    # Otherwise every training of a process writes into the first log.
    cfg.visualizer.name = job.name
    cfg.default_hooks.checkpoint.update(max_keep_ckpts=1)
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.update(num_workers=0, persistent_workers=False)
    cfg.train_dataloader.dataset.indices = TRAIN
    cfg.train_dataloader.batch_size = BATCH
    cfg.train_cfg.update(max_epochs=epochs, val_interval=1)
    plugin: dict = dict(type=f'mmdet_attn.{job.module}')
    if job.start == 'identity':
        plugin['identity_init'] = True
    cfg.model.backbone.plugins = job.module and [
        dict(cfg=plugin, position='after_conv3')
    ]
    cfg.load_from = trained
    cfg.optim_wrapper.optimizer.lr /= 4
    cfg.param_scheduler = [
        dict(
            type='CosineAnnealingLR',
            begin=0,
            end=epochs,
            eta_min=1e-5,
            convert_to_iter_based=True,
        )
    ]
    return cfg


def run_job(
    job: Job, config: str, data: str, trained: str, work: str, epochs: int
) -> dict:
    """Train and return AP before the first step and after each epoch.

    The result of a finished job is read from its file.
    """
    result = Path(work, job.name, 'result.json')
    if result.is_file():
        return json.loads(result.read_text())
    import torch
    from mmengine.hooks import Hook

    from mmdet_attn.datasets.coco_folder import use_data_root
    from mmdet_attn.launch import build_runner

    torch.set_num_threads(1)  # others run beside it
    cfg = Config.fromfile(config)
    cfg = job_config(job, cfg, trained, Path(work), epochs)
    use_data_root(cfg, data, ('train', 'val'))
    found: list[float] = []

    class Keep(Hook):
        """Evaluate also before the training, and keep AP."""

        def before_train(self, runner) -> None:
            runner.val_loop.run()

        def after_val_epoch(self, runner, metrics=None) -> None:
            found.append(metrics[AP])

    runner = build_runner(cfg)
    runner.register_hook(Keep())
    # The summaries of all trainings would drown the table.
    with contextlib.redirect_stdout(io.StringIO()):
        runner.train()
    row = {**job._asdict(), 'ap': found}
    result.write_text(json.dumps(row) + '\n')
    return row


def plot_starts(base_ap: float, rows: list[dict], file: str | Path) -> None:
    """Plot AP after insertion to a PNG, with a panel for each module."""
    import matplotlib
    import numpy as np

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    modules = list(dict.fromkeys(r['module'] for r in rows if r['module']))
    figure, panels = plt.subplots(
        1, len(modules), figsize=(4 * len(modules), 4), sharey=True
    )
    styles = (
        ('none', '0.5', 'no attention'),
        ('paper', 'tab:red', "paper's start"),
        ('identity', 'tab:blue', 'identity start'),
    )
    for axes, module in zip(np.atleast_1d(panels), modules, strict=True):
        for start, color, label in styles:
            curves = [
                [100 * ap for ap in row['ap']]
                for row in rows
                if row['start'] == start and row['module'] in (module, None)
            ]
            for curve in curves:
                axes.plot(curve, color=color, lw=0.7, alpha=0.4)
            axes.plot(np.mean(curves, 0), color=color, marker='o', label=label)
        axes.axhline(100 * base_ap, color='black', lw=0.8, ls='--')
        axes.set(
            title=module, xlabel=f'epochs of {TRAIN} images after insertion'
        )
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    first = np.atleast_1d(panels)[0]
    first.set_ylabel('box AP (IoU 0.50 to 0.95), %')
    first.legend(frameon=False, loc='lower right')
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)
