"""The fetch path: prompts as applications get them, from memory, thousands of times a second."""

from services.prompts.fetching.counting import Counting
from services.prompts.fetching.front import FetchFront
from services.prompts.fetching.memory import Memory

__all__ = ["Counting", "FetchFront", "Memory"]
