"""Commands about jobs: submit, jobs, show, tasks, wait, results, cancel, why."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import click

from p2pq.cli.common import (
    behind,
    connect,
    duration,
    note,
    pairs,
    plain,
    print_json,
    say,
    size,
    table,
)
from p2pq.cli.options import DETACH, HALT, QUIET, for_tasks, resources_of, time_of
from p2pq.client.connection import Connection
from p2pq.client.inherited import umask
from p2pq.errors import NodeUnreachableError, RemoteProtocolError, UsageError
from p2pq.model.amounts import parse_seconds
from p2pq.model.params import NUMBER_MAX
from p2pq.wire import control
from p2pq.wire.commandcontrol import SubmitCommands
from p2pq.wire.control import Change, JobView, Note, TaskView
from p2pq.wire.resultcontrol import Results, Wrote

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_TIMED_OUT: Final = 5
EXIT_INTERRUPTED: Final = 130

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def split(text: str) -> tuple[str, int | None]:
    """Split ``JOB.TASK``."""
    job, dot, task = text.partition(".")
    if not dot:
        return job, None
    if not task.isdecimal():
        raise UsageError(f"{text!r} is not JOB or JOB.TASK; the task is a number, see `p2pq tasks {job}`")
    if len(task) > len(str(NUMBER_MAX)) or int(task) > NUMBER_MAX:
        raise UsageError(f"{text!r}: no task has so large a number; see `p2pq tasks {job}`")
    return job, int(task)


class SubmitCommand(click.Command):
    """Takes p2pq's options on either side of FOLDER; whatever else follows FOLDER goes to the program.

    After ``--`` nothing is p2pq's. An unknown option before FOLDER is an error, so that a typo is not sent away.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Move the options that follow FOLDER before it, then parse."""
        options = {name: param for param in self.get_params(ctx) for name in param.opts if name.startswith("--")}
        own: list[str] = []
        program: list[str] = []
        rest = list(args)
        while rest:
            word = rest.pop(0)
            option = options.get(word.partition("=")[0])
            if word == "--":
                program += rest
                break
            if option is None and (program or not word.startswith("-")):
                program.append(word)  # FOLDER, or what follows it
            else:
                takes_value = option is not None and "=" not in word and not getattr(option, "is_flag", False)
                own += [word, *rest[:takes_value]]
                rest = rest[takes_value:]
        return super().parse_args(ctx, [*own, "--", *program])


@click.command("submit", cls=SubmitCommand, context_settings={"allow_interspersed_args": False})
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.option("--name", default="", help="What to call the job (default: the folder's name).")
@click.option("--main", default="", metavar="FILE", help="What to run, where main.py and its kin do not say.")
@DETACH
@click.option("--results", metavar="DIR", default="", help="Where results go (default: FOLDER/results).")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave out, besides .p2pqignore and .gitignore.")
@click.option("--array", default="", metavar="RANGE", help="One task per number: 0-99, 0-99:5 or 3,7,10-12.")
@click.option("--sweep", multiple=True, metavar="K=VALUES", help="One task per value: k=1,2,3 or x=0:1:0.1.")
@click.option("--config", default="", metavar="FILE", help="A file that travels along and is passed as --config.")
@click.option("--need", multiple=True, metavar="K=V", help="Only on machines with that label, such as has=numpy.")
@for_tasks(retries=1)
@click.option("--where", default="any", metavar="any|local|NAME", help="Any machine, this one, or that one.")
@click.option(
    "--sandbox",
    type=click.Choice(["strict", "basic", "none"]),
    default="strict",
    help="basic: also where only a weaker one works; none: only with --where local.",
)
@HALT
@click.option("--resume", is_flag=True, help="Run only tasks that failed, are new, or whose inputs changed.")
@click.option(
    "--keep-done", is_flag=True, help="--resume that keeps what succeeded even if files or arguments changed."
)
@click.option("--cold", is_flag=True, help="Python starts afresh for each task, with nothing imported ahead.")
@click.option(
    "--env",
    type=click.Choice(["auto", "none"]),
    default="auto",
    help="auto: packages that the folder's own files ask for; none: Python as it is there.",
)
@click.option("--bundle", is_flag=True, help="Packages go along as wheels, for workers that reach no index.")
@click.option(
    "--freeze", is_flag=True, help="Python and packages go along as one program, for workers that have neither."
)
@QUIET
@click.pass_context
def submit_command(ctx: click.Context, /, folder: Path, args: Sequence[str], **options: Any) -> int:  # noqa: ANN401
    """Send FOLDER to idle machines, run its main there, and bring results/ back.

    Runs main.py, else the only main_*.py, else main.sh, else an executable main. What a task writes under results/ lands
    in FOLDER/results (one task) or FOLDER/results/TASK. ARGs may hold {k} of a sweep, {task} and {job}. Options that
    p2pq does not know go to the program if they follow FOLDER; after -- all do.
    """
    if options["sandbox"] == "none" and options["where"] != "local":
        raise UsageError("--sandbox none is for this machine only; add --where local")
    request = control.Submit(
        folder=str(folder.absolute()),
        args=tuple(args),
        name=options["name"],
        main=options["main"],
        results=str(Path(options["results"]).absolute()) if options["results"] else "",
        exclude=tuple(options["exclude"]),
        array=options["array"],
        sweep=tuple(options["sweep"]),
        config=str(Path(options["config"]).absolute()) if options["config"] else "",
        resources=resources_of(options),
        time_s=time_of(options),
        retries=options["retries"],
        priority=options["priority"],
        where=options["where"],
        sandbox=options["sandbox"],
        umask=umask(),
        halt=options["halt"],
        resume=options["resume"] or options["keep_done"],
        keep_done=options["keep_done"],
        cold=options["cold"],
        env=_env(options),
    )
    with connect(ctx, start=True) as node:
        job = send(node, request)
        if job is None:
            note("interrupted before the node had said the job's id; `p2pq jobs` tells whether it has one")
            return EXIT_INTERRUPTED
        if options["detach"]:
            click.echo(job.job)
            return EXIT_OK
        return follow(node, [job.job], quiet=options["quiet"])


