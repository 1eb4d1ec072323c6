"""What a question in plain English asks, read by rules: each takes what it knows out of the question. Pure.

What no rule takes, without the words that only hold a sentence together, is what results are ranked by.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

KINDS = {
    "vendor model": "vendor-model", "model": "model", "retriever": "retriever", "reranker": "reranker",
    "re-ranker": "reranker", "embedder": "embedder", "prompt": "prompt", "dataset": "dataset", "data set": "dataset",
    "bundle": "bundle",
}  # fmt: skip
STAGES = {
    "development": "development", "staging": "staging", "production": "production", "prod": "production",
    "live": "production", "monitoring": "monitoring", "monitored": "monitoring", "retired": "retired",
    "archived": "retired",
}  # fmt: skip
RISKS = {"minimal": "minimal", "low": "minimal", "limited": "limited", "high": "high", "prohibited": "prohibited"}
MORE = r"(?:over|above|more than|greater than|higher than|better than|>)"
LESS = r"(?:under|below|less than|lower than|fewer than|<)"
AT_LEAST = r"(?:at least|no less than|not less than|>=|from)"
AT_MOST = r"(?:at most|no more than|not more than|up to|<=)"
SIGNS = ((AT_LEAST, ">="), (AT_MOST, "<="), (MORE, ">"), (LESS, "<"))
NUMBER = r"(\d+(?:\.\d+)?|\.\d+)\s*(%|percent)?"
DENIED = r"\b(not|no|without|except|excluding|isn't|aren't|never|neither|nor|non)\b[\s-]*(?:in|any|yet|been)?\s*$"
IDLE = frozenset(
    """a about all also an and any are as at be been but by can could do does did find for from get give had has have i
    in is it its list me my of on one only or our please publish published search show some something than that the
    their them there these they this those to us used using want was we were what when where which while who whose will
    with would you anything everything every each asset assets version versions first sorted ordered order sort looking
    look need""".split()  # noqa: SIM905 - words are read as words
)
TAGGED = r"\b(?:tagged|with (?:the )?tag)\s+([\w.-]+)\s*(?:=|:|is)\s*(?:\"([^\"]+)\"|([\w.-]+))"
ALIASED = r"\b(?:with (?:the )?)?alias(?:ed)?\s+(?:as\s+)?@?([\w.-]+)|\bthe (champion|challenger)s?\b"
WORST = {"loss", "error", "rmse", "mae", "mse", "latency", "cost", "mape", "perplexity"}


@dataclass
class Reading:
    """What was understood so far; `left` is what was not, with what was taken blanked."""

    left: str
    filters: list[str] = field(default_factory=list)
    order: str = ""

    @property
    def words(self) -> str:
        """What is to be ranked by."""
        found = re.findall(r"[\w][\w.+#-]*", self.left)
        return " ".join(word.strip(".-") for word in found if word.lower().strip(".-") not in IDLE)


class Rules:
    """For one workspace's vocabulary, at a time."""

    def __init__(
        self,
        tasks: Sequence[str],
        licences: Sequence[str],
        tag_keys: Sequence[str],
        metrics: Sequence[str],
        measures: Sequence[str],
        now: datetime,
    ) -> None:
        self._tasks, self._licences, self._tag_keys = tasks, licences, tag_keys
        self._metrics, self._measures = metrics, measures
        self._now = now

    def read(self, question: str) -> Reading:
        """What a question asks."""
        reading = Reading(re.sub(r"\s+", " ", question).strip(" ?!."))
        for rule in (
            self._numbers, self._order, self._times, self._quoted, self._tags, self._alias, self._stages, self._risks,
            self._gates, self._licence, self._author, self._kinds, self._task,
        ):  # fmt: skip
            rule(reading)
        reading.filters = list(dict.fromkeys(reading.filters))
        return reading

    def _numbers(self, reading: Reading) -> None:
        """`auc over 0.9`, `an accuracy of at least 90 %`, `latency < 20`."""
        for words, sign in SIGNS:
            pattern = rf"\b(?:an?\s+)?([A-Za-z][\w.@-]*(?:\s[A-Za-z][\w.@-]*)?)\s+(?:is\s+|of\s+)?{words}\s*{NUMBER}"
            for found in _take(reading, pattern, lambda found: self._measured(found[1]) != ""):
                value = float(found[2]) / (100 if found[3] else 1)
                reading.filters.append(self._compared(found[1], sign, f"{value:g}"))

    def _compared(self, name: str, sign: str, value: str) -> str:
        known, key = self._measured(name).split(" ", 1), ""
        key = known[1]
        if known[0] == "version":
            return f"version {sign} {value}"
        parts = [f"{of}.{_quoted(key)} {sign} {value}" for of in known[0].split("+")]
        return parts[0] if len(parts) == 1 else f"({' OR '.join(parts)})"

    def _measured(self, name: str) -> str:
        """Where a number of this name is found, and what it is called there: `metrics+measures auc`."""
        for said in (name, name.split(" ")[-1]):
            wanted = said.lower().replace(" ", "_")
            if wanted == "version":
                return "version version"
            for fits in (str.__eq__, str.endswith, str.__contains__):
                found = [of for of, names in (("metrics", self._metrics), ("measures", self._measures))
                         if any(fits(known.lower(), wanted) for known in names)]  # fmt: skip
                if found and len(wanted) > 1:
                    names = self._metrics if found[0] == "metrics" else self._measures
                    key = next(known for known in names if fits(known.lower(), wanted))
                    both = [of for of in found if key in (self._metrics if of == "metrics" else self._measures)]
                    return f"{'+'.join(both)} {key}"
        return ""

    def _order(self, reading: Reading) -> None:
        """`newest first`, `oldest`, `best auc`, `lowest loss first`, `by name`."""
        for _ in _take(reading, r"\b(?:the\s+)?(?:newest|latest|most recent|recent)(?:\s+(?:ones?\s+)?first)?\b"):
            reading.order = reading.order or "created DESC"
        for _ in _take(reading, r"\b(?:the\s+)?oldest(?:\s+(?:ones?\s+)?first)?\b"):
            reading.order = reading.order or "created ASC"
        for _ in _take(reading, r"\b(?:recently|last)\s+(?:changed|updated)(?:\s+first)?\b"):
            reading.order = reading.order or "updated DESC"
        for _ in _take(reading, r"\b(?:sorted |ordered )?by name\b|\balphabetical(?:ly)?\b"):
            reading.order = reading.order or "name ASC"
        pattern = r"\b(best|highest|top|lowest|smallest|worst)\s+(?:by\s+)?([A-Za-z][\w.@-]*)(?:\s+first)?\b"
        for found in _take(reading, pattern, lambda found: self._measured(found[2]) != ""):
            where, key = self._measured(found[2]).split(" ", 1)
            of = where.split("+")[-1]
            small = any(bad in key.lower() for bad in WORST)
            down = {"highest": True, "top": not small, "best": not small, "worst": small}.get(found[1].lower(), False)
            named = "version" if of == "version" else f"{of}.{_quoted(key)}"
            reading.order = reading.order or f"{named} {'DESC' if down else 'ASC'}"

    def _times(self, reading: Reading) -> None:
        """`since 2026-11-01`, `in the last 30 days`, `this week`, `yesterday`."""
        verb = r"(?:(?:created|registered|made|added|updated|changed)\s+)?"
        for word, sign in (("since|after|from", ">="), ("before|until", "<")):
            for found in _take(reading, rf"\b({verb})(?:{word})\s+(\d{{4}}-\d\d-\d\d)\b"):
                reading.filters.append(f"{_moment(found[1])} {sign} '{found[2]}'")
        for found in _take(reading, rf"\b({verb})(?:in|within|during)?\s*(?:the\s+)?(?:last|past)\s+(\d+\s+)?"
                                    r"(hour|day|week|month|year)s?\b"):  # fmt: skip
            days = {"hour": 1 / 24, "day": 1, "week": 7, "month": 30, "year": 365}[found[3].lower()]
            self._since(reading, found[1], timedelta(days=min(days * int(found[2] or 1), 36_500)))
        for text, days in (("today", 1), ("yesterday", 2), ("this week", 7), ("this month", 31), ("this year", 366)):
            for found in _take(reading, rf"\b({verb}){text}\b"):
                self._since(reading, found[1], timedelta(days=days))

    def _since(self, reading: Reading, verb: str, ago: timedelta) -> None:
        reading.filters.append(f"{_moment(verb)} >= '{(self._now - ago).isoformat(timespec='seconds')}'")

    def _quoted(self, reading: Reading) -> None:
        """`named credit-pd`, `called "Credit PD"`."""
        for found in _take(reading, r"\b(?:named|called)\s+(?:\"([^\"]+)\"|'([^']+)'|([\w.-]+))"):
            name = found[1] or found[2] or found[3]
            reading.filters.append(f"name ILIKE {_text('%' + _plain(name) + '%')}")

    def _tags(self, reading: Reading) -> None:
        """`tagged team=labour`, `of team labour`, where there is such a tag."""
        for found in _take(reading, TAGGED):
            reading.filters.append(f"tags.{_quoted(found[1])} = {_text(found[2] or found[3])}")
        for key in self._tag_keys:
            if len(key) < 3 or not re.fullmatch(r"[\w-]+", key):
                continue
            named = rf"\b(?:of|by|from|for|in|with)?\s*(?:the\s+)?{re.escape(key)}\s+(?:is\s+|=\s*)?"
            for found in _take(reading, named + r"(?!over|under|above|below|at\b|is\b)([\w-]+)"):
                reading.filters.append(f"tags.{_quoted(key)} = {_text(found[1])}")

    def _alias(self, reading: Reading) -> None:
        for found in _take(reading, ALIASED):
            reading.filters.append(f"alias = {_text(found[1] or found[2])}")

    def _stages(self, reading: Reading) -> None:
        words = "|".join(STAGES)
        for found, denied in _said(reading, rf"\b(?:in|at)?\s*(?:the\s+)?\b({words})\b(?:\s+stage)?"):
            stage = STAGES[found[1].lower()]
            reading.filters.append(f"stage {'!=' if denied else '='} '{stage}'")

    def _risks(self, reading: Reading) -> None:
        words = "|".join(RISKS)
        for found, denied in _said(reading, rf"\b({words})[\s-]risk\b|\brisk\s+(?:is\s+|class\s+)?({words})\b"):
            risk = RISKS[(found[1] or found[2]).lower()]
            reading.filters.append(f"risk {'!=' if denied else '='} '{risk}'")

    def _gates(self, reading: Reading) -> None:
        for _, denied in _said(reading, r"\b(?:with\s+)?(?:an\s+|any\s+)?approval\b"):
            reading.filters.append(f"approval IS {'' if denied else 'NOT '}NULL")
        for found, denied in _said(reading, r"\b(?:that\s+)?(?:have\s+|has\s+)?(approved|rejected)\b"):
            reading.filters.append(f"{'NOT ' if denied else ''}approval = '{found[1].lower()}'")
        for _, denied in _said(reading, r"\bpass(?:ed|es|ing)?\s+(?:the\s+|its\s+|their\s+)?gates?\b"):
            reading.filters.append(f"{'NOT ' if denied else ''}gate = 'pass'")

    def _licence(self, reading: Reading) -> None:
        for licence in sorted(self._licences, key=len, reverse=True):
            short = re.escape(re.split(r"-\d", licence)[0])
            under = r"\b(?:licen[sc]ed?\s+(?:under|as|is)?\s*|under\s+(?:the\s+)?)?"
            named = rf"(?:{re.escape(licence)}|{short})(?:\s+licen[sc]ed?)?(?![\w-])"
            for _, denied in _said(reading, under + named):
                reading.filters.append(f"licence {'!=' if denied else '='} {_text(licence)}")

    def _author(self, reading: Reading) -> None:
        pattern = (
            r"\b(?:by|from|author(?:ed by)?|made by|written by|registered by)\s+((?:user|pipeline|service):[\w.@-]+)"
        )
        for found in _take(reading, pattern):
            reading.filters.append(f"author = {_text(found[1])}")
        for found in _take(reading, r"\b(?:authored|made|written|registered|trained|built)\s+by\s+([\w.@-]+)"):
            reading.filters.append(f"author ILIKE {_text('%' + _plain(found[1]) + '%')}")

    def _kinds(self, reading: Reading) -> None:
        named: list[str] = []
        for said, kind in KINDS.items():
            for _, denied in _said(reading, rf"\b{said}s?\b"):
                if denied:
                    reading.filters.append(f"kind != '{kind}'")
                else:
                    named.append(f"'{kind}'")
        if named:
            some = list(dict.fromkeys(named))
            reading.filters.insert(0, f"kind = {some[0]}" if len(some) == 1 else f"kind IN ({', '.join(some)})")

    def _task(self, reading: Reading) -> None:
        for task in self._tasks:
            for _, denied in _said(reading, rf"\b(?:for\s+)?{re.escape(task).replace('_', '[ _-]')}\b"):
                reading.filters.append(f"task {'!=' if denied else '='} {_text(task)}")


