"""The terminal has less than the log file."""

import torch
from mmengine.config import Config

from mmdet_attn.terminal import ShortRunner

LISTING = '\nbackbone.conv1.weight - torch.Size([64, 3, 7, 7]): \nNormalInit'


def test_lists_go_to_the_log_file(tmp_path, capsys):
    runner = ShortRunner(
        model=torch.nn.Linear(1, 1),
        work_dir=str(tmp_path),
        cfg=Config(dict(some_key=1)),
        experiment_name=tmp_path.name,
    )
    runner.logger.info(LISTING)
    runner.logger.info('Config: what a hook says')
    runner.logger.warning('loss 1')
    shown = capsys.readouterr().out
    (file,) = tmp_path.glob('*/*.log')
    written = file.read_text()
    for text in ('System environment', 'some_key', 'before_run', 'conv1'):
        assert text in written
        assert text not in shown
    for text in ('Config: what a hook says', 'loss 1'):
        assert text in written
        assert text in shown
    assert str(file) in shown
