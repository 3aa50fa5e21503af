"""The application for the daemon group ops: health, status, metrics; the watchdogs; a count of Apache's own answers."""

from app.factory import create_app
from app.jobs import heartbeat
from app.ops.apache_log import ApacheLog
from app.ops.watchdog import JobsWatchdog, Watchdog
from app.telemetry import shares

application = create_app()
settings = application.extensions["settings"]


def note(pid):
    """Whoever takes the place of this process counts that it hung."""
    shares.note_hang(settings.state_dir, pid)


Watchdog(application.extensions["predictor"].engine, settings.engine_hang_seconds, note=note).start()
if settings.jobs == "on":
    JobsWatchdog(lambda: heartbeat.read(settings.state_dir), settings.engine_hang_seconds, note=note).start()
application.extensions["apache_log"] = ApacheLog(settings.state_dir, application.extensions["routes"])
application.extensions["apache_log"].start()


def handle_request(environ, start_response):
    """What WSGIHandlerScript calls. Apache found no file, so it took the path for the script's name."""
    environ["PATH_INFO"] = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    environ["SCRIPT_NAME"] = ""
    return application(environ, start_response)
