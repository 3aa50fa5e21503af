"""``python -m app.jobs``: the jobs' worker without Apache, for ``make dev``, other WSGI servers and tests."""

import sys

from app.jobs import service
from app.supervision import standalone

if __name__ == "__main__":
    sys.exit(standalone.main("app.jobs", "Work off the jobs that lie in STATE_DIR.", "jobs", service.run))
