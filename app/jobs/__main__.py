"""``python -m app.jobs``: the jobs' worker without Apache, for ``make dev``, other WSGI servers and tests."""

import argparse
import sys

from app import config
from app.errors import CaskError
from app.jobs import service
from app.telemetry import logs


def main() -> int:
    """Work until SIGTERM. Returns 2 when settings or manifests are wrong."""
    parser = argparse.ArgumentParser(prog="python -m app.jobs", description="Work off the jobs that lie in STATE_DIR.")
    parser.add_argument("--with-parent", action="store_true", help="end when the process that started this one ends")
    arguments = parser.parse_args()
    try:
        settings = config.load()
        logs.configure(settings, role="jobs")
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
