"""``python -m app.engine``: the engine without Apache, for ``make dev``, other WSGI servers and tests."""

import argparse
import sys

from app import config
from app.engine import service
from app.errors import CaskError
from app.telemetry import logs


def main() -> int:
    """Serve until SIGTERM. Returns 2 when settings or manifests are wrong."""
    parser = argparse.ArgumentParser(prog="python -m app.engine", description="Serve the models of MODELS on a socket.")
    parser.add_argument("--with-parent", action="store_true", help="end when the process that started this one ends")
    arguments = parser.parse_args()
    try:
        settings = config.load()
        logs.configure(settings, role="engine")
        service.handle_signals()
        if arguments.with_parent:
            service.end_with_parent()
        service.run(settings)
    except CaskError as error:
        print(" ".join(filter(None, (error.message, error.hint))), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
