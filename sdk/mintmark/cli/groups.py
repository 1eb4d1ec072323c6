"""`mintmark groups`: who serves, and moving it."""

from __future__ import annotations

import time
from typing import Annotated, Any
from urllib.parse import quote

import typer

from mintmark.cli._screen import failing_in_one_line, hints, out, show_json, show_table
from mintmark.client import Client

PATH = "/router/v1/groups"
PAGE = 200
MOST_ROWS = 200
PERIOD_S = 1.0
FIGURES = ["version", "role", "n", "errors", "latency_ms_p50", "latency_ms_p99", "labelled", "accuracy", "auc", "cost"]

Group = Annotated[str, typer.Argument(help="the group's name")]
AsJson = Annotated[bool, typer.Option("--json", help="as the server says it, for a program")]
Why = Annotated[str, typer.Option(help="kept in the group's history, and told to everybody")]

app = typer.Typer(no_args_is_help=True, help="Groups of models: champion, challengers and their rows.")


@app.command("list")
def list_groups(as_json: AsJson = False) -> None:
    """Every group of the workspace, who serves it, and who challenges."""
    with failing_in_one_line(), Client() as client:
        found = [*_pages(client, PATH)]
    if as_json:
        show_json(found)
        return
    show_table([_line(one) for one in found], ["group", "champion", "challengers", "revision", "since", "note"])
    if not found:
        hints.print("there is no group yet: docs/how-to/run-an-experiment.md", style="dim")


@app.command()
def show(group: Group, as_json: AsJson = False) -> None:
    """Who serves a group, with what share, and how it came to that."""
    with failing_in_one_line(), Client() as client:
        found = client.get(_at(group))
        history = [] if as_json else client.get(f"{_at(group)}/history")
    if as_json:
        show_json(found)
        return
    show_table([_arm(arm) for arm in found["arms"]], ["role", "version", "share", "digest"])
    if found["unavailable"]:
        hints.print(found["unavailable"], style="red", markup=False)
    out.print()
    rows = [{**one, "champion": _version(one["champion"]), "at": _when(one["at"])} for one in history[-10:]]
    show_table(rows, ["revision", "change", "champion", "who", "why", "at"])


@app.command()
def promote(
    group: Group,
    version: Annotated[str, typer.Argument(help="urn@version, or the number alone of a challenger")],
    reason: Why,
    force: Annotated[bool, typer.Option(help="although the traffic is not split as the weights say")] = False,
) -> None:
    """Make a version the champion. It must be approved; the group must be as it was when this began."""
    with failing_in_one_line(), Client() as client:
        found = client.get(_at(group))
        body = {"asset": _named(found, version), "reason": reason, "force": force}
        after = client.post(f"{_at(group)}:promote", {**body, "expected_revision": found["revision"]})
    out.print(f"{group}: {_version(after['champion'])} is champion, revision {after['revision']}", markup=False)


@app.command()
def rollback(group: Group, reason: Why) -> None:
    """Back to the champion before the last promotion, at once."""
    with failing_in_one_line(), Client() as client:
        after = client.post(f"{_at(group)}:rollback", {"reason": reason})
    out.print(f"{group}: {_version(after['champion'])} is champion again, revision {after['revision']}", markup=False)


@app.command()
def rows(
    group: Group,
    most: Annotated[int, typer.Option("-n", min=1, max=MOST_ROWS, help="how many of the latest")] = 20,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="and then each as it comes, until interrupted")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """The latest requests of a group, the newest last."""
    columns = ["received_at", "request_id", "unit", "version", "arm", "status", "score", "latency_ms", "error_code"]
    with failing_in_one_line(), Client() as client:
        seen: set[str] = set()
        while True:
            page = client.get(f"{_at(group)}/inferences", max_results=MOST_ROWS if seen else most)["items"]
            new = [one for one in reversed(page) if one["request_id"] not in seen]
            seen = {one["request_id"] for one in page}
            if as_json:
                for one in new:
                    show_json(one)
            elif new:
                show_table([{**one, "latency_ms": f"{one['latency_ms']:.1f}"} for one in new], columns)
            if not follow:
                return
            time.sleep(PERIOD_S)


@app.command()
def comparison(
    group: Group,
    primary: Annotated[str | None, typer.Option(help="the metric that decides, e.g. accuracy")] = None,
    as_json: AsJson = False,
) -> None:
    """Champion and challengers side by side, and what the figures say so far."""
    with failing_in_one_line(), Client() as client:
        found = client.get(f"{_at(group)}/comparison", primary=primary)
    if as_json:
        show_json(found)
        return
    show_table([_figures(one) for one in found["versions"]], FIGURES)
    for verdict in found["verdicts"]:
        out.print(f"{_version(verdict['asset'])}: {verdict['sentence']}", markup=False)
    if found["sample_ratio"]["mismatch"]:
        hints.print("the traffic is not split as the weights say; a promotion is refused", style="red")


def _pages(client: Client, path: str) -> Any:
    token = None
    while True:
        page = client.get(path, max_results=PAGE, page_token=token)
        yield from page["items"]
        token = page["next_page_token"]
        if token is None:
            return


def _at(group: str) -> str:
    return f"{PATH}/{quote(group, safe='')}"


def _named(group: dict[str, Any], version: str) -> dict[str, Any]:
    """The version meant. Raises ValueError naming what the group has, where a number alone says too little."""
    urn, at, number = version.rpartition("@")
    if not number.isdecimal():
        raise ValueError(f"{version!r} names no version; write it as mm:model/census@2, or 2 for a challenger")
    if at:
        return {"urn": urn, "version": int(number)}
    known = [arm["asset"] for arm in group["arms"] if arm["role"] == "challenger"]
    fitting = [one for one in known if one["version"] == int(number)]
    if len(fitting) != 1:
        there = ", ".join(map(_version, known)) or "none"
        raise ValueError(f"{number} is not one challenger of {group['name']}; there is {there}")
    return {"urn": fitting[0]["urn"], "version": fitting[0]["version"]}


def _line(group: dict[str, Any]) -> dict[str, Any]:
    arms = [arm for arm in group["arms"] if arm["role"] != "champion"]
    return {
        "group": group["name"],
        "champion": _version(group["champion"]),
        "challengers": ", ".join(f"{_version(arm['asset'])} {_share(arm)}" for arm in arms),
        "revision": group["revision"],
        "since": _when(group["at"]),
        "note": "unavailable" if group["unavailable"] else "",
    }


def _arm(arm: dict[str, Any]) -> dict[str, Any]:
    asset = arm["asset"]
    return {"role": arm["role"], "version": _version(asset), "share": _share(arm), "digest": asset["digest"][:19]}


def _share(arm: dict[str, Any]) -> str:
    return f"{arm['weight_bp'] / 100:g} %"


def _version(asset: dict[str, Any]) -> str:
    return f"{asset['urn']}@{asset['version']}"


def _when(moment: str) -> str:
    return moment[:19].replace("T", " ")


def _figures(one: dict[str, Any]) -> dict[str, Any]:
    found = {name: _short(one.get(name)) for name in FIGURES}
    return {**found, "version": f"{one['urn']}@{one['version']}" if one["urn"] else "none"}


def _short(value: Any) -> Any:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else value
