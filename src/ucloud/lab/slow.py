"""A slow, lossy cable, made by a process: not every kernel has netem, so frames are delayed in user space.

The process stands in the switch between the node's cable and a pair of devices that leads on to the bridge; it passes
each frame after the delay, or not at all. Offloads are switched off on what sends to it: a frame must be whole and of
the wire's size. Order is kept. Ends when a device goes away.
"""

from __future__ import annotations

import array
import fcntl
import random
import select
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass

from ucloud.errors import Error
from ucloud.lab import wires
from ucloud.lab.nodes import UPLINK, Node, Shape
from ucloud.system.namespace import in_namespace, namespace_inode
from ucloud.system.netlink import Links
from ucloud.system.sysctl import disable_ipv6

_SIOCETHTOOL = 0x8946
_OFFLOADS = (0x17, 0x1F, 0x24)  # ETHTOOL_STXCSUM, _STSO, _SGSO (linux/ethtool.h)
_ETH_P_ALL = 3
_PACKET_IGNORE_OUTGOING = 23
_SOL_PACKET = 263
_FRAME_BYTES = 1 << 16
_QUEUE_FRAMES = 4096  # what a real cable's router would drop as well
_LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Quality:
    """Of each direction. ``loss`` is a share from 0 to 1."""

    delay_s: float
    loss: float


def insert_devices(shape: Shape, node: Node) -> None:
    """Put a pair of devices between the node's cable and the bridge; from then on frames must be passed."""
    if namespace_inode(node.namespace):
        in_namespace(node.namespace, lambda: set_offloads(UPLINK, on=False))

    def body(links: Links) -> None:
        inner, outer = _pair(node)
        links.remove(inner)
        links.add_pair(inner, outer, wires.MTU)
        for name in (inner, outer):
            disable_ipv6(name)
            set_offloads(name, on=False)
        links.set_up(links.get(inner).index)
        links.set_up(links.get(outer).index, master=links.get(wires.BRIDGE).index)
        links.set_up(links.get(node.name).index, master=0)

    wires.in_switch(shape, body)


def remove_devices(shape: Shape, node: Node) -> None:
    wires.in_switch(shape, lambda links: links.remove(_pair(node)[0]))
    if namespace_inode(node.namespace):
        wires.ensure_node(shape, node)
        in_namespace(node.namespace, lambda: set_offloads(UPLINK, on=True))


def is_inserted(shape: Shape, node: Node) -> bool:
    return wires.in_switch(shape, lambda links: links.find(_pair(node)[0])) is not None


def pass_frames(node: Node, quality: Quality, stopping: threading.Event) -> None:
    """In the switch's namespace, until ``stopping`` or the end of a device."""
    cable, pair = _open(node.name), _open(_pair(node)[0])
    ways = {cable.fileno(): _Way(cable, pair, quality), pair.fileno(): _Way(pair, cable, quality)}
    try:
        while not stopping.is_set():
            wait_s = min(way.wait_s() for way in ways.values())
            for descriptor in select.select(list(ways), [], [], wait_s)[0]:
                ways[descriptor].take()
            for way in ways.values():
                way.give()
    except OSError as error:  # the device went away
        raise Error(f"failed to pass frames of {node.name}: {error.strerror}", code="cable_gone") from error
    finally:
        cable.close()
        pair.close()


class _Way:
    """Frames from one device to the other."""

    def __init__(self, source: socket.socket, target: socket.socket, quality: Quality) -> None:
        self._source = source
        self._target = target
        self._quality = quality
        self._queue: deque[tuple[float, bytes]] = deque()

    def wait_s(self) -> float:
        if not self._queue:
            return _LOOK_EVERY_S
        return max(0.0, min(_LOOK_EVERY_S, self._queue[0][0] - time.monotonic()))

    def take(self) -> None:
        frame = self._source.recv(_FRAME_BYTES)
        if len(self._queue) < _QUEUE_FRAMES and random.random() >= self._quality.loss:  # noqa: S311
            self._queue.append((time.monotonic() + self._quality.delay_s, frame))

    def give(self) -> None:
        now_s = time.monotonic()
        while self._queue and self._queue[0][0] <= now_s:
            self._target.send(self._queue.popleft()[1])


def _pair(node: Node) -> tuple[str, str]:
    return f"{node.name}-in", f"{node.name}-out"


def _open(device: str) -> socket.socket:
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    packets.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    packets.bind((device, _ETH_P_ALL))
    return packets


def set_offloads(device: str, *, on: bool) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as door:
        for command in _OFFLOADS:
            value = array.array("I", (command, int(on)))
            fcntl.ioctl(door, _SIOCETHTOOL, struct.pack("16sP", device.encode(), value.buffer_info()[0]))
