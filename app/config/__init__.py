"""Typed settings: `schema` is their table, `sources` reads them, `checks` says whether they fit together. A leaf.

The only reader of the environment; `flask config` shows what it knows.
"""

from app.config.checks import AUTHORITIES as AUTHORITIES
from app.config.checks import SECRETS_DIRECTORY as SECRETS_DIRECTORY
from app.config.checks import problem as problem
from app.config.checks import weakness as weakness
from app.config.refusals import DOCUMENT as DOCUMENT
from app.config.refusals import MASK as MASK
from app.config.refusals import SECRET_SOUNDING as SECRET_SOUNDING
from app.config.refusals import did_you_mean as did_you_mean
from app.config.schema import DECLARATIONS as DECLARATIONS
from app.config.schema import ROOT as ROOT
from app.config.schema import SECRETS as SECRETS
from app.config.schema import Declaration as Declaration
from app.config.schema import Reading as Reading
from app.config.schema import Settings as Settings
from app.config.sources import DEVELOPMENT_KEY as DEVELOPMENT_KEY
from app.config.sources import ENVIRONMENTS as ENVIRONMENTS
from app.config.sources import FOREIGN_NAMES as FOREIGN_NAMES
from app.config.sources import LOCAL_FILE as LOCAL_FILE
from app.config.sources import LOG_MARK as LOG_MARK
from app.config.sources import OTHER_NAMES as OTHER_NAMES
from app.config.sources import OUR_PREFIXES as OUR_PREFIXES
from app.config.sources import PLAIN_LINE as PLAIN_LINE
from app.config.sources import PROCESSOR_SWITCHES as PROCESSOR_SWITCHES
from app.config.sources import Sources as Sources
from app.config.sources import describe as describe
from app.config.sources import edge_address as edge_address
from app.config.sources import given_locally as given_locally
from app.config.sources import host_address as host_address
from app.config.sources import is_check as is_check
from app.config.sources import load as load
from app.config.sources import log_format as log_format
from app.config.sources import log_mark as log_mark
from app.config.sources import processor_limits as processor_limits
from app.config.sources import read_env_file as read_env_file
from app.config.sources import removed as removed
from app.config.sources import resolve as resolve
from app.config.sources import resolve_known as resolve_known
from app.config.values import CONTAINER_HOST as CONTAINER_HOST
from app.config.values import MODEL_NAME as MODEL_NAME
from app.config.values import PATH_PREFIX as PATH_PREFIX
from app.config.values import SecretStr as SecretStr
from app.config.values import in_url as in_url
