"""The web process: API, notifications of the provider, pages. It asks and shows; it moves nothing."""

from orchestrator.web.app import create_app, run_web
from orchestrator.web.services import Services, wake_through

__all__ = ["Services", "create_app", "run_web", "wake_through"]
