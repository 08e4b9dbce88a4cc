"""The verb: where it listens, what it says, and that nothing is left when it ends."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from demo_tools import save_still
from factories import ROOT, small_predictor, write_small_bundle

from propl_monai.deploy.demo import serving
from propl_monai.errors import ProPLError


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said, by a server that ends at once."""
    lines: list[str] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: lines.append("served"))
    monkeypatch.setattr(serving.webbrowser, "open", lambda address: lines.append(f"opened {address}"))
    return lines


def test_this_machine_alone(said: list[str]) -> None:
    serving.serve(small_predictor(), "127.0.0.1", 0, True, said.append, said.append)
    address = said[0].split()[0]
    assert address.startswith("http://127.0.0.1:") and said[1:] == [f"opened {address}", "served"]


def test_other_machines_after_a_warning(said: list[str]) -> None:
    serving.serve(small_predictor(), "0.0.0.0", 0, False, said.append, said.append)
    assert said[0].startswith("warning: other machines can reach this page. It has no password")
    assert f"//{socket.gethostname()}:" in said[1] and said[2] == "served"


@pytest.mark.parametrize(("host", "port"), [("no.such.name.invalid", 0), ("203.0.113.1", 0)])
def test_where_nothing_can_listen(said: list[str], host: str, port: int) -> None:
    with pytest.raises(ProPLError, match=r"cannot be listened at .*; give another --port"):
        serving.serve(small_predictor(), host, port, False, said.append, said.append)
    assert said == []


def test_a_port_that_is_taken(said: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ProPLError, match="Address already in use"):
        serving.serve(small_predictor(), "127.0.0.1", taken.getsockname()[1], False, said.append, said.append)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ProPLError, match=r"needs uvicorn; pip install 'propl-monai\[demo\]'"):
        serving.require_packages()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Any, int, Path]]:
    """The verb in a process of its own, its port, and the folder of its temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    weights = write_small_bundle(tmp_path / "bundle")
    command = [
        sys.executable,
        "-m",
        "propl_monai.cli",
        "demo",
        "--port",
        "0",
        "--weights",
        str(weights),
        "--device",
        "cpu",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            line = process.stdout.readline()
            yield process, urlsplit(line.split()[0]).port or 0, folder
        finally:
            process.kill()


def test_sigterm_leaves_no_file_and_no_word_of_one(running: tuple[Any, int, Path], tmp_path: Path) -> None:
    process, port, folder = running
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=100)
    content = save_still(tmp_path / "a.png").read_bytes()
    connection.request("POST", "/studies", content, {"x-file-name": "Zyxwv.png"})
    answer = connection.getresponse()
    assert answer.status == 200 and b"Zyxwv.png" in answer.read()
    (own,) = folder.iterdir()
    assert list(own.iterdir()) == []  # the file was there only while it was decoded
    half = http.client.HTTPConnection("127.0.0.1", port, timeout=100)  # an upload in the middle
    half.putrequest("POST", "/studies")
    half.putheader("content-length", "1000")
    half.endheaders(content[:100])
    threading.Timer(0.2, process.send_signal, [signal.SIGTERM]).start()
    rest = process.stdout.read()
    assert process.wait(60) in (128 + signal.SIGTERM, -signal.SIGTERM)
    assert list(folder.iterdir()) == []
    assert "Zyxwv" not in rest and "Traceback" not in rest
