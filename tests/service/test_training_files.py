"""Trainings on files of the archives and on IDX files: read in the solver process, errors named by file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from certes import uploads
from certes.errors import InputError, TooLargeError
from certes.sequences import read_data
from certes.uploads import File, packed, unpacked
from certes.weights import Limits
from certes_service.questions import trainings

from tests.service.test_trainings import ARCHITECTURE, arrays, npz, wait_until

HEAD = "@problemName Toy\n@timestamps false\n@classLabel true up down\n@data\n"
MOST = Limits(file_bytes=10**6)


def ts(count: int = 40, seed: int = 0, head: str = HEAD) -> bytes:
    """Up or down, in two dimensions and several lengths."""
    random, lines = np.random.default_rng(seed), []
    for k in range(count):
        steps = np.linspace(-1, 1, int(random.integers(5, 9))) * (1 if k % 2 else -1)
        shown = [",".join(f"{value:.4f}" for value in steps + 0.1 * random.standard_normal(len(steps))) for _ in "ab"]
        lines.append(":".join([*shown, "up" if k % 2 else "down"]))
    return (head + "\n".join(lines) + "\n").encode()


def idx(array: Any) -> bytes:
    values = np.asarray(array, dtype=np.uint8)
    return bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.tobytes()


def pictures(count: int = 40, seed: int = 0) -> tuple[bytes, bytes]:
    """Bright above, or bright below."""
    random, labels = np.random.default_rng(seed), np.arange(count) % 2
    pixels = random.integers(0, 60, (count, 4, 3))
    pixels[labels == 0, :2] += 150
    pixels[labels == 1, 2:] += 150
    return idx(pixels), idx(labels)


def post(http: httpx.Client, files: dict[str, tuple[str, bytes]], headers: Any = None, **spec: Any) -> httpx.Response:
    plan = {"epochs": 2, "batch": 16, **spec.pop("plan", {})}
    asked = {"architecture": ARCHITECTURE, "plan": plan, **spec}
    return http.post(
        "/v1/trainings", files=files, data={"spec": json.dumps(asked)}, headers=headers or {"Prefer": "wait=60"}
    )


# --- over HTTP


@pytest.mark.slow
def test_a_file_of_the_archives(http: httpx.Client) -> None:
    alone = post(http, {"data": ("Toy_TRAIN.ts", ts())})
    assert alone.status_code == 200, alone.text
    both = post(http, {"data": ("Toy_TRAIN.ts", ts()), "test": ("Toy_TEST.ts", ts(20, 1))})
    assert both.status_code == 200, both.text
    assert both.json()["task"] == alone.json()["task"] == "classification"
    assert both.json()["certificate"]["digest"] != alone.json()["certificate"]["digest"], "nothing was held out"


@pytest.mark.slow
def test_images(http: httpx.Client) -> None:
    shown, said = pictures()
    test = dict(zip(("test", "test_labels"), (("t", data) for data in pictures(20, 1)), strict=True))
    files = {"data": ("images.gz", gzip.compress(shown)), "labels": ("labels", said), **test}
    rows = post(http, files, plan={"jitter": 1})
    assert rows.status_code == 200, rows.text
    weights = post(http, files, order="pixels").json()
    assert weights["states"] == rows.json()["states"]
    assert weights["parameters"] < rows.json()["parameters"], "one feature, not three"
    assert post(http, files, order="permuted").status_code == 200


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"data": ("a.ts", ts() + b"1,2:3:up\n")}, "a.ts, line 45: "),
        ({"data": ("a.ts", ts() + b"1,2:3,4:left\n")}, "a.ts, line 45: class 'left'"),
        ({"data": ("a.ts", ts() + b"1,inf:3,4:up\n")}, "a.ts, line 45: "),
        ({"data": ("a.ts", ts()), "test": ("b.ts", ts(3, 1) + b"nothing\n")}, "b.ts, line 8: "),
        ({"data": ("a.ts", b"@problemName x\n")}, "a.ts without @data"),
        ({"data": ("a.ts", HEAD.encode())}, "a.ts: 0 series"),
        ({"data": ("i", idx(np.zeros((4, 2, 2)))[:-1]), "labels": ("l", idx([0, 1, 0, 1]))}, "i: 15 bytes for shape"),
        ({"data": ("i.gz", gzip.compress(b"no")), "labels": ("l", idx([0, 1]))}, "i.gz with other first bytes"),
        ({"data": ("i.gz", gzip.compress(bytes(99))[:-9]), "labels": ("l", idx([0]))}, "i.gz: "),
        ({"data": ("i", idx(np.zeros((4, 2, 2)))), "labels": ("l", idx([0, 1, 0]))}, "data.labels"),
        ({"data": ("i", idx(np.zeros((4, 2, 2)))), "labels": ("l", idx(np.zeros((4, 1))))}, "l with other first bytes"),
    ],
)
def test_what_is_wrong_fails_the_job_and_is_named(http: httpx.Client, files: Any, said: str) -> None:
    response = post(http, files)
    assert response.status_code == 422, response.text
    assert said in response.json()["detail"]
    assert response.headers["content-location"].startswith("/v1/jobs/"), "it was a job: the solver read the file"
    job = http.get(response.headers["content-location"]).json()
    assert (job["state"], job["error"]["detail"]) == ("failed", response.json()["detail"])


@pytest.mark.parametrize(
    ("files", "spec", "field"),
    [
        ({"data": ("a.ts", ts()), "test": ("b.npz", npz(**arrays()))}, {}, "test"),
        ({"data": ("a.npz", npz(**arrays())), "test": ("b.ts", ts())}, {}, "test"),
        ({"data": ("a.ts", ts()), "labels": ("l", idx([0]))}, {}, "labels"),
        ({"data": ("i", pictures()[0])}, {}, "labels"),
        ({"data": ("i", pictures()[0]), "labels": ("l", pictures()[1]), "test": ("t", pictures()[0])}, {},
         "test_labels"),
        ({"data": ("i", pictures()[0]), "labels": ("l", pictures()[1]), "test_labels": ("t", idx([0]))}, {}, "test"),
        ({"data": ("a.ts", ts())}, {"plan": {"jitter": 1}}, "spec.plan.jitter"),
        ({"data": ("i", pictures()[0]), "labels": ("l", pictures()[1])}, {"plan": {"jitter": 1}, "order": "permuted"},
         "spec.plan.jitter"),
        ({"data": ("a.ts", ts())}, {"order": "columns"}, "spec.order"),
        ({"test": ("a.ts", ts())}, {}, "data"),
        ({"data": ("a.txt", b"nothing of the sort")}, {}, "data"),
    ],
)  # fmt: skip
def test_what_does_not_belong_together_is_said_before_a_job(
    http: httpx.Client, files: Any, spec: dict[str, Any], field: str
) -> None:
    response = post(http, files, **spec)
    assert response.status_code == 422, response.text
    assert response.json()["field"] == field
    assert "content-location" not in response.headers


@pytest.mark.slow
def test_the_page_takes_them(http: httpx.Client) -> None:
    spec = json.dumps({"architecture": ARCHITECTURE, "plan": {"epochs": 1}})
    response = http.post("/ask", files={"weights": ("Toy.ts", ts(seed=5))}, data={"what": "training", "spec": spec})
    assert response.status_code == 303
    job = response.headers["location"].removeprefix("/jobs/")
    wait_until(lambda: http.get(f"/v1/jobs/{job}").json()["state"] == "done")


# --- as the library reads them


def test_the_same_sequences_as_from_a_folder(tmp_path: Any) -> None:
    (tmp_path / "Toy_TRAIN.ts").write_bytes(ts())
    (tmp_path / "Toy_TEST.ts").write_bytes(ts(20, 1))
    there = read_data(tmp_path / "Toy_TRAIN.ts")
    files = {"data": File("a.ts", ts()), "test": File("b.ts", b"\xef\xbb\xbf" + ts(20, 1))}
    assert uploads.read(packed(files), MOST).digest == there.digest
    shown, said = pictures()
    (tmp_path / "train-images-idx3-ubyte").write_bytes(shown)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(said)
    for order in ("rows", "pixels", "permuted"):
        here = uploads.read(packed({"data": File("i", gzip.compress(shown)), "labels": File("l", said)}), MOST,
                            order=order)  # fmt: skip
        assert here.digest == read_data(f"mnist-{order}:{tmp_path}").digest
        assert here.train.image == (None if order == "permuted" else (4, 3))


@pytest.mark.parametrize("source", ["F/Toy_TRAIN.ts", "F/Toy_TEST.ts", "mnist-rows:F", "mnist-permuted:F/one"])
def test_the_files_of_a_data_set_are_found_as_they_are_read(source: str, tmp_path: Path) -> None:
    (tmp_path / "Toy_TRAIN.ts").write_bytes(ts())
    (tmp_path / "Toy_TEST.ts").write_bytes(ts(20, 1))
    (tmp_path / "one").mkdir()
    for part, seed in (("train", 0), ("t10k", 1), ("one/any", 2)):
        shown, said = pictures(seed=seed)
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(shown))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(said))
    given = source.replace("F", str(tmp_path), 1)
    files, order = uploads.parts(given)
    sent = packed({part: File(path.name, path.read_bytes()) for part, path in files.items()})
    assert uploads.read(sent, MOST, order=order or "rows").digest == read_data(given).digest
    with pytest.raises(InputError):
        uploads.parts(f"digits:{tmp_path}")


def test_sizes_are_bounded_unpacked_and_padded() -> None:
    bomb = gzip.compress(bytes([0, 0, 8, 3]) + bytes(10**7))
    assert len(bomb) < 10**5
    with pytest.raises(TooLargeError):
        uploads.read(packed({"data": File("i.gz", bomb), "labels": File("l", idx([0]))}), MOST)
    wide = HEAD.encode() + b"".join(b"1:1:up\n" for _ in range(2000)) + b",".join([b"1"] * 2000) * 1 + b":"
    wide += b",".join([b"1"] * 2000) + b":up\n"
    with pytest.raises(TooLargeError, match="as long as the longest"):
        uploads.read(wide, MOST, name="wide.ts")


def test_a_file_with_tensors_of_such_names_is_a_file_with_tensors() -> None:
    """What is uploaded as one file is never taken for several, unless it is what we would make of several."""
    data = packed({"data": File("a.ts", ts()), "test": File("b.ts", ts(9, 1))})
    assert set(unpacked(data, "x")) == {"data", "test"}
    for other in (npz(**arrays()), b"", b"\x00" * 8, ts()):
        assert set(unpacked(other, "x")) == {"data"}
    with pytest.raises(InputError) as caught:
        unpacked(data[:-1], "x")
    assert caught.value.field == "data"


def test_a_queued_job_of_an_earlier_version_is_read() -> None:
    question = trainings.question({"architecture": ARCHITECTURE}, b"", "x")
    parts = question.parts()
    del parts["options"]["order"]
    assert trainings.TrainingQuestion.rebuild(parts, b"", "x") == question
