"""The lab's own processes as commands: recorder, timers, slow cables, held locks. Nobody types them."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from pathlib import Path
from typing import Any

from ucloud.cli.parser import Verbs
from ucloud.lab import storage_faults, timers
from ucloud.lab.faults import Faults
from ucloud.lab.layout import LabLayout
from ucloud.lab.ledger import Ledger
from ucloud.lab.lifecycle import RECORDER
from ucloud.lab.nodes import CLIENT
from ucloud.lab.recorder import record
from ucloud.lab.settings import node_config
from ucloud.lab.slow import Quality, insert_devices, pass_frames
from ucloud.local.processes import only_one
from ucloud.system.clock import SystemClock


def add_inner(verbs: Verbs, add: Any) -> None:
    add(verbs, "record", _record, "write the lab's history (started by 'lab up')")
    undo = add(verbs, "undo", _undo, "undo one fault when its time is over (started with timed faults)")
    undo.add_argument("fault")
    delay = add(verbs, "delay", _delay, "pass a slow cable's frames (started by 'lab fault slow')")
    delay.add_argument("node")
    delay.add_argument("delay_s", type=float)
    delay.add_argument("loss", type=float)
    locks = add(verbs, "hold-locks", _hold_locks, "hold image locks (started by 'lab fault lock-linger')")
    locks.add_argument("fault")
    locks.add_argument("for_s", type=float)
    locks.add_argument("disks", nargs="+", type=Path)


def _until_signal() -> threading.Event:
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    return stopping


def _record(args: argparse.Namespace) -> int:
    layout = LabLayout(args.directory)
    shape = layout.read_shape()
    store = node_config(layout, shape, shape.node(CLIENT)).store
    with only_one(layout.run, RECORDER, SystemClock()):
        record(layout.history, layout.history_socket, store, _until_signal())
    return 0


def _undo(args: argparse.Namespace) -> int:
    layout = LabLayout(args.directory)
    fault = Ledger(layout).find(args.fault)
    if fault is None:
        return 0
    stopping = _until_signal()
    with only_one(layout.run, timers.timer_name(fault.id), SystemClock()):
        if stopping.wait(max(0.0, fault.until_s - SystemClock().monotonic_s())):
            return 0
    Faults(layout, layout.read_shape()).undo(fault.id)
    return 0


def _delay(args: argparse.Namespace) -> int:
    shape = LabLayout(args.directory).read_shape()
    node = shape.node(args.node)
    insert_devices(shape, node)
    pass_frames(node, Quality(args.delay_s, args.loss), _until_signal())
    return 0


def _hold_locks(args: argparse.Namespace) -> int:
    layout = LabLayout(args.directory)
    with only_one(layout.run, storage_faults.holder_name(args.fault), SystemClock()):
        held = [storage_faults.take_image_locks(path) for path in args.disks]
        _until_signal().wait(args.for_s)
    for descriptor in held:
        os.close(descriptor)
    Ledger(layout).remove(args.fault)
    return 0
