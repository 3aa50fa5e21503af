"""The application for the daemon group ops: health, status, metrics; who watches the others; a count of Apache's own
answers.
"""

import gc
import os
from pathlib import Path

# As in flask.wsgi: nothing that is made here ever goes.
gc.disable()

from app.host import first_start  # noqa: E402 - the line above is to come first

# At the start of the service, the processes that callers wait for come first: until the engine has loaded its models.
# The path is of the apachectl that mod_wsgi-express wrote; settings are not read yet.
first_start.wait_for_others(Path(os.environ["MOD_WSGI_SERVER_ROOT"]).parents[1])

from app.ops_factory import create_app  # noqa: E402 - the line above is to come first
from app.supervision import supervision  # noqa: E402
from app.web.ops.apache_log import ApacheLog  # noqa: E402
from app.web.ops.guard import Guard  # noqa: E402
from app.web.ops.load import Load  # noqa: E402
from app.web.ops.status import watched  # noqa: E402

application = create_app()
settings = application.extensions["settings"]
application.extensions["supervision"] = supervision.of_ops(settings, application.extensions["predictor"].engine)
application.extensions["supervision"].start()
application.extensions["apache_log"] = ApacheLog(settings.state_dir, application.extensions["routes"])
application.extensions["apache_log"].start()
application.extensions["load"] = Load(settings.state_dir, watched(application))
application.extensions["load"].start()
Guard(application, settings).start()
if settings.reload:
    # Of a developer alone.
    from app.plugins import save_watch

    save_watch.SaveWatch(settings).start()
gc.enable()
gc.freeze()


def handle_request(environ, start_response):
    """What WSGIHandlerScript calls. Apache found no file, so it took the path for the script's name."""
    environ["PATH_INFO"] = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    environ["SCRIPT_NAME"] = ""
    return application(environ, start_response)
