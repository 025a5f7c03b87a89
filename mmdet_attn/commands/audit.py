"""Does the attention of a detector attend?

Evaluates a checkpoint as trained, and with the factor of each gate replaced:
by its mean map over the images, by one scalar, by 1, and by that of another
image. First for all gates together, then stage by stage. Writes audit.json,
audit.md, audit.csv, gates.csv and factors.png.
"""

from copy import deepcopy
from pathlib import Path

from mmdet_attn.cli import (
    check_device,
    check_output,
    config_parser,
    load_config,
)
from mmdet_attn.config_checks import check_files
from mmdet_attn.errors import InputError
from mmdet_attn.weights.fit import load_strictly
from mmdet_attn.weights.load import (
    read_ahead,
    refuse_not_finite,
    state_dict_of,
)
from mmdet_attn.weights.save import check_folder


def make_parser():
    parser = config_parser(__doc__, 'checkpoint')
    parser.add_argument(
        '--images',
        type=int,
        metavar='N',
        help='evaluate on N images by chance (default: the whole set)',
    )
    parser.add_argument(
        '--out-dir',
        metavar='DIR',
        help='folder for the results (default: WORK_DIR/audit)',
    )
    parser.add_argument(
        '--device',
        help='such as cpu or cuda:0; the best there is if left out',
    )
    parser.add_argument(
        '--no-stages',
        action='store_true',
        help='replace all gates together only, which takes 5 evaluations',
    )
    parser.add_argument(
        '--time',
        action='store_true',
        help='measure what an image costs with and without the attention',
    )
    parser.add_argument(
        '--fold',
        metavar='FILE.pth',
        help='write a checkpoint in which constant gates are part of the '
        'layers in front of them, and FILE.py, its config without them',
    )
    parser.add_argument(
        '--fold-gates',
        nargs='+',
        metavar='PATTERN',
        help='fold the gates of these names, such as "backbone.layer4.*", '
        'whatever the verdict is',
    )
    return parser


def main(args):
    if args.launcher != 'none':
        raise InputError(
            f'The audit runs in one process: leave --launcher {args.launcher} '
            'out.'
        )
    if args.fold_gates and not args.fold:
        raise InputError('--fold-gates needs --fold FILE.pth.')
    check_output('--fold', args.fold, '.pth')
    if args.device is not None:
        check_device(args.device)
    content = read_ahead(args.checkpoint, args.trust_checkpoint)
    refuse_not_finite(args.checkpoint, content)
    cfg = load_config(args, 'val')
    check_files(cfg, 'test')
    folder = Path(args.out_dir or Path(cfg.work_dir, 'audit'))
    check_folder(folder)

    from mmengine.device import get_device
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from mmdet_attn.study import audit_report
    from mmdet_attn.study.audit import Audit
    from mmdet_attn.study.evaluation import Evaluation, build_detector
    from mmdet_attn.study.fold import (
        Fold,
        check_patterns,
        constants,
        write_folded,
    )

    device = args.device or get_device()
    plain = deepcopy(cfg)  # the audit changes the evaluators
    detector = build_detector(cfg, device)
    load_strictly(detector, state_dict_of(content), way_out='')
    evaluation = Evaluation(cfg, args.images)
    audit = Audit(detector, evaluation, not args.no_stages)
    wanted = args.fold_gates or []
    if args.fold:
        check_patterns(wanted, audit.parts)
        batch = next(iter(evaluation.loader))
        fold = Fold(plain, detector, audit.parts, batch)
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn('images, left:'),
        TimeRemainingColumn(),
    )
    found = {
        'config': args.config,
        'checkpoint': args.checkpoint,
        'device': device,
    }
    passes = audit.passes + bool(args.fold)
    try:
        with Progress(*columns) as bar:
            task = bar.add_task('', total=passes * evaluation.images)

            def step(images):
                bar.advance(task, images)

            def show(text):
                bar.update(task, description=text)

            found |= audit.run(step, show)
            if args.time:
                show('time')
                found['time'] = audit.time()
            if args.fold:
                show('folded')
                found['fold'] = write_folded(
                    fold,
                    constants(found['groups'], audit.parts, wanted),
                    evaluation,
                    Path(args.fold),
                    content.get('meta', {}),
                    step,
                )
    finally:  # what was measured stays, also if nothing can be folded
        if 'groups' in found:
            audit_report.show(found)
            audit_report.write(found, folder)
            print(f'Results: {folder}')
