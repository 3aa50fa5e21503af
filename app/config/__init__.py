"""Typed settings: `schema` is their table, `sources` reads them, `checks` says whether they fit together. A leaf.

The only reader of the environment; `flask config` shows what it knows.
"""

from app.config.checks import AUTHORITIES, SECRETS_DIRECTORY, problem, weakness
from app.config.refusals import DOCUMENT, MASK, SECRET_SOUNDING, did_you_mean
from app.config.schema import DECLARATIONS, ROOT, SECRETS, Declaration, Settings
from app.config.sources import (
    DEVELOPMENT_KEY,
    ENVIRONMENTS,
    FOREIGN_NAMES,
    LOCAL_FILE,
    LOG_MARK,
    OUR_PREFIXES,
    PLAIN_LINE,
    PROCESSOR_SWITCHES,
    Sources,
    describe,
    edge_address,
    given_locally,
    host_address,
    is_check,
    load,
    log_format,
    log_mark,
    processor_limits,
    read_env_file,
    removed,
    resolve,
    resolve_known,
)
from app.config.values import CONTAINER_HOST, MODEL_NAME, PATH_PREFIX, SecretStr, in_url
