"""``python -m app.config``: the same as ``flask config``, known to scripts and people by this name."""

if __name__ == "__main__":
    from app.cli.config import command

    command(prog_name="python -m app.config")
