"""What a slate may look like."""

from __future__ import annotations

from pydantic import Field

from ranker.config import Config


class SlateConfig(Config):
    """How slates are made of scored candidates.

    Attributes:
        size: so many items a request, fewer where the request has fewer candidates.
    """

    size: int = Field(default=10, ge=1)
