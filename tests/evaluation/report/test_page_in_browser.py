"""The report in a real browser, headless Chromium: nothing runs, nothing overflows, and it can be used by keyboard.

`apt-get install chromium` gives the browser; without it these tests are skipped.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from report_samples import make_run

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
PHONE, LAPTOP = 375, 1280
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]
# Runs inside the page and tells the window around it what it saw; the page's own policy forbids every script, so this one
# is let in by name.
PROBE = """
const seen = {title: document.title, overflow: document.documentElement.scrollWidth - window.innerWidth, width: innerWidth};
seen.images = [...document.images].map(one => one.complete && one.naturalWidth > 0 && one.getBoundingClientRect().width > 0);
seen.letters = [...document.querySelectorAll('svg')].filter(one => one.getBoundingClientRect().width > 0)
  .map(one => one.getBoundingClientRect().width / one.viewBox.baseVal.width);
seen.columns = getComputedStyle(document.querySelector('.pictures')).gridTemplateColumns.split(' ').length;
const stops = [...document.querySelectorAll('a[href], summary, [tabindex="0"]')]
  .filter(one => one.tagName == 'SUMMARY' || !one.closest('details'));  // what lies in a closed part cannot be reached
seen.stops = stops.map(one => {
  one.focus();
  const box = one.getBoundingClientRect();
  return [one.tagName, document.activeElement === one, getComputedStyle(one).outlineStyle, box.bottom > 0];
});
seen.closed = [...document.querySelectorAll('details')].map(one => one.open);
document.querySelectorAll('summary').forEach(one => one.click());
seen.opened = [...document.querySelectorAll('details')].map(one => one.open);
seen.overflowOpened = document.documentElement.scrollWidth - window.innerWidth;
parent.postMessage(JSON.stringify(seen), '*');
"""


def chromium(folder: Path, *arguments: str) -> str:
    """What a headless Chromium with a profile of its own prints."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={folder / 'profile'}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def page(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from propl_monai.evaluation.report.write import write_report

    folder = tmp_path_factory.mktemp("report")
    return write_report(make_run(folder / "run", phantoms), folder / "report.html", data=phantoms)[0]


def looked_at(page: Path, width: int, folder: Path) -> dict[str, Any]:
    """What the probe sees in a frame of some width: Chromium's own window cannot be as narrow as a phone."""
    text = page.read_text(encoding="utf-8")
    assert text.count("default-src 'none';") == text.count("</body>") == 1
    text = text.replace("default-src 'none';", "default-src 'none'; script-src 'nonce-probe';")
    text = text.replace(
        "</body>", f'<script nonce="probe">addEventListener("load", () => {{ {PROBE} }})</script></body>'
    )
    host = folder / "host.html"
    host.write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><pre id="seen"></pre><script>addEventListener("message", event => {{'
        'document.getElementById("seen").textContent = event.data; })</script>'
        f'<iframe style="border: 0" width="{width}" height="800" srcdoc="{html.escape(text)}"></iframe>',
        encoding="utf-8",
    )
    printed = chromium(folder, "--virtual-time-budget=15000", "--dump-dom", host.as_uri())
    found = re.search(r'<pre id="seen">(.*?)</pre>', printed, re.DOTALL)
    assert found and found[1], "the probe did not report"
    return json.loads(html.unescape(found[1]))


@pytest.mark.parametrize("width", [PHONE, LAPTOP])
def test_the_page_on_a_phone_and_on_a_laptop(page: Path, width: int, tmp_path: Path) -> None:
    seen = looked_at(page, width, tmp_path)
    assert seen["width"] == width
    assert seen["title"] == "ProPL report: run"  # planted scripts would have changed it
    assert seen["overflow"] <= 0 and seen["overflowOpened"] <= 0  # tables scroll by themselves
    assert len(seen["images"]) == 6 and all(seen["images"])
    assert len(seen["letters"]) == 6 and min(seen["letters"]) >= 0.9  # letters of 10 px stay 9 px or more
    assert seen["columns"] == (1 if width == PHONE else 3)
    assert seen["stops"][0][0] == "A" and len(seen["stops"]) >= 15
    assert [stop for stop in seen["stops"] if stop[1:] != [True, "solid", True]] == []
    assert not any(seen["closed"]) and all(seen["opened"]) and len(seen["opened"]) == 3


def test_the_page_is_drawn(page: Path, tmp_path: Path) -> None:
    from PIL import Image

    picture = tmp_path / "page.png"
    chromium(tmp_path, f"--window-size={LAPTOP},2000", f"--screenshot={picture}", page.as_uri())
    with Image.open(picture) as drawn:
        assert drawn.size == (LAPTOP, 2000)
        assert len(drawn.convert("RGB").getcolors(2**24)) > 200  # not one blank sheet


def test_the_page_in_print(page: Path, tmp_path: Path) -> None:
    printed = tmp_path / "page.pdf"
    chromium(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={printed}", page.as_uri())
    content = printed.read_bytes()
    assert content.startswith(b"%PDF-")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 20
