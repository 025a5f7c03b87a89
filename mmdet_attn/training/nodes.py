"""Several nodes tell each other that they live."""

import fcntl
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from torch.distributed import DistError, TCPStore

from mmdet_attn.errors import InputError

# Seconds for this node's processes to end by themselves: they may be saving.
GRACE = 30


def interface_to(address: str) -> str | None:
    """The network interface by which this machine reaches an address.

    None where it has no IPv4 route.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 1))  # UDP: this sends nothing
        except OSError:
            return None
        own = probe.getsockname()[0]
        for _, name in socket.if_nameindex():
            try:
                # 0x8915 is SIOCGIFADDR; the address is in bytes 20 to 24.
                found = fcntl.ioctl(
                    probe, 0x8915, struct.pack('256s', name.encode())
                )
            except OSError:
                continue  # it has no IPv4 address
            if socket.inet_ntoa(found[20:24]) == own:
                return name
    return None


class Nodes:
    """The launchers of all nodes, in touch by the store of node 0.

    When a node is lost, this one ends, and says which was lost.

    Args:
        address: The address of node 0.
        port: Its port.
        node: The number of this node.
        count: The number of nodes.
        timeout: After so many seconds of silence a node is lost.
        say: Prints a message.

    Raises:
        InputError: A node did not come.
    """

    def __init__(
        self,
        address: str,
        port: int,
        node: int,
        count: int,
        timeout: float,
        say: Callable[[str], None],
    ) -> None:
        self.node, self.timeout, self.say = node, timeout, say
        self.code = 0
        self.pause = min(2.0, timeout / 10)
        self.ended = threading.Event()
        span = timedelta(seconds=timeout)
        names = [f'mmdet_attn/name/{other}' for other in range(count)]
        store = None
        try:
            store = TCPStore(
                address,
                port,
                is_master=node == 0,
                timeout=span,
                wait_for_workers=False,
                multi_tenant=True,
            )
            store.set(self._key(node), '0')
            store.set(names[node], socket.gethostname())
            store.wait(names, span)
        except DistError:
            lost = [0]
            if store:
                lost = [n for n in range(count) if not store.check([names[n]])]
            raise InputError(
                f'node {", ".join(map(str, lost))} did not come to '
                f'{address}:{port} within {timeout / 60:g} minutes: run the '
                'command on every node, with the same NNODES, MASTER_ADDR and '
                'PORT and its own NODE_RANK, and let the firewalls pass.'
            ) from None
        self.store = store
        self.names = [store.get(name).decode() for name in names]
        now = time.monotonic()
        self.heard = {n: ('0', now) for n in range(count) if n != node}
        self.watch = threading.Thread(target=self._watch, daemon=True)
        self.watch.start()

    def leave(self, code: int) -> None:
        """End the watch; if this node failed, tell the others."""
        now = time.monotonic()
        for node, (_, when) in self.heard.items():
            if code and now - when > 5 * self.pause:
                self._name(node, f'is silent for {now - when:.0f} s')
        self.code = code
        self.ended.set()
        # A lost connection must not keep this node.
        self.watch.join(3 * self.pause)

    def _key(self, node: int) -> str:
        return f'mmdet_attn/beat/{node}'

    def _name(self, node: int, what: str) -> None:
        self.say(f'node {node} ({self.names[node]}) {what}')

    def _watch(self) -> None:
        beats = 0
        while not self.ended.wait(self.pause):
            beats += 1
            try:
                self.store.set(self._key(self.node), str(beats))
                for node, (last, _) in self.heard.items():
                    beat = self.store.get(self._key(node)).decode()
                    if beat != last:
                        self.heard[node] = beat, time.monotonic()
            except DistError:
                self._lose(0, 'has ended or cannot be reached', 1, GRACE)
            for node, (beat, when) in self.heard.items():
                if beat.startswith('exit'):
                    self._lose(node, f'ended: {beat}', int(beat[10:]), GRACE)
                if time.monotonic() - when > self.timeout:
                    minutes = f'{self.timeout / 60:g} minutes'
                    self._lose(node, f'is silent for {minutes}', 1, 0)
        if self.code:
            with suppress(DistError):  # node 0 may have ended
                self.store.set(self._key(self.node), f'exit code {self.code}')
            if self.node == 0:
                time.sleep(2 * self.pause)  # the others have time to read

    def _lose(self, node: int, what: str, code: int, grace: float) -> None:
        """End this node, and by their parent's end its processes."""
        if not self.ended.wait(grace):
            self._name(node, what)
            os._exit(code)
