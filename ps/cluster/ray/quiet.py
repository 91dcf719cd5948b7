"""Leaves out of the log what Ray says at every normal start and nobody can act on."""

from __future__ import annotations

import logging

_TOKEN_LOGGER = "ray._private.authentication.authentication_token_setup"
_SAID_ALWAYS = "Token authentication is enabled"


def hush_ray() -> None:
    """Drops Ray's advice to turn off the authentication that it has just turned on. Ray still says when authentication
    is off."""
    logger = logging.getLogger(_TOKEN_LOGGER)
    if _is_news not in logger.filters:
        logger.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return _SAID_ALWAYS not in record.getMessage()
