"""The command line: `mmdet-attn COMMAND ...` or `python -m mmdet_attn`."""

import argparse
import difflib
import sys
from importlib import import_module
from typing import Any

# Only the chosen one is imported: --help needs no torch.
COMMANDS = {
    'train': 'train a detector',
    'test': 'evaluate a checkpoint, with AP and recall of each class',
    'predict': 'detect objects in images: pictures and JSON',
    'export': 'write a detector as an ONNX file',
    'demo': 'train, evaluate and look at a small detector, no download',
    'study': 'run all trainings of a question, and compare them',
    'where': 'find the places for attention in any network',
    'complexity': "parameters and GFLOPs, beside the paper's",
    'benchmark': 'bytes, time and memory of attention, as ratios',
    'visualize-attention': 'show what attention does in images: one page',
    'audit': 'does the attention attend? AP with it replaced',
    'compare-results': 'AP of trainings, and differences with intervals',
    'make-shapes': 'render a small data set of coloured shapes',
    'convert-checkpoint': 'convert an official checkpoint',
    'publish-model': 'make a checkpoint of a training fit to be published',
    'completion': 'print a script that completes commands in your shell',
}


def module_of(command: str) -> Any:
    """The module of a command, with `make_parser` and `main`."""
    return import_module(f'mmdet_attn.commands.{command.replace("-", "_")}')


def run(command: str) -> None:
    """Run a command with the arguments of this process.

    What is missing or wrong is shown as one line, with exit status 2.
    """
    from mmdet_attn.errors import user_errors
    from mmdet_attn.training.alone import end_with_parent

    end_with_parent()
    with user_errors():
        module = module_of(command)
        module.main(module.make_parser().parse_args())
    from mmdet_attn.launch import leave_group

    leave_group()


def main() -> None:
    """Run the command that the first argument names."""
    width = max(map(len, COMMANDS))
    listed = [f'  {name:{width}}  {text}' for name, text in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog='mmdet-attn',
        description='Attention for MMDetection: train, evaluate, look.',
        epilog='\n'.join(['commands:', *listed]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('command', help='one of those below')
    parser.add_argument(
        'arguments', nargs=argparse.REMAINDER, help='mmdet-attn COMMAND --help'
    )
    args = parser.parse_args()
    if args.command not in COMMANDS:
        near = difflib.get_close_matches(args.command, COMMANDS)
        hint = f'did you mean {" or ".join(near)}?' if near else 'see --help.'
        parser.error(f'there is no command {args.command}: {hint}')
    sys.argv = [f'{parser.prog} {args.command}', *args.arguments]
    run(args.command)


if __name__ == '__main__':
    main()
