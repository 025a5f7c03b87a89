"""Keep long and needless output off the terminal."""

import io
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from mmengine.logging import MMLogger
from mmengine.runner import Runner

# What only fills the terminal: the environment, the config, the hooks, how
# each parameter was initialised.
LONG = re.compile(
    r'\s*-+\nSystem environment:|Config:\n|Hooks will be executed in the '
    r'following order:\n|\s*[\w.]+ - torch\.Size\('
)


@contextmanager
def quiet(level: int = logging.INFO) -> Iterator[None]:
    """Keep what is printed, and logged up to a level, off the terminal."""
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        with redirect_stdout(io.StringIO()):  # pycocotools prints
            yield
    finally:
        logging.disable(before)


def _is_short(record: logging.LogRecord) -> bool:
    return not LONG.match(record.getMessage())


class ShortRunner(Runner):
    """mmengine's runner, which lists only in its log file.

    Takes mmengine's arguments.
    """

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(_is_short)
        logger.info(
            'The environment, the config and the hooks are in '
            f'{self._log_dir}/{self.timestamp}.log'
        )
        return logger
