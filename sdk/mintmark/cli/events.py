"""`mintmark events`: publish, validate and watch events, and look after the dead ones."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mintmark.cli._screen import failing_in_one_line, hints, show_json, show_table
from mintmark.client import Client
from mintmark.events import CloudEvent, publish, signed, tail
from mintmark.settings import Connection

app = typer.Typer(no_args_is_help=True, help="Publish, validate and watch events; replay dead ones.")
dlq = typer.Typer(no_args_is_help=True, help="Events that a service could not handle.")
app.add_typer(dlq, name="dlq")

File = Annotated[
    Path, typer.Argument(help="A CloudEvent as JSON (type, subject, data, …), or a list of them; - reads stdin.")
]
Service = Annotated[str, typer.Argument(help="registry, prompts, evaluator, deployer, router or policy")]


def _read(path: Path) -> list[CloudEvent]:
    text = sys.stdin.read() if str(path) == "-" else path.read_text()
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    documents = document if isinstance(document, list) else [document]
    return [CloudEvent.of_document(entry) for entry in documents]


def _check(client: Client, event: CloudEvent) -> list[str]:
    import jsonschema  # large, and most of these commands check nothing

    schema = client.get(f"/schemas/{event.type}.json")
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    return [
        f"{'.'.join(map(str, error.absolute_path)) or 'data'}: {error.message}"
        for error in sorted(validator.iter_errors(event.data), key=lambda error: list(map(str, error.absolute_path)))
    ]


@app.command()
def validate(file: File) -> None:
    """Hold events against their JSON Schemas; exit code 6 when one does not fit."""
    with failing_in_one_line(), Client() as client:
        bad = 0
        for event in _read(file):
            problems = _check(client, event)
            bad += bool(problems)
            print(f"{event.type} {event.id}: {'ok' if not problems else 'does not fit'}")
            for problem in problems:
                print(f"  {problem}")
        if bad:
            raise typer.Exit(6)


@app.command("publish")
def publish_events(
    file: File,
    unsigned: Annotated[bool, typer.Option("--unsigned", help="Send without a proof of the author.")] = False,
    unchecked: Annotated[bool, typer.Option("--unchecked", help="Send even what does not fit its schema.")] = False,
) -> None:
    """Sign events with your API key and put them on Kafka."""
    from aiokafka.errors import KafkaError

    connection = Connection.find()
    with failing_in_one_line(), Client(connection) as client:
        events = _read(file)
        if not unchecked:
            for event in events:
                problems = _check(client, event)
                if problems:
                    raise ValueError(
                        f"{event.type} does not fit its schema: {problems[0]} (send it all the same with --unchecked)"
                    )
        if not unsigned:
            if connection.api_key is None:
                raise ValueError('no API key to sign with: eval "$(mintmark env)", or send with --unsigned')
            key = connection.api_key
            events = [event if event.proof else signed(event, key) for event in events]
        try:
            places = asyncio.run(publish(connection.kafka_bootstrap, events))
        except KafkaError as error:
            raise ValueError(f"Kafka at {connection.kafka_bootstrap} does not take it: {error}") from None
        for event, place in zip(events, places, strict=True):
            print(f"{event.id} {place[0]}/{place[1]}/{place[2]}")


@app.command("tail")
def tail_events(
    type: Annotated[str, typer.Option(help="A pattern, e.g. 'asset.*' or 'gate.decided.v1'.")] = "*",
    from_start: Annotated[bool, typer.Option("--from-start", help="Begin with the oldest events.")] = False,
    most: Annotated[int | None, typer.Option("--most", "-n", help="End after so many.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Whole documents, one a line.")] = False,
) -> None:
    """Show events as they come; Ctrl-C ends."""
    from aiokafka.errors import KafkaError

    async def follow() -> None:
        seen = 0
        async for document in tail(Connection.find().kafka_bootstrap, type, from_start=from_start):
            print(json.dumps(document) if as_json else _line(document), flush=True)
            seen += 1
            if seen == most:
                return

    with failing_in_one_line():
        try:
            asyncio.run(follow())
        except KafkaError as error:
            raise ValueError(f"Kafka does not answer: {error}") from None
        except KeyboardInterrupt:
            hints.print("ended")


def _line(document: dict[str, Any]) -> str:
    when, source = document.get("time", "")[:23], document.get("source", "")
    return f"{when:23}  {document['type']:26} {document['subject']:32} {source}  {document['kafka']}"


@dlq.command("ls")
def dlq_ls(service: Service, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """List a service's dead letters, oldest first."""
    with failing_in_one_line(), Client() as client:
        rows = client.get(f"/{service}/v1/dead-letters")
        if as_json:
            show_json(rows)
        else:
            show_table(rows, ["position", "at", "type", "key", "consumer", "attempts", "code", "error"])


@dlq.command("show")
def dlq_show(service: Service, position: str) -> None:
    """One dead letter with its headers and data."""
    with failing_in_one_line(), Client() as client:
        show_json(client.get(f"/{service}/v1/dead-letters/{position}"))


@dlq.command("replay")
def dlq_replay(
    service: Service,
    positions: Annotated[list[str] | None, typer.Argument(help="As listed; none with --all.")] = None,
    all: Annotated[bool, typer.Option("--all", help="Every dead letter of the service.")] = False,
) -> None:
    """Put dead letters back on their topics; each is handled at most once, however often it is replayed."""
    with failing_in_one_line(), Client() as client:
        chosen = [row["position"] for row in client.get(f"/{service}/v1/dead-letters")] if all else positions or []
        if not chosen and not all:
            raise ValueError("name positions (see `mintmark events dlq ls`), or give --all")
        for position in chosen:
            row = client.post(f"/{service}/v1/dead-letters/{position}:replay")
            print(f"{position} back on {row['topic']}")
        if not chosen:
            hints.print("nothing to replay")
