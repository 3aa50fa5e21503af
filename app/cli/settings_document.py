"""docs/configuration.md: the table of app.config and the env files as a document for people."""

from __future__ import annotations

import re
from pathlib import Path

from app import config
from app.config import DECLARATIONS, ENVIRONMENTS, LOCAL_FILE, OUR_PREFIXES, ROOT, SECRETS_DIRECTORY, Declaration


def text(root: Path = ROOT) -> str:
    """The document, from the declarations and the env files below ``root``."""
    every = DECLARATIONS.values()
    parts = [HEAD]
    for section in dict.fromkeys(one.section for one in every):
        parts += [f"\n## {section}\n\n", "| Setting | Default | Meaning | Values |\n|---|---|---|---|\n"]
        parts += [_row(one) for one in every if one.section == section]
    return "".join(parts) + _environments(root)


def _row(one: Declaration) -> str:
    default = f"`{one.default}`" if one.default and not one.is_secret else one.default
    # Outside of `code`, Markdown would take <name> for HTML and drop it.
    return f"| `{one.name}` | {default} | {one.sentence.replace('<', '&lt;')} | {_values(one)} |\n"


def _values(one: Declaration) -> str:
    """What is accepted, in short: the name and the default say whether it is a number, a path or a time."""
    short = re.sub(r"^(one|some) of |^a (whole )?number.*? (from|of) (?=\d|at least)|^the path of ", "", one.expected)
    return "a key as `SECRET_KEY`" if one.name != "SECRET_KEY" and "openssl" in short else short


def _environments(root: Path) -> str:
    files = {env: config.read_env_file(root, f"env/{env}.env") for env in ENVIRONMENTS}
    found = "\n## What differs between the environments\n\nWhat is not listed is the same in all.\n\n"
    found += f"| Setting | {' | '.join(files)} |\n|---|{'---|' * len(files)}\n"
    for one in DECLARATIONS.values():
        values = [file[one.field].value if one.field in file else "(not set)" for file in files.values()]
        if len(set(values)) > 1:
            found += f"| `{one.name}` | {' | '.join(values)} |\n"
    return found


HEAD = f"""# Configuration

Written by `python -m app.config docs` from `app/config/schema.py`; change it there.

Every setting is an environment variable. The first of these that sets it wins; an empty value means *not set here*:

1. the environment of the process;
2. for a secret, the file that `NAME_FILE` names, then `{SECRETS_DIRECTORY}/name` (the setting's name in lower case),
   or the file of that name in the folder of `SECRETS_DIR`;
3. `{LOCAL_FILE}`: this machine's own values, ignored by git;
4. `env/<ENV>.env`: the environment's values, in git, without secrets;
5. the default in `app/config/schema.py`.

Relative paths start at the repository.

Env files hold a plain `NAME=value` a line, of letters, digits and `./:,@%+=_-`, without quotes, spaces, `$`, `export`
or comments after a value, so that all readers agree (tried: Docker 20.10, podman 4.3, Compose 1.29 and 2.26, dash,
bash). A file that was read into the shell (`set -a; . env/prod.env`) or passed with `docker run --env-file` counts as
environment and wins over `{LOCAL_FILE}`.

A wrong value, a placeholder for a secret, or an unknown name (in the environment: one that starts with
{", ".join(f"`{prefix}`" for prefix in OUR_PREFIXES)}) stops the start
([what it says](operations.md#it-does-not-start)).

`ALERTS_EMAIL_…` and `ALERTS_SMTP_…` do nothing, and are accepted for one release; Prometheus' Alertmanager sends mail.

`make config ENV=prod` prints every value in force with its source, `make config-diff A=dev B=prod` what differs.
"""
