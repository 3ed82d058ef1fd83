"""QEMU's own opinion of an image, asked in a cage: limited memory and time, no rights, and only this one file.

The second look after ``qcow2.check_qcow2_header``: it finds clusters that lie past the end (a truncated file) and
anything that the header alone does not show. The image is handed over as a descriptor, so that the unprivileged
program needs no way to the pool's directory.
"""

from __future__ import annotations

import json
from typing import Any, BinaryIO

from ucloud.errors import DeadlineExceeded, InvalidInput
from ucloud.model.image import ImageFormat
from ucloud.system.run import Completed, Limits, run

_NOBODY = 65534
_LIMITS = Limits(memory_bytes=2 * 2**30, cpu_s=60, uid=_NOBODY)
_TIMEOUT_S = 120.0
_CHECK_CLEAN, _CHECK_LEAKS = 0, 3


def inspect_image(file: BinaryIO, image_format: ImageFormat) -> int:
    """The virtual size in bytes. Raises InvalidInput if QEMU refuses the image or finds it damaged."""
    info = _parse(_qemu_img("info", file, image_format))
    if info.get("backing-filename") or info.get("full-backing-filename") or info.get("encrypted"):
        raise InvalidInput("failed to accept image: it names a backing file or is encrypted", code="image_refused")
    details = info.get("format-specific", {}).get("data", {})
    if details.get("data-file") or details.get("corrupt"):
        raise InvalidInput("failed to accept image: it names a data file or is marked corrupt", code="image_refused")
    if image_format is ImageFormat.QCOW2:
        _check_clusters(file)
    return int(info["virtual-size"])


def _check_clusters(file: BinaryIO) -> None:
    done = _qemu_img("check", file, ImageFormat.QCOW2)
    # Leaked clusters waste space and harm nothing.
    if done.exit_code not in (_CHECK_CLEAN, _CHECK_LEAKS):
        report = json.loads(done.stdout) if done.stdout.startswith("{") else {}
        count = report.get("corruptions", report.get("check-errors", "some"))
        raise InvalidInput(
            f"failed to accept image: it is truncated or corrupt, qemu-img check found {count} errors",
            code="image_damaged",
        )


def _qemu_img(verb: str, file: BinaryIO, image_format: ImageFormat) -> Completed:
    descriptor = file.fileno()
    argv = ["qemu-img", verb, "-f", image_format, "--output=json", f"/proc/self/fd/{descriptor}"]
    try:
        return run(argv, check=False, limits=_LIMITS, timeout_s=_TIMEOUT_S, pass_fds=(descriptor,))
    except DeadlineExceeded as error:
        raise InvalidInput(
            f"failed to accept image: looking through it took over {_TIMEOUT_S:g} s", code="image_refused"
        ) from error


def _parse(done: Completed) -> dict[str, Any]:
    if done.exit_code != 0:
        cause = (done.stderr.strip().splitlines() or ["no reason given"])[-1].split(":", 2)[-1].strip()
        raise InvalidInput(f"failed to accept image: qemu-img refuses it: {cause[:200]}", code="image_damaged")
    parsed: dict[str, Any] = json.loads(done.stdout)
    return parsed
