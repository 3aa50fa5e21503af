"""``flask doctor``: look at everything that keeps a service from running well, and say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import click

from app import config
from app.cli import checks, completion, terminal
from app.cli.checks import Check, Finding, Surroundings
from app.config import Settings
from app.host import permissions
from app.host.permissions import Account

# Who serves when root starts us, as in apache/serve.sh.
SERVICE_USER = "www-data"
SUBJECT_WIDTH = 15


@click.command(cls=terminal.Command)
@click.option("--env", default="", shell_complete=completion.environments, help="The environment; else that of ENV.")
@click.option("--user", default="", envvar="SERVICE_USER", help="Who serves, where root starts us; else www-data.")
@terminal.json_option
@click.pass_context
def command(context: click.Context, env: str, user: str, is_json: bool) -> None:
    """Say what is wrong, and what to do about it.

    Looks at everything that the service needs, and changes nothing. Ends with 1 when something fails; warnings
    alone end with 0.
    """
    found = []
    for finding in _examine(env, user):
        found.append(finding)
        if not is_json:
            subject = f"{finding.subject:<{SUBJECT_WIDTH}}"
            terminal.print_verdict(finding.verdict, subject, finding.found, finding.next_step)
    verdicts = [finding.verdict for finding in found]
    if is_json:
        terminal.print_json({"ok": "fail" not in verdicts, "findings": [asdict(finding) for finding in found]})
    else:
        counts = ", ".join(f"{verdicts.count(name)} {name}" for name in ("ok", "warn", "fail"))
        click.echo(f"\n  {counts}.")
    if "fail" in verdicts:
        context.exit(terminal.REFUSED)


def _examine(env: str, user: str) -> Iterator[Finding]:
    from app.cli.checks import access, disk, installation, plugins, services, sizes

    settings, finding = _settings(env)
    yield finding
    account, finding = _account(user)
    yield finding
    here = checks.Surroundings(settings, account)
    for check in (
        *(installation.interpreter, installation.libraries, installation.mod_wsgi, installation.apache),
        *(disk.checkout, disk.state, disk.state_files, disk.disk),
        *(disk.models, plugins.models_with_code, plugins.plugins),
        *(sizes.threads, sizes.memory, sizes.open_files, sizes.threads_allowed),
        *(access.secrets, access.certificates, access.authorities, access.api_tokens),
        *(services.ports, services.running, services.redis, services.docker, services.clock),
        services.last_start,
    ):
        yield from _look(check, here)


def _look(check: Check, here: Surroundings) -> Iterator[Finding]:
    """The findings of one check; what it cannot look at is told and does not end the doctor."""
    try:
        yield from check(here)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other checks are of use
        subject = check.__name__.replace("_", " ").capitalize()
        reason = str(error) or type(error).__name__
        yield checks.warn(subject, f"could not be looked at: {reason}", "Try it as root, or as who serves.")


def _settings(env: str) -> tuple[Settings, Finding]:
    """Those of this start, as far as they can be read: so all else can be looked at where some are wrong."""
    place = config.Sources().of(env)
    if not checks.is_container() and checks.CONTAINER_SECRETS.is_dir() and not place.secrets_directory.is_dir():
        # `make up` hands them on; a service without a container has them by NAME_FILE.
        place = place._replace(secrets_directory=checks.CONTAINER_SECRETS)
    settings, problems = config.resolve_known(place)
    if problems:
        words = " ".join(problems)
        if checks.is_foreign_root() and "cannot be read" in words:
            return settings, checks.warn("Settings", f"{words} {checks.ROOT_WORDS}", checks.ROOT_NEXT)
        words += f" All below is by the other settings of {settings.env}."
        return settings, checks.fail("Settings", words, "flask config show, once that is mended")
    problem = config.problem(settings)
    if problem and checks.is_foreign_root():
        return settings, checks.warn("Settings", f"{problem} But {checks.ROOT_WORDS}", checks.ROOT_NEXT)
    if problem:
        return settings, checks.fail("Settings", problem, "flask config show")
    own = sum(source.startswith(("environment", "file ", config.LOCAL_FILE)) for source in settings.sources.values())
    words = f"{len(config.DECLARATIONS)} for {settings.env}, {own} of them from this machine"
    return settings, checks.ok("Settings", words)


def _account(user: str) -> tuple[Account, Finding]:
    """The user that serves: this one, or the one that root hands over to."""
    own = permissions.own_account()
    if own.uid != 0:
        return own, checks.ok("Service user", f"{own.name}, who runs this")
    # A container starts as who serves: root is somebody who came in beside, and without capabilities may do little.
    first = permissions.owner_of_process(1) if checks.is_container() and not user else own
    if first.uid != 0:
        words = f"{first.name}, who runs process 1; {checks.ROOT_WORDS}"
        return first, checks.warn("Service user", words, checks.ROOT_NEXT)
    try:
        account = permissions.account(user or SERVICE_USER)
    except KeyError:
        return own, checks.fail(
            "Service user", f"there is no user {user or SERVICE_USER!r}", "Make one, or choose another by SERVICE_USER"
        )
    return account, checks.ok("Service user", f"{account.name}; root starts, and Apache hands over")
