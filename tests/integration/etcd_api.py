"""The real API process as ``ucloud api`` runs it, for tests: ``etcd_api.py DIRECTORY FD``; the settings lie there."""

from __future__ import annotations

import sys
from pathlib import Path

from ucloud.api.process import make_app, serve
from ucloud.config import load_config

if __name__ == "__main__":
    sys.exit(serve(load_config(Path(sys.argv[1]) / "ucloud.toml"), make_app, bind=f"fd://{sys.argv[2]}"))
