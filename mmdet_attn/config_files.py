"""The folder of the configs: in a clone, or in an installed package."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
# A wheel holds them where MIM looks.
CONFIGS = next(
    folder
    for folder in (PACKAGE / '.mim' / 'configs', PACKAGE.parent / 'configs')
    if folder.is_dir()
)