def _take(
    reading: Reading, pattern: str, fits: Callable[[re.Match[str]], bool] = lambda _: True
) -> Iterator[re.Match[str]]:
    """Every place where the pattern fits, taken out of the question."""
    for found in list(re.finditer(pattern, reading.left, re.IGNORECASE)):
        if fits(found):
            _blank(reading, found.start(), found.end())
            yield found


def _said(reading: Reading, pattern: str) -> Iterator[tuple[re.Match[str], bool]]:
    """Every place where the pattern fits, and whether it is denied; both are taken out."""
    for found in list(re.finditer(pattern, reading.left, re.IGNORECASE)):
        before = re.search(DENIED, reading.left[: found.start()], re.IGNORECASE)
        _blank(reading, before.start() if before else found.start(), found.end())
        yield found, before is not None


def _blank(reading: Reading, start: int, end: int) -> None:
    reading.left = reading.left[:start] + " " * (end - start) + reading.left[end:]


def _moment(verb: str) -> str:
    return "updated" if verb.lower().startswith(("updated", "changed")) else "created"


def _quoted(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_][\w.:/@-]*", key) else f"`{key.replace('`', '')}`"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _plain(text: str) -> str:
    """Without wildcards."""
    return re.sub(r"([\\%_])", r"\\\1", text)
