"""``python -m app.engine``: the engine without Apache, for ``make dev``, other WSGI servers and tests."""

import sys

from app.engine import service
from app.supervision import standalone

if __name__ == "__main__":
    sys.exit(standalone.main("app.engine", "Serve the models of MODELS on a socket.", "engine", service.run))