_SAID: Final = {"none": "--env none", "bundle": "--bundle"}


def _env(options: Mapping[str, Any]) -> Literal["auto", "none", "bundle", "freeze"]:
    """Return how tasks get their packages."""
    env: Literal["auto", "none", "bundle", "freeze"] = options["env"]
    ways: tuple[Literal["bundle", "freeze"], ...] = ("bundle", "freeze")
    for way in ways:
        if options[way]:
            if env != "auto":
                raise UsageError(
                    f"--{way} is one way to have packages, and `{_SAID[env]}` another; leave one of them out"
                )
            env = way
    return env


def send(node: Connection, request: control.Submit | SubmitCommands) -> JobView | None:
    """Submit; return the new job, or None if the user lost patience."""
    job: JobView | None = None
    try:
        for reply in node.ask(request):
            match reply:
                case Note(text=text):
                    note(text)
                case JobView():
                    job = reply
                case _:
                    pass
    except KeyboardInterrupt:
        return None
    except NodeUnreachableError as error:
        raise went_away_early() from error
    if job is None:
        raise RemoteProtocolError("the node took the job but did not name it; are both of one version?")
    return job


def follow(node: Connection, jobs: Sequence[str], *, quiet: bool, timeout_s: float | None = None) -> int:
    """Watch jobs to their end with a progress bar; return the exit code."""
    from p2pq.cli.progress import Progress, WaitOver  # noqa: PLC0415  not every command waits

    last: dict[str, JobView] = {}
    progress = Progress(quiet=quiet, timeout_s=timeout_s)
    try:
        with progress:
            for reply in node.ask(control.Watch(jobs=tuple(jobs))):
                match reply:
                    case Note():
                        progress.say(reply.text + (f" {reply.suggestion}" if reply.suggestion else ""))
                    case Change():
                        last[reply.job.job] = reply.job
                        progress.show(reply)
                    case _:
                        pass
    except KeyboardInterrupt:
        first = last[next(iter(last))].job if last else jobs[0]
        note(f"the job goes on; `p2pq wait {first}` comes back to it, `p2pq cancel {first}` stops it")
        return EXIT_INTERRUPTED
    except NodeUnreachableError as error:
        raise went_away([last[job].job for job in last] or jobs) from error
    except WaitOver:
        note(f"not finished after {duration(timeout_s)}; the job goes on, see `p2pq show {jobs[0]}`")
        return EXIT_TIMED_OUT
    for view in last.values():
        say_end(view, quiet=quiet)
    return EXIT_OK if all(view.state == "done" for view in last.values()) else EXIT_FAILED


