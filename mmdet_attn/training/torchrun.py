"""Start the processes of a node, for tools/dist_train.sh and dist_test.sh.

torchrun's agent, with one line for each mistake, with exit codes that say
what happened, and with an end when another node is lost.
"""

import argparse
import logging
import os
import signal
import socket
import sys
from pathlib import Path

from torch.distributed import TCPStore
from torch.distributed.elastic.agent.server.api import RunResult, WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import (
    LocalElasticAgent,
)
from torch.distributed.elastic.multiprocessing import (
    DefaultLogsSpecs,
    SignalException,
)
from torch.distributed.elastic.rendezvous import (
    RendezvousInfo,
    RendezvousStoreInfo,
)
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import (
    StaticTCPRendezvous,
)

from mmdet_attn.errors import InputError, user_errors
from mmdet_attn.launch import add_timeout
from mmdet_attn.training.alone import LAUNCHER
from mmdet_attn.training.nodes import Nodes, interface_to

# Bad input, SIGINT, SIGTERM: nobody wants another start.
FINAL = {2, 130, 143}


class Agent(LocalElasticAgent):
    """torchrun's, which does not start again what ended for good."""

    def _monitor_workers(self, worker_group) -> RunResult:
        result = super()._monitor_workers(worker_group)
        if result.failures:
            rank, code = first_failure(result)
            if code in FINAL:
                self._remaining_restarts = 0
            else:
                how = f'with exit code {code}'
                if code > 128:
                    how = f'by {signal.Signals(code - 128).name}'
                most = worker_group.spec.max_restarts
                count = most - self._remaining_restarts + 1
                then = f'; restart {count} of {most}' * (count <= most)
                say(f'process {rank} ended {how}{then}')
        return result


class Rendezvous(StaticTCPRendezvous):
    """torchrun's, with a new store for the processes of each start.

    In that of an earlier start they would find addresses of processes that
    have died.
    """

    starts = 0

    def next_rendezvous(self) -> RendezvousInfo:
        info = super().next_rendezvous()
        self.starts += 1
        key = f'port/{self.starts}'
        if self.rank == 0:
            self.start_store = TCPStore(
                self.master_addr, 0, is_master=True, wait_for_workers=False
            )
            info.store.set(key, str(self.start_store.port))
        port = int(info.store.get(key))
        return RendezvousInfo(
            info.store,
            info.rank,
            info.world_size,
            RendezvousStoreInfo(self.master_addr, port),
        )


def first_failure(result: RunResult) -> tuple[int, int]:
    """The rank and the exit code, as of a shell, of what failed first."""
    rank, failure = min(
        result.failures.items(), key=lambda item: item[1].timestamp
    )
    code = failure.exitcode
    return rank, code if code > 0 else 128 - code


def say(message: str) -> None:
    print(f'{Path(sys.argv[0]).name}: {message}', file=sys.stderr, flush=True)


def number(name: str, text: str, least: int, most: int = 10**6) -> int:
    """A whole number that the user gave."""
    if text.isdecimal() and least <= int(text) <= most:
        return int(text)
    raise InputError(
        f'{name} must be a whole number from {least} to {most}, got {text!r}.'
    )


def check_port(port: int) -> None:
    """Refuse a port that cannot be listened to."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(('', port))
            listener.listen()
        except OSError as error:
            raise InputError(
                f'PORT {port} cannot be used on this machine '
                f'({error.strerror}); another training may have it: set '
                f'another, such as PORT={port % 60000 + 1000}.'
            ) from None


def check_address(address: str, port: int) -> None:
    """Refuse an address by which nodes cannot meet."""
    try:
        socket.getaddrinfo(address, port)
    except OSError as error:
        raise InputError(
            f'MASTER_ADDR {address} is not known on this machine '
            f'({error.strerror}): give the address of node 0.'
        ) from None
    if interface_to(address) == 'lo':
        raise InputError(
            f'MASTER_ADDR {address} leads to this machine only: give the '
            'address by which the other nodes reach node 0.'
        )


def run(processes: str, script: list[str]) -> int:
    """Run a script in several processes.

    Args:
        processes: How many; the nodes, their address and the number of
            restarts are in the variables that docs/tools.md names.
        script: The script and its arguments.

    Returns:
        The exit code.
    """
    get = os.environ.get
    count = number('GPUS', processes, 1)
    nodes = number('NNODES', get('NNODES', '1'), 1)
    if nodes > 1 and not {'MASTER_ADDR', 'NODE_RANK'} <= os.environ.keys():
        raise InputError(
            f'NNODES={nodes} also needs MASTER_ADDR, the address of node 0, '
            'and NODE_RANK, the number of this node.'
        )
    node = number('NODE_RANK', get('NODE_RANK', '0'), 0, nodes - 1)
    address = get('MASTER_ADDR', '127.0.0.1')
    port = number('PORT', get('PORT', '29500'), 1, 65535)
    restarts = number('MAX_RESTARTS', get('MAX_RESTARTS', '0'), 0)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_timeout(parser)
    minutes = parser.parse_known_args(script)[0].timeout or 10
    if nodes > 1:
        check_address(address, port)
    if node == 0:
        check_port(port)

    logging.getLogger('torch.distributed.elastic').setLevel(logging.CRITICAL)
    os.environ[LAUNCHER] = str(os.getpid())
    if count > 1:
        os.environ.setdefault('OMP_NUM_THREADS', '1')
    group = None
    if nodes > 1:
        group = Nodes(address, port, node, nodes, minutes * 60, say)
    agent = Agent(
        WorkerSpec(
            role='default',
            local_world_size=count,
            entrypoint=sys.executable,
            args=('-u', *script),
            rdzv_handler=Rendezvous(
                address, port, node, nodes, 'mmdet_attn', round(minutes * 60)
            ),
            max_restarts=restarts,
        ),
        DefaultLogsSpecs(),
    )
    try:
        result = agent.run()
        code = first_failure(result)[1] if result.is_failed() else 0
    except SignalException as stop:
        code = 128 + stop.sigval
    if group:
        group.leave(code)
    return code


if __name__ == '__main__':
    del sys.argv[0]  # messages have the name of the script, which follows
    with user_errors():
        status = run(sys.argv[1], sys.argv[2:])
    sys.exit(status)
