"""The command retry, and how one task is shown: with every attempt of it."""

import click

from p2pq.cli.common import behind, connect, duration, note, pairs, plain, print_json, size, table
from p2pq.cli.jobs import EXIT_OK, JSON, follow, split
from p2pq.errors import RemoteProtocolError
from p2pq.wire import control
from p2pq.wire.control import AttemptView, JobView, TaskView


def show_task(ctx: click.Context, job: str, task: int, *, as_json: bool) -> None:
    """Print one task and its attempts: who had it, how it ended, and whether that counts against the task."""
    with connect(ctx) as node:
        replies = list(node.ask(control.Attempts(job=job, task=task)))
    shown = next((reply for reply in replies if isinstance(reply, TaskView)), None)
    if shown is None:
        raise RemoteProtocolError("the node did not say how the task is; are both of one version?")
    attempts = [reply for reply in replies if isinstance(reply, AttemptView)]
    if as_json:
        print_json({**plain(shown), "history": plain(attempts)})
        return
    pairs(
        [
            ("task", f"{job}.{shown.task}"),
            ("state", shown.state),
            ("params", " ".join(f"{key}={value}" for key, value in shown.params.items())),
            ("reason", shown.reason),
            ("results", shown.results),
            *(("left behind", line) for line in shown.skipped),
        ]
    )
    if not attempts:
        click.echo("no attempts yet")
        return
    click.echo()
    table(
        ("ATTEMPT", "NODE", "STATE", "EXIT", "COUNTS", "TIME", "MEMORY", "GRANTED", "ENDED", "REASON"),
        [
            (
                each.attempt,
                behind(each.node, each.via),
                each.state,
                each.exit if each.signal is None else f"signal {each.signal}",
                "yes" if each.counted else None,
                duration(each.seconds),
                size(each.max_rss),
                each.granted,
                each.ended,
                ": ".join(filter(None, (each.reason if each.reason not in {"ok", "exit"} else None, each.detail))),
            )
            for each in attempts
        ],
        right=(0, 3, 5, 6),
    )


@click.command("retry")
@click.argument("job_task", metavar="JOB[.TASK]")
@click.option("--cancelled", is_flag=True, help="Tasks that were cancelled, too.")
@click.option("--detach", is_flag=True, help="Print the job id alone and return.")
@click.option("--quiet", "-q", is_flag=True, help="No progress bar.")
@JSON
@click.pass_context
def retry_command(ctx: click.Context, job_task: str, cancelled: bool, detach: bool, quiet: bool, as_json: bool) -> int:
    """Run the failed tasks of a job, or one of them, again; wait like submit, with its exit codes.

    The files are those that were submitted: after changing the folder, use `p2pq submit --resume`. A retried task has all
    its --retries again and its attempts are counted on. With --json the job is printed and nothing is waited for.
    """
    job, task = split(job_task)
    with connect(ctx) as node:
        view = node.one(control.Retry(job=job, task=task, cancelled=cancelled), JobView, say=note)
        if as_json:
            print_json(view)
        elif detach:
            click.echo(view.job)
        else:
            return follow(node, [view.job], quiet=quiet)
    return EXIT_OK