def went_away_early() -> NodeUnreachableError:
    """Say that nobody knows whether there is a job."""
    return NodeUnreachableError(
        "the node went away before it had said the job's id; `p2pq start`, then `p2pq jobs` tells whether it has one"
    )


def went_away(jobs: Sequence[str]) -> NodeUnreachableError:
    """Say that jobs outlive the node, and how to get back to them."""
    what = "jobs are" if len(jobs) > 1 else f"job {jobs[0]} is"
    return NodeUnreachableError(f"the node went away; {what} safe: `p2pq start`, then `p2pq wait {' '.join(jobs)}`")


def say_end(view: JobView, *, quiet: bool) -> None:
    """Say how a job ended; ``quiet``: only if not well."""
    counts = view.tasks
    if view.state == "done":
        if not quiet:
            failed = f", {counts.failed} failed" if counts.failed else ""
            halted = f", {view.halted}" if view.halted else ""
            results = f"; results in {view.results}" if view.results else ""
            note(f"{view.name}: {counts.done} of {counts.total} done{failed}{halted}{results}")
        return
    parts = [f"{counts.failed} failed"] * bool(counts.failed) + [f"{counts.cancelled} cancelled"] * bool(
        counts.cancelled
    )
    halted = f"{view.halted}: " if view.halted else ""
    note(f"{view.name}: {halted}{', '.join(parts) or view.state} of {counts.total}; see `p2pq tasks {view.job}`")
    again = f"`p2pq retry {view.job[:8]}` runs what failed again"
    if counts.cancelled:
        both = "with --cancelled also what was cancelled"
        again = (
            f"{again}, {both}" if counts.failed else f"`p2pq retry {view.job[:8]} --cancelled` runs what was cancelled"
        )
    note(again)


@click.command("jobs")
@click.option("--limit", default=100, type=click.IntRange(1, 100_000), help="At most so many (default 100).")
@JSON
@click.pass_context
def jobs_command(ctx: click.Context, limit: int, as_json: bool) -> None:
    """List your jobs, newest first."""
    with connect(ctx) as node:
        views = node.all(control.Jobs(limit=limit), JobView)
    if as_json:
        print_json(views)
        return
    if not views:
        click.echo("no jobs yet; `p2pq submit FOLDER` sends one")
        return
    table(
        ("JOB", "NAME", "STATE", "DONE", "FAILED", "TASKS", "SUBMITTED", "RESULTS"),
        [
            (v.job[:8], v.name, v.state, v.tasks.done, v.tasks.failed, v.tasks.total, v.submitted, v.results)
            for v in views
        ],
        right=(3, 4, 5),
    )
    for view in views:
        if view.lost:
            note(f"{view.job[:8]}: {view.lost}")


@click.command("show")
@click.argument("job_task", metavar="JOB[.TASK]")
@JSON
@click.pass_context
def show_command(ctx: click.Context, job_task: str, as_json: bool) -> None:
    """Show one JOB (its id, or the beginning of it), or one TASK of it with all its attempts."""
    job, task = split(job_task)
    if task is not None:
        from p2pq.cli.attempts import show_task  # noqa: PLC0415  seldom wanted

        show_task(ctx, job, task, as_json=as_json)
        return
    with connect(ctx) as node:
        view = node.one(control.Show(job=job), JobView)
    if as_json:
        print_json(view)
        return
    counts = plain(view.tasks)
    total = counts.pop("total")
    pairs(
        [
            ("job", view.job),
            ("name", view.name),
            ("owner", view.owner),
            ("state", f"{view.state}, {view.halted}" if view.halted else view.state),
            ("tasks", f"{total} ({', '.join(f'{count} {state}' for state, count in counts.items() if count)})"),
            ("kept", view.kept or None),
            ("attempts", view.attempts),
            ("submitted", view.submitted),
            ("finished", view.finished),
            ("folder", view.folder),
            ("results", view.results),
            ("lost", view.lost),
        ]
    )


@click.command("tasks")
@click.argument("job")
@JSON
@click.pass_context
def tasks_command(ctx: click.Context, job: str, as_json: bool) -> None:
    """List the tasks of a JOB."""
    with connect(ctx) as node:
        views = node.all(control.Tasks(job=job), TaskView)
    if as_json:
        print_json(views)
        return
    table(
        ("TASK", "STATE", "NODE", "TRY", "EXIT", "TIME", "MEMORY", "PARAMS", "REASON"),
        [
            (
                v.task,
                v.state if v.progress is None or v.state != "running" else f"{v.state} {v.progress:.0%}",
                behind(v.node, v.via),
                v.attempt or None,
                v.exit if v.signal is None else f"signal {v.signal}",
                duration(v.seconds),
                size(v.max_rss),
                " ".join(f"{key}={value}" for key, value in v.params.items()),
                v.reason if v.reason not in (None, "ok", "exit") else None,
            )
            for v in views
        ],
        right=(0, 3, 4, 5, 6),
    )


