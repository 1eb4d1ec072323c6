"""The three stages of a prompt's evaluation: the scoring processes render and grade, the service asks in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from services.evaluator.answers.asking import Asking
from services.evaluator.domain import Answer, File, Finished, Plan, Question, prompt_plan
from services.evaluator.errors import AnswersRefused, GatewayNotSet, PromptUnreadable
from services.evaluator.processes import ScoringProcesses
from services.evaluator.settings import Settings
from services.evaluator.store import Claimed
from services.evaluator.templates import PromptAssignment, prompt_template
from shared.artefacts import ArtefactStore

LANES = 2
"""Evaluations of prompts that are at work at once: a proposal's candidate and what it would replace."""


class PromptMeasuring:
    """What the worker does where an evaluation has a model that answers."""

    def __init__(self, processes: ScoringProcesses, artefacts: ArtefactStore, settings: Settings) -> None:
        self._processes = processes
        self._artefacts = artefacts
        self._settings = settings

    async def begin(self, claimed: Claimed, files: list[File]) -> Plan:
        """How the golden set is cut. Raises what `golden.check` and `Prompt.read` do."""
        self._asking()
        prompt_template(claimed.evaluation.template)
        prompt = await self._prompt(claimed)
        rows: int = await self._processes.run("begin_prompt", self._assignment(claimed, 0), prompt, files)
        return prompt_plan(rows)

    async def score(self, claimed: Claimed, files: list[File]) -> bytes:
        """One shard's partial result. Raises GatewayUnavailable, AnswersRefused, RenderRefused, RenderTooLarge."""
        assignment = self._assignment(claimed, claimed.evaluation.rows or 0)
        prompt = await self._prompt(claimed)
        questions: list[Question] = await self._processes.run("render", assignment, prompt, files, claimed.shard)
        answers = await self._asking().ask(assignment.model, questions)
        _check_answered(assignment.model, answers)
        partial: bytes = await self._processes.run("grade", assignment, files, claimed.shard, answers)
        return partial

    async def finish(self, claimed: Claimed, partials: Sequence[bytes]) -> Finished:
        assignment = self._assignment(claimed, claimed.evaluation.rows or 0)
        finished: Finished = await self._processes.run("report_prompt", assignment, partials)
        return finished

    def _asking(self) -> Asking:
        settings = self._settings
        if not settings.gateway_url:  # it was there when the evaluation was asked for
            raise GatewayNotSet("set MINTMARK_EVALUATOR_GATEWAY_URL to have prompts measured")
        return Asking(
            settings.gateway_url.rstrip("/"),
            settings.gateway_key.get_secret_value() if settings.gateway_key else "",
            settings.answers_at_once,
            settings.answer_timeout_s,
            settings.answer_max_tokens,
        )

    async def _prompt(self, claimed: Claimed) -> bytes:
        if claimed.asset.artefact is None:
            raise PromptUnreadable(f"{claimed.asset.ref} has no artefact that could be rendered")
        return await self._artefacts.get(claimed.asset.artefact.digest)

    def _assignment(self, claimed: Claimed, rows: int) -> PromptAssignment:
        manifest, evaluation = claimed.dataset.manifest, claimed.evaluation
        return PromptAssignment(
            prompt=claimed.asset.ref.digest,
            golden_set=claimed.dataset.ref.digest,
            template=evaluation.template,
            label=manifest.label or "label",
            model=evaluation.model or "",
            max_tokens=self._settings.answer_max_tokens,
            may_quote=manifest.sensitivity == "public",
            plan=prompt_plan(rows),
        )


def _check_answered(model: str, answers: Sequence[Answer]) -> None:
    """Raises AnswersRefused when a whole shard was refused: the next ones would be, too, and cost as much."""
    reasons = Counter(answer.why for answer in answers if answer.text is None)
    if answers and reasons.total() == len(answers):
        raise AnswersRefused.told(model, reasons, len(answers))
