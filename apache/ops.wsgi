"""The application for the daemon group ops: health, status, version; and the watchdog over the engine."""

from app.factory import create_app
from app.ops.watchdog import Watchdog

application = create_app()
settings = application.extensions["settings"]
Watchdog(application.extensions["predictor"].engine, settings.engine_hang_seconds).start()


def handle_request(environ, start_response):
    """What WSGIHandlerScript calls. Apache found no file, so it took the path for the script's name."""
    environ["PATH_INFO"] = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    environ["SCRIPT_NAME"] = ""
    return application(environ, start_response)
