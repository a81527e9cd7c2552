"""What is not kept any longer goes by itself; what is named stays."""

from __future__ import annotations

from collections.abc import Callable

from tests.service.asking import post_file, weights
from tests.service.conftest import Running
from tests.service.inside import wait_for


def test_garbage_goes_by_itself_and_what_is_named_stays(serve: Callable[..., Running]) -> None:
    server = serve(collect_seconds=0.3, blob_grace_seconds=0.5, job_days=0.5 / 86400)
    with server.client() as http:
        gone, kept = (post_file(http, weights(W=[[scale]])).json()["certificate"] for scale in (0.5, 0.25))
        before = {path.name for path in (server.data / "blobs").rglob("*") if len(path.name) == 64}
        assert http.delete(gone["href"]).status_code == 204

        def blobs() -> set[str]:
            return {path.name for path in (server.data / "blobs").rglob("*") if len(path.name) == 64}

        # envelope and proof of either, and the weights of both questions: only what the kept one names is left
        assert len(before) == 6
        assert wait_for(lambda: len(blobs()) == 2, 20), blobs()
        assert http.get(kept["href"]).status_code == 200
        assert http.get(kept["proof"]).status_code == 200
        assert http.get(gone["href"]).status_code == 404
        assert http.get("/v1/jobs").json()["jobs"] == []
