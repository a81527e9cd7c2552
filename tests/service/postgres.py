"""Fixtures of a real PostgreSQL: a cluster of its own for the tests of a process, a database for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from benchmarks.cluster import MISSING, Cluster, binaries

__all__ = ["Cluster", "postgres", "postgres_url"]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A server for all tests of this process."""
    programs = binaries()
    if programs is None:
        if os.environ.get("CI"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    cluster = Cluster(programs)
    yield cluster
    cluster.close()


@pytest.fixture
def postgres_url(postgres: Cluster) -> Iterator[str]:
    """A database of the test's own, empty."""
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)
