"""Debian packages as a source of files: named, downloaded once, unpacked without being installed.

Owns ``debs/`` and ``unpacked/`` in the work directory. A package is kept under its name and version, so a build
downloads only what changed; an unpacked package is whole or not there (made beside, then renamed).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from ucloud.errors import CommandFailed, Error, MissingPrerequisite
from ucloud.system.files import ensure_directory
from ucloud.system.run import run

ARCHITECTURE = "amd64"
KERNEL_META_PACKAGE = f"linux-image-cloud-{ARCHITECTURE}"
PACKAGES = (
    "busybox-static",
    "dhcpcd-base",
    "dropbear-bin",
    "e2fsprogs",
    "libc6",
    "libcom-err2",
    "libcrypt1",
    "libext2fs2",
    "libgmp10",
    "libtomcrypt1",
    "libtommath1",
    "zlib1g",
)
_HINT = "run 'apt-get update' and check that this machine reaches its Debian mirror"
_DOWNLOAD_TIMEOUT_S = 300.0


def parse_kernel_package(depends: str) -> str:
    """The real kernel package in the output of ``apt-cache depends`` on the meta package."""
    found = re.search(r"Depends: (linux-image-\S+-cloud-\w+)", depends)
    if found is None:
        raise MissingPrerequisite(
            f"failed to find a kernel: {KERNEL_META_PACKAGE} depends on no linux-image package", hint=_HINT
        )
    return found[1]


def parse_versions(show: str) -> dict[str, str]:
    """Package → version from ``apt-cache show --no-all-versions``."""
    versions: dict[str, str] = {}
    for stanza in show.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if re.match(r"[\w-]+: ", line))
        if "Package" in fields and "Version" in fields:
            versions[fields["Package"]] = fields["Version"]
    return versions


def deb_name(package: str, version: str) -> str:
    """The file name that ``apt-get download`` uses without its architecture part: the colon is quoted."""
    return f"{package}_{quote(version, safe='+~.-')}".lower()


def fetch_packages(work_directory: Path, progress: Callable[[str], None]) -> dict[str, Path]:
    """Package name → directory with its files, for all that the tiny guest needs; the kernel is ``kernel``."""
    _ensure_lists(progress)
    kernel = parse_kernel_package(run(["apt-cache", "depends", KERNEL_META_PACKAGE]).stdout)
    wanted = [kernel, *PACKAGES]
    versions = parse_versions(run(["apt-cache", "show", "--no-all-versions", *wanted]).stdout)
    if missing := [package for package in wanted if package not in versions]:
        raise MissingPrerequisite(
            f"failed to find Debian packages: {', '.join(missing)}",
            hint=f"the tiny image is made from Debian 12 packages; {_HINT}",
        )
    debs = ensure_directory(work_directory / "debs", mode=0o755)
    absent = [package for package in wanted if _deb_of(debs, package, versions[package]) is None]
    if absent:
        progress(f"downloading {len(absent)} Debian packages")
        _download(debs, absent)
    progress("unpacking packages")
    trees = {package: _unpack(work_directory, debs, package, versions[package]) for package in wanted}
    trees["kernel"] = trees.pop(kernel)
    return trees


def _ensure_lists(progress: Callable[[str], None]) -> None:
    """Update apt's lists, but only where they do not know our packages."""
    shown = run(["apt-cache", "show", KERNEL_META_PACKAGE, "dropbear-bin"], check=False)
    if shown.exit_code == 0:
        return
    progress("updating the lists of Debian packages")
    try:
        run(["apt-get", "update", "-q"], timeout_s=_DOWNLOAD_TIMEOUT_S)
    except CommandFailed as error:
        raise MissingPrerequisite(f"failed to update Debian's package lists: {error}", hint=_HINT) from error


def _download(debs: Path, packages: Sequence[str]) -> None:
    beside = ensure_directory(debs / ".downloading", mode=0o755)
    try:
        # The sandbox user of apt cannot write into our directory, and would only make it complain.
        command = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root"]
        run([*command, *packages], cwd=beside, timeout_s=_DOWNLOAD_TIMEOUT_S)
        for deb in beside.glob("*.deb"):
            deb.replace(debs / deb.name)
    except Error as error:
        raise MissingPrerequisite(f"failed to download Debian packages: {error}", hint=_HINT) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _deb_of(debs: Path, package: str, version: str) -> Path | None:
    stem = deb_name(package, version)
    matches = [deb for deb in debs.iterdir() if deb.suffix == ".deb" and deb.name.lower().startswith(f"{stem}_")]
    return matches[0] if matches else None


def _unpack(work_directory: Path, debs: Path, package: str, version: str) -> Path:
    tree = work_directory / "unpacked" / deb_name(package, version)
    if tree.is_dir():
        return tree
    deb = _deb_of(debs, package, version)
    if deb is None:
        raise MissingPrerequisite(f"failed to download {package} {version}: apt left no file", hint=_HINT)
    beside = tree.with_name(f".{tree.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    ensure_directory(beside, mode=0o755)
    run(["dpkg-deb", "-x", deb, beside], timeout_s=120.0)
    beside.replace(tree)
    return tree


def find_file(tree: Path, name: str) -> Path:
    """The file ``name`` (a relative path) of an unpacked package, whether it keeps it in / or in /usr."""
    for candidate in (tree / name, tree / "usr" / name):
        if candidate.exists():
            return candidate
    raise MissingPrerequisite(
        f"failed to find {name} in {tree.name}: the package has changed",
        hint="the tiny image is made from Debian 12 packages",
    )
