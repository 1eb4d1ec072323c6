"""Rendering: templates are strangers' programs, so they run in processes that may die."""

from services.prompts.rendering.processes import Rendering

__all__ = ["Rendering"]
