"""`nfs-provisioner quota-agent`: enforces the sizes of volumes, on the NFS server."""

from __future__ import annotations

import os

import click

from provisioner.absent import absent
from provisioner.core.errors import InvalidSettings


@click.command(name="quota-agent")
@click.option(
    "--root",
    "roots",
    envvar="QUOTA_ROOTS",
    multiple=True,
    required=True,
    metavar="DIRECTORY",
    show_envvar=True,
    help="The directory that the server exports, as a local path on the server. Repeatable;"
    " separate several with spaces in the environment variable.",
)
@click.option(
    "--project-ids",
    envvar="PROJECT_IDS",
    default="100000-199999",
    show_default=True,
    show_envvar=True,
    metavar="FIRST-LAST",
    help="The project ids that the agent gives; choose ids that nothing else uses.",
)
@click.option(
    "--all-volumes",
    envvar="ALL_VOLUMES",
    is_flag=True,
    show_envvar=True,
    help="Limit volumes whose class does not ask for it too.",
)
@click.option(
    "--lift-archives",
    envvar="LIFT_ARCHIVES",
    is_flag=True,
    show_envvar=True,
    help="Lift the limit of a volume that becomes an archive; by default it stays.",
)
@click.option(
    "--root-is-held",
    envvar="ROOT_IS_HELD",
    is_flag=True,
    show_envvar=True,
    help="On ext4: limits hold root in a pod too, because the exports squash root or the server is Ganesha. Without it,"
    " the provisioner refuses `quota: required` there.",
)
@click.option("--once", is_flag=True, help="Look at everything once, do all that can be done, and exit.")
@click.option("--dry-run", is_flag=True, help="Print what --once would do, and change nothing.")
@click.option(
    "--listen",
    envvar="LISTEN",
    metavar="HOST:PORT",
    show_envvar=True,
    help="Serve /metrics, /healthz and /readyz there; by default the agent opens no port.",
)
@click.option(
    "--log-format",
    envvar="LOG_FORMAT",
    type=click.Choice(["json", "console"]),
    show_envvar=True,
    help="Log format; by default json unless the standard error is a terminal.",
)
@click.option(
    "--log-level",
    envvar="LOG_LEVEL",
    default="info",
    show_default=True,
    show_envvar=True,
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Lowest level that is logged.",
)
def quota_agent(
    *,
    roots: tuple[str, ...],
    project_ids: str,
    all_volumes: bool,
    lift_archives: bool,
    root_is_held: bool,
    once: bool,
    dry_run: bool,
    listen: str | None,
    log_format: str | None,
    log_level: str,
) -> int:
    """Enforce the sizes of volumes. Runs on the NFS server, as root.

    NFS cannot set a quota, so the provisioner cannot enforce the size of a volume by itself. This agent does, beside
    the server: it reads the records in .provisioner below each root, and gives each volume a project quota of the file
    system. It needs no API server, no network and no credential.

    \b
    What the file system needs:
      XFS   mount it with prjquota (in /etc/fstab; a remount is not enough)
      ext4  tune2fs -O project,quota -Q prjquota DEVICE while it is unmounted,
            and mount it with prjquota
      ZFS   the feature project_quota; experimental

    The agent needs CAP_SYS_ADMIN, CAP_FOWNER and CAP_DAC_READ_SEARCH, and drops all other rights. It says in its log,
    in `--once` and in .provisioner/agent what it lacks, and what to type. Only one agent works on a root.

    Exit status of --once: 0 if each volume that asks for a limit has it, 1 if not, 2 for unusable settings.

    \b
    Example:
      nfs-provisioner quota-agent --root /srv/nfs --dry-run
      nfs-provisioner quota-agent --root /srv/nfs --listen 127.0.0.1:9090
    """
    # Imported here: `--help` needs none of it. structlog loads rich and asyncio loads ssl where they exist; the agent
    # uses neither, and saves 8 of 32 MB.
    with absent("rich", "ssl"):
        import asyncio

        from provisioner.commands.quota_agent import AgentSettings, run
        from provisioner.quota import ids
        from provisioner.settings import listen as parsed_listen
        from provisioner.telemetry import logs

    logs.set_up(json=logs.is_json(log_format), level=log_level)
    for root in roots:
        if not os.path.isabs(root) or not os.path.isdir(root):
            raise InvalidSettings(f"--root {root}: write the absolute path of a directory that exists on this server")
    settings = AgentSettings(
        roots=tuple(dict.fromkeys(os.path.realpath(root) for root in roots)),
        ids=ids.parse(project_ids),
        all_volumes=all_volumes,
        lift_archives=lift_archives,
        root_is_held=root_is_held,
        once=once,
        dry_run=dry_run,
        listen=parsed_listen(listen) if listen else None,
    )
    return asyncio.run(run(settings, click.echo))