@click.command("wait")
@click.argument("jobs", nargs=-1, required=True)
@click.option("--timeout", default="", metavar="TIME", help="Give up waiting after this long (exit 5); jobs go on.")
@click.option("--quiet", "-q", is_flag=True, help="No progress bar.")
@JSON
@click.pass_context
def wait_command(ctx: click.Context, jobs: tuple[str, ...], timeout: str, quiet: bool, as_json: bool) -> int:
    """Wait until JOBS have ended; exit 0 if every task succeeded."""
    timeout_s = float(parse_seconds(timeout)) if timeout else None
    with connect(ctx) as node:
        code = follow(node, jobs, quiet=quiet or as_json, timeout_s=timeout_s)
    if as_json:
        with connect(ctx) as node:
            print_json([node.one(control.Show(job=job), JobView) for job in jobs])
    return code


@click.command("results")
@click.argument("job")
@click.option("--to", default="", metavar="DIR", help="Write them there (default: where they belong).")
@click.option(
    "--merge", is_flag=True, help="Put the files of all tasks together in one folder (default: RESULTS/merged)."
)
@JSON
@click.pass_context
def results_command(ctx: click.Context, job: str, to: str, merge: bool, as_json: bool) -> None:
    """Write the results of a JOB out again, or with --merge put those that are there together.

    Merged are files of one name: tables (.csv, .tsv) with the task and its parameters in front of each row, text (.txt,
    .log, .jsonl and the like) in the order of the tasks; other files lie side by side. tasks.csv lists the tasks.
    """
    with connect(ctx) as node:
        if merge:
            _merge(node, job, to, as_json=as_json)
            return
        wrote = node.one(Results(job=job, to=str(Path(to).absolute()) if to else ""), Wrote)
    if as_json:
        print_json(wrote)
    else:
        say(f"{wrote.tasks} {'task' if wrote.tasks == 1 else 'tasks'} in {wrote.folder}")


def _merge(node: Connection, job: str, to: str, *, as_json: bool) -> None:
    from p2pq.cli import merging  # noqa: PLC0415  seldom wanted

    view = node.one(control.Show(job=job), JobView)
    if not view.results:
        raise UsageError(f"what commands leave is what they print: `p2pq logs {view.job[:8]}`")
    if view.tasks.total == 1:
        raise UsageError(f"the job has one task, so there is nothing to merge; its results are in {view.results}")
    folder = Path(to).absolute() if to else Path(view.results) / "merged"
    merged = merging.merge(node.all(control.Tasks(job=view.job), TaskView), folder)
    for text in merged.notes:
        note(text)
    if as_json:
        print_json({"folder": str(folder), "tasks": merged.tasks, "files": merged.files})
    else:
        files = "1 file" if merged.files == 1 else f"{merged.files} files"
        say(f"{merged.tasks} {'task' if merged.tasks == 1 else 'tasks'} merged into {files} in {folder}")


@click.command("cancel")
@click.argument("job_task", metavar="JOB[.TASK]")
@JSON
@click.pass_context
def cancel_command(ctx: click.Context, job_task: str, as_json: bool) -> None:
    """Stop a job, or one task of it."""
    job, task = split(job_task)
    with connect(ctx) as node:
        view = node.one(control.CancelJob(job=job, task=task), JobView, say=note)
    if as_json:
        print_json(view)
    else:
        say(f"{view.name}: {view.tasks.cancelled} of {view.tasks.total} cancelled")


@click.command("why")
@click.argument("job_task", metavar="JOB[.TASK]")
@JSON
@click.pass_context
def why_command(ctx: click.Context, job_task: str, as_json: bool) -> None:
    """Say in one sentence why a job or task is as it is, and what to do."""
    job, task = split(job_task)
    with connect(ctx) as node:
        answer = node.one(control.Why(job=job, task=task), Note)
    if as_json:
        print_json({"why": answer.text, "suggestion": answer.suggestion})
    else:
        say(answer.text)
        if answer.suggestion:
            say(answer.suggestion)
