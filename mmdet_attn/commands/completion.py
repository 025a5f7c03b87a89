"""Print a script that completes commands and options in a shell.

bash: mmdet-attn completion bash \\
  > ~/.local/share/bash-completion/completions/mmdet-attn
"""

import argparse

import shtab

from mmdet_attn.__main__ import COMMANDS, module_of


def make_parser():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'shell', choices=['bash', 'zsh', 'fish'], help='whose script it is'
    )
    return parser


def whole_parser() -> argparse.ArgumentParser:
    """One parser with every command as a subcommand."""
    parser = argparse.ArgumentParser(prog='mmdet-attn')
    commands = parser.add_subparsers()
    for name, text in COMMANDS.items():
        parent = module_of(name).make_parser()
        child = commands.add_parser(
            name, help=text, parents=[parent], add_help=False
        )
        for action in child._actions:
            if action.choices:
                # A dict would be taken for one of subcommands.
                action.choices = list(action.choices)
            elif action.nargs != 0:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    return parser


def main(args):
    print(shtab.complete(whole_parser(), shell=args.shell))
