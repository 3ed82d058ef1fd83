"""The real API process as ``ucloud api`` runs it, for tests: ``etcd_api.py DIRECTORY FD``; the settings lie there."""

from __future__ import annotations

import sys
from pathlib import Path

from ucloud.api.process import make_app
from ucloud.config import load_config
from ucloud.serving.server import serve

if __name__ == "__main__":
    config = load_config(Path(sys.argv[1]) / "ucloud.toml")
    sys.exit(serve(lambda: make_app(config), bind=f"fd://{sys.argv[2]}", threads=config.api.threads))
