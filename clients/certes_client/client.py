"""A small HTTP client: one method per call of the service."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from certes.errors import CertesError


class ServiceError(CertesError):
    """The service answered with a problem (RFC 9457).

    Attributes:
        status: HTTP status.
        problem: the problem object, or a stand-in if the answer was none.
    """

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(str(problem.get("detail") or f"HTTP status {status}"))
        self.status = status
        self.problem = problem


class Client:
    """Talks to a Certes service.

    Args:
        url: where it listens (``http://127.0.0.1:8080``).
        timeout: seconds to wait for an answer; solving takes as long as it takes.
    """

    def __init__(self, url: str, timeout: float = 600.0) -> None:
        self._http = httpx.Client(base_url=url, timeout=httpx.Timeout(timeout, connect=10.0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def certify(
        self, spec: Mapping[str, Any], weights: Path | bytes, name: str = "weights.safetensors"
    ) -> dict[str, Any]:
        """POST /v1/certificates.

        Args:
            spec: the system and what is asked about it.
            weights: a safetensors file, or its bytes.
            name: the file's name, if bytes are given.

        Raises:
            ServiceError: the service refused. httpx.HTTPError: it could not be reached.
        """
        return self._asked("/v1/certificates", spec, weights, name)

    def project(
        self, spec: Mapping[str, Any], weights: Path | bytes, name: str = "weights.safetensors"
    ) -> dict[str, Any]:
        """POST /v1/projections; the new file is at :meth:`weights` of the certificate's digest.

        Args:
            spec: the system, and what has to be reached and kept; or modules and their interconnection.
            weights: a safetensors file, or its bytes.
            name: the file's name, if bytes are given.

        Raises:
            ServiceError: the service refused. httpx.HTTPError: it could not be reached.
        """
        return self._asked("/v1/projections", spec, weights, name)

    def compose(
        self, spec: Mapping[str, Any], weights: Path | bytes, name: str = "weights.safetensors"
    ) -> dict[str, Any]:
        """POST /v1/assemblies; the couplings' tensors are at :meth:`weights` of the certificate's digest.

        Args:
            spec: modules and couplings, as in a description file; no files in it.
            weights: a safetensors file with every tensor, or its bytes.
            name: the file's name, if bytes are given.

        Raises:
            ServiceError: the service refused. httpx.HTTPError: it could not be reached.
        """
        return self._asked("/v1/assemblies", spec, weights, name)

    def _asked(self, path: str, spec: Mapping[str, Any], weights: Path | bytes, name: str) -> dict[str, Any]:
        data, called = (weights.read_bytes(), weights.name) if isinstance(weights, Path) else (weights, name)
        files: dict[str, Any] = {
            "spec": (None, json.dumps(dict(spec)), "application/json"),
            "weights": (called, data, "application/octet-stream"),
        }
        return self._object(self._http.post(path, files=files))

    def verify(
        self,
        envelope: bytes,
        proof: bytes,
        weights: bytes | None = None,
        *,
        key: bytes | None = None,
        exact: bool = False,
    ) -> dict[str, Any]:
        """POST /v1/verifications: the verifier's report.

        Raises:
            ServiceError: the service refused. httpx.HTTPError: it could not be reached.
        """
        files: dict[str, Any] = {
            "certificate": (None, envelope, "application/json"),
            "proof": ("proof.safetensors", proof, "application/octet-stream"),
        }
        if weights is not None:
            files["weights"] = ("weights.safetensors", weights, "application/octet-stream")
        if key is not None:
            files["key"] = (None, key, "application/x-pem-file")
        if exact:
            files["exact"] = (None, "true", "text/plain")
        return self._object(self._http.post("/v1/verifications", files=files))

    def envelope(self, digest: str) -> bytes:
        """GET /v1/certificates/DIGEST: the certificate file.

        Raises:
            ServiceError: there is none.
        """
        return self._content(self._http.get(f"/v1/certificates/{digest}"))

    def proof(self, digest: str) -> bytes:
        """GET /v1/certificates/DIGEST/proof: the proof file.

        Raises:
            ServiceError: there is none.
        """
        return self._content(self._http.get(f"/v1/certificates/{digest}/proof"))

    def weights(self, digest: str) -> bytes:
        """GET /v1/certificates/DIGEST/weights: the weight file of a projection, or the couplings of an assembly.

        Raises:
            ServiceError: there is none.
        """
        return self._content(self._http.get(f"/v1/certificates/{digest}/weights"))

    def health(self) -> dict[str, Any]:
        """GET /healthz."""
        return self._object(self._http.get("/healthz"))

    def _object(self, response: httpx.Response) -> dict[str, Any]:
        self._content(response)
        answer: dict[str, Any] = response.json()
        return answer

    @staticmethod
    def _content(response: httpx.Response) -> bytes:
        if response.is_success:
            return response.content
        try:
            problem = response.json()
        except ValueError:
            problem = {"type": "about:blank", "detail": response.text[:500]}
        raise ServiceError(response.status_code, problem if isinstance(problem, dict) else {"detail": str(problem)})
