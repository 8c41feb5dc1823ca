"""Shared by the tests of flows and commands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.prefect_server import standing_server


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that stands already: for tests that are not about the one that a command starts for itself."""
    with standing_server(tmp_path_factory.mktemp("standing")) as environment:
        yield environment["PREFECT_API_URL"]
