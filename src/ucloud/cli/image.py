"""``ucloud image``: import (a file from here, or a URL that the cloud fetches), list, show, update, delete."""

from __future__ import annotations

import argparse
from pathlib import Path
from urllib.parse import urlsplit

from ucloud.cli import nouns
from ucloud.cli.parser import Verbs, add_noun, add_verb
from ucloud.cli.session import Session
from ucloud.client import Object
from ucloud.errors import InvalidInput

_ENDINGS = (".qcow2", ".raw", ".img", ".gz", ".xz")


def add_image(subparsers: Verbs) -> Verbs:
    verbs = add_noun(subparsers, "image", "Images: templates of root disks.")
    nouns.add_list(verbs, "image", examples=["ucloud image list"])
    nouns.add_show(verbs, "image", examples=["ucloud image show tiny"])
    _add_import(verbs)
    examples = ["ucloud image update tiny --user root", "ucloud image update tiny --name tiny-2"]
    parser = add_verb(verbs, "update", "Change an image's name, labels or user.", _update, examples=examples)
    nouns.add_changes(parser, "image")
    parser.add_argument("--user", help="the account that ssh logs in to")
    nouns.add_delete(verbs, "image", examples=["ucloud image delete tiny", "ucloud image delete tiny --yes --wait"])
    return verbs


def _add_import(verbs: Verbs) -> None:
    examples = [
        "ucloud image import tiny.qcow2",
        "ucloud image import https://example.org/debian.qcow2 --name debian --user debian --sha256 DIGEST",
    ]
    parser = add_verb(verbs, "import", "Import a qcow2 or raw image from a file or URL.", _import, examples=examples)
    parser.add_argument("source", metavar="FILE|URL")
    parser.add_argument("--name", help="its name (default: the file's, without its ending)")
    parser.add_argument("--sha256", default="", metavar="DIGEST", help="refuse it if its SHA-256 is another one")
    parser.add_argument("--user", default="", help="the account that ssh logs in to (default: root)")
    nouns.add_labels(parser, "a label to give it (may be repeated)")
    nouns.add_project(parser)


def _import(session: Session, args: argparse.Namespace) -> int:
    name = args.name or name_of_source(args.source)
    fields = {"name": name, "sha256": args.sha256.lower(), "user": args.user, "project": args.project or ""}
    with nouns.watch(session, f"image {name}") as progress:
        if is_url(args.source):
            body: Object = {key: value for key, value in fields.items() if value}
            image = session.client.import_image({**body, "url": args.source}, progress.transfer)
        else:
            image = session.client.upload_image(Path(args.source), fields, progress.transfer)
    if args.label:
        image = session.client.update("image", image["id"], {"labels": dict(args.label)})
    session.show("image", image)
    return 0


def _update(session: Session, args: argparse.Namespace) -> int:
    return nouns.change(session, "image", args, {"user": args.user} if args.user else {})


def is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def name_of_source(source: str) -> str:
    """The last part of a path or URL without the endings of images. Raises InvalidInput if nothing is left."""
    name = Path(urlsplit(source).path if is_url(source) else source).name
    while ending := next((one for one in _ENDINGS if name.endswith(one)), ""):
        name = name.removesuffix(ending)
    if not name:
        raise InvalidInput(f"failed to name the image {source}: its path has no file name", hint="add --name")
    return name
