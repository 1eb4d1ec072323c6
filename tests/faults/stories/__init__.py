"""What each service is asked for while it is broken, and what must have come of it."""

from __future__ import annotations

from tests.faults.stories.base import Letter, Story
from tests.faults.stories.deployer import DeployerStory
from tests.faults.stories.evaluator import EvaluatorStory
from tests.faults.stories.policy import PolicyStory
from tests.faults.stories.prompts import PromptsStory
from tests.faults.stories.registry import RegistryStory
from tests.faults.stories.router import RouterStory

STORIES: dict[str, type[Story]] = {
    story.service: story
    for story in (DeployerStory, EvaluatorStory, PolicyStory, PromptsStory, RegistryStory, RouterStory)
}

__all__ = ["STORIES", "Letter", "Story"]
