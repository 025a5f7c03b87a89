"""Run a property on as many examples as there is time for."""

import os
import pickle
import select
import signal
import time
import traceback
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, seed, settings

# For each test.
SECONDS = float(os.environ.get('FUZZ_SECONDS', 30))
SEED = int(os.environ.get('FUZZ_SEED', 0))
BATCH = 25


def fuzz(*strategies) -> Callable[[Callable], Callable[[], None]]:
    """Make a test of a function that takes drawn values.

    Every batch has a seed of its own. FUZZ_SEED is the first.
    """

    def decorate(check: Callable) -> Callable[[], None]:
        def test() -> None:
            end = time.monotonic() + SECONDS
            number = SEED
            while time.monotonic() < end:
                run = given(*strategies)(check)
                run = settings(
                    max_examples=BATCH,
                    deadline=None,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                )(run)
                seed(number)(run)()
                number += 1
            print(
                f'{(number - SEED) * BATCH} examples, seeds {SEED} to ', end=''
            )
            print(number - 1)

        test.__doc__ = check.__doc__
        return test

    return decorate


def apart(function: Callable[[], Any], limit: float) -> Any:
    """Call a function in a copy of this process, which may hang or crash.

    Raises:
        AssertionError: It did, or it raised.
    """
    receive, send = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        try:
            result = True, function()
        except BaseException:
            result = False, traceback.format_exc()
        os.write(send, pickle.dumps(result)[:60000])
        os._exit(0)
    os.close(send)
    ready = select.select([receive], [], [], limit)[0]
    data = os.read(receive, 65536) if ready else b''
    os.close(receive)
    if not ready:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert ready, f'hangs: more than {limit} s'
    assert data, f'crashes with {os.waitstatus_to_exitcode(status)}'
    good, result = pickle.loads(data)
    assert good, result
    return result
