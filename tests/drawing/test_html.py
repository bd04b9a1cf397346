"""Scripts of pages: allowed by their hash alone; in a browser, if there is one, tables sort, search and filter."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from slpd_core.drawing.html import inline_scripts

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
TABLE = """<div class="scroll"><table class="explorable">
<thead><tr><th></th><th>Slide</th><th data-filter>State</th><th>Regions</th></tr></thead>
<tbody><tr><td></td><td>a10</td><td>used</td><td>1,200</td></tr>
<tr><td></td><td>a9</td><td data-value="quarantined">quarantined: torn</td><td>–</td></tr>
<tr><td></td><td>b1</td><td>used</td><td>90</td></tr>
<tr><td></td><td>b2</td><td data-value="">–</td><td data-value="7">seven</td></tr></tbody></table></div>"""


def hash_script(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


class Scripts(HTMLParser):
    """Texts of the scripts of a page, as a browser takes them."""

    def __init__(self, page):
        super().__init__()
        self.texts = []
        self.feed(page)

    def handle_data(self, data):
        if self.cdata_elem == "script":
            self.texts.append(data)


@pytest.mark.parametrize("names", [(), ("table.js",)], ids=str)
def test_the_policy_allows_the_scripts_and_no_other(names):
    values = inline_scripts(*names)
    texts = Scripts(values["scripts"]).texts
    assert len(texts) == len(names)
    rules = dict(rule.strip().split(" ", 1) for rule in values["policy"].split(";") if " " in rule.strip())
    assert rules["default-src"] == "'none'"
    assert values["policy"].partition("script-src")[2].split() == [hash_script(text) for text in texts]


# What is done to the table, one after the other, and the slides shown after it.
STEPS = [
    ("", "a10 a9 b1 b2", None),
    ("heads[0].click()", "a9 a10 b1 b2", "ascending"),  # numbers within names count as numbers
    ("heads[2].click()", "b2 b1 a10 a9", None),  # by data-value, else without commas; blanks last
    ("heads[2].click()", "a10 b1 b2 a9", None),
    ("set('input', 'A 1')", "a10", None),
    ("set('input', ''); set('select', '=used')", "a10 b1", None),
    ("set('select', '=')", "b2", None),
    ("set('select', ''); heads[0].click()", "a9 a10 b1 b2", "ascending"),
    ("heads[0].click()", "b2 b1 a10 a9", "descending"),
]
ACT = """const heads = document.querySelectorAll("th button"), said = [];
const set = (of, value) => { const at = document.querySelector(of); at.value = value; (at.oninput ?? at.onchange)(); };
const note = () => said.push([[...document.querySelectorAll("tbody tr:not([hidden])")].map((row) => row.cells[1]
  .textContent).join(" "), heads[0].parentElement.ariaSort, document.querySelector("output").value]);
%s
document.body.append(JSON.stringify(said), "END");"""


@pytest.mark.skipif(not BROWSER, reason="no browser")
def test_a_browser_sorts_searches_and_filters_without_a_word_on_its_console(tmp_path):
    values, act = inline_scripts("table.js"), ACT % "\n".join(f"{step}; note();" for step, _, _ in STEPS)
    policy = f"{values['policy']} {hash_script(act)}"
    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
    page = tmp_path / "page.html"
    page.write_text(f"<!DOCTYPE html>{head}{TABLE}{values['scripts']}<script>{act}</script>", encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0", "--dump-dom"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    done = subprocess.run([BROWSER, *flags, profile, page.as_uri()], capture_output=True, text=True, timeout=120)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    said = json.loads(re.search(r"</script>(\[\[.*\]\])END", done.stdout)[1])
    assert said == [[shown, sorted_by, f"{len(shown.split())} of 4"] for _, shown, sorted_by in STEPS]
