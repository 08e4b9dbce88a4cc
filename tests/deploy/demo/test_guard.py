"""Requests that are not of our page, or too large, or hostile; and what the log says."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from demo_tools import HOME, make_client, make_service, open_file, save_still, segment
from starlette.testclient import TestClient

from propl_monai.deploy.demo import app as app_module
from propl_monai.deploy.demo.app import make_app
from propl_monai.deploy.demo.service import Service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return make_service(tmp_path_factory.mktemp("service"))


@pytest.fixture(scope="module")
def client(service: Service) -> TestClient:
    return make_client(service)


OURS = [
    {},
    {"origin": HOME},
    {"origin": HOME, "sec-fetch-site": "same-origin"},
    {"host": "localhost:8737", "origin": "http://localhost:8737"},
    {"host": "localhost"},
    {"host": "192.168.0.7:8737"},
    {"host": "[::1]:8737", "origin": "http://[::1]:8737"},
    {"host": "workstation:8737"},
]
FOREIGN = [
    {"host": "evil.example:8737"},
    {"host": "evil.example:8737", "origin": "http://evil.example:8737"},  # DNS rebinding
    {"host": "127.0.0.1.evil.example"},
    {"host": ""},
    {"host": "[::1"},
    {"origin": "http://evil.example"},
    {"origin": "http://127.0.0.1:9999"},  # another server of this machine
    {"origin": "null"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
]


@pytest.mark.parametrize("headers", OURS)
def test_our_page_is_answered(service: Service, headers: dict[str, str]) -> None:
    client = TestClient(make_app(service, frozenset({"workstation"})), base_url=HOME)
    assert client.get("/about", headers=headers).status_code == 200


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize(("method", "path"), [("GET", "/about"), ("POST", "/studies"), ("GET", "/")])
def test_other_pages_are_refused(client: TestClient, method: str, path: str, headers: dict[str, str]) -> None:
    answer = client.request(method, path, headers=headers)
    assert answer.status_code == 403 and answer.json()["cure"] == "open the address that `propl demo` printed"


def test_a_link_from_elsewhere_leads_to_the_page_alone(client: TestClient) -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/", headers=link).status_code == 200
    assert client.get("/about", headers=link).status_code == 403
    assert client.post("/", headers=link).status_code == 403


def test_every_answer_says_what_it_may_be_used_for(client: TestClient) -> None:
    for path in ("/", "/page.js", "/about", "/nowhere"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert headers["cache-control"] == "no-store" and headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("stated", [True, False])
def test_large_uploads_are_refused(client: TestClient, monkeypatch: pytest.MonkeyPatch, stated: bool) -> None:
    monkeypatch.setattr(app_module, "MOST_UPLOAD", 1_000_000)
    content = b"\0" * 1_000_001
    answer = client.post("/studies", content=content if stated else iter([content[:600_000], content[600_000:]]))
    assert answer.status_code == 413 and answer.json()["fact"] == "has more than 1 MB"
    assert client.post("/studies", content=b"\0" * 1_000_000).status_code == 400  # decoded, and refused as no picture


def test_other_requests_are_smaller(client: TestClient, tmp_path: Path) -> None:
    key = open_file(client, save_still(tmp_path / "a.png"))["study"]
    assert client.put(f"/studies/{key}/masks/TN/1", content=b"\0" * 4_000_001).status_code == 413


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"text": "FH"}',
        b'{"text": 1, "number": 1, "uncertainty": false, "spacing": ""}',
        b"[" * 99_999,
    ],
)
def test_what_is_not_sent_by_our_page_is_refused(client: TestClient, tmp_path: Path, content: bytes) -> None:
    key = open_file(client, save_still(tmp_path / "a.png"))["study"]
    answer = client.post(f"/studies/{key}/segment", content=content)
    assert answer.status_code == 400 and answer.json()["fact"] == "does not hold what is needed"


@pytest.mark.parametrize("number", [0, -1, 2, 10**30])
def test_frames_that_are_not_there(client: TestClient, tmp_path: Path, number: int) -> None:
    key = open_file(client, save_still(tmp_path / "a.png"))["study"]
    assert segment(client, key, "FH", number).status_code == 400
    assert client.get(f"/studies/{key}/frames/{number}").status_code in (400, 404)


def test_the_log_names_neither_file_nor_message(
    service: Service,
    client: TestClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("Zyxwv^Quentin")

    key = open_file(client, save_still(tmp_path / "a.png"), "Zyxwv.png")["study"]
    monkeypatch.setattr(service.predictor, "answer", fail)
    with caplog.at_level(logging.DEBUG, logger="propl_monai"):
        answer = segment(client, key, "FH")
        client.post("/studies", content=b"PK\x03\x04", headers={"x-file-name": "Zyxwv.png"})
    assert answer.status_code == 500 and answer.json()["fact"] == "failed inside (RuntimeError)"
    assert "RuntimeError in test_guard, line" in caplog.text
    assert "Zyxwv" not in caplog.text and "Zyxwv" not in answer.text
