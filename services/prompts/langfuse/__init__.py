"""The part of Langfuse's public API that its released Python SDK needs for prompts: host `<front>/prompts`."""

from services.prompts.langfuse.routes import router

__all__ = ["router"]
