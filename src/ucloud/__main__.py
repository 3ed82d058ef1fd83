"""``python -m ucloud`` is ``ucloud``."""

import sys

from ucloud.main import main

if __name__ == "__main__":
    sys.exit(main())
