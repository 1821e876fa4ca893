"""What is generated from the settings: the files in the tree are up to date, and the documents hold."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from pop3gw import config, reference
from pop3gw.logline import summary_fields
from pop3gw.proto.events import Ending, Side, Summary
from pop3gw.settings import SETTINGS, Config, Section, of_section

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "man").glob("*.[578]"))


def test_the_sample_in_the_tree_is_what_the_settings_say() -> None:
    """Where it differs: python -m pop3gw.reference."""
    assert (ROOT / "etc" / "pop3gw.conf").read_text(encoding="utf-8") == reference.sample()


def test_the_manual_in_the_tree_is_what_the_settings_say() -> None:
    """Where it differs: python -m pop3gw.reference."""
    page = (ROOT / "man" / "pop3gw.conf.5").read_text(encoding="utf-8")
    assert reference.manual() in page
    assert page == reference.with_manual(page)


def load(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "pop3gw.conf"
    file.write_text(text, encoding="utf-8")
    return config.load(str(file), foreground=False)


def test_the_sample_is_a_configuration_of_defaults(tmp_path: Path) -> None:
    loaded = load(tmp_path, reference.sample())
    (service,) = loaded.services
    for item in SETTINGS:
        if not item.required:
            holder = loaded if item.row.section is Section.MAIN else service
            assert getattr(holder, item.key) == item.default


def test_what_the_sample_has_commented_out_can_be_switched_on(tmp_path: Path) -> None:
    names = "|".join(item.key for item in SETTINGS if not item.row.default_text and item.key != "policy_path")
    text = re.sub(rf"^( *)# (?=({names}) = )", r"\1", reference.sample(), flags=re.MULTILINE)
    assert text.count("\n# ") < reference.sample().count("\n# ")
    assert load(tmp_path, text) == load(tmp_path, reference.sample())


def test_every_setting_is_in_sample_and_manual() -> None:
    for item in SETTINGS:
        assert re.search(rf"^ *(# )?{item.key} = ", reference.sample(), re.MULTILINE)
        assert f"\n.It Ic {item.key}\n" in reference.manual()


def test_the_manual_names_every_fact_of_a_session_that_has_ended() -> None:
    page = (ROOT / "man" / "pop3gw.8").read_text(encoding="utf-8")
    facts = summary_fields(Summary("c", "s", "u", "l", 0, 0, 0, 0, 0, Ending.QUIT, Side.CLIENT, "TLSv1.3", "TLSv1.3"))
    assert [name for name in facts if f"{name}=" not in page and f".Ic {name}\n" not in page] == []


@pytest.mark.parametrize("ending", Ending)
def test_the_manual_names_every_end_of_a_session(ending: Ending) -> None:
    assert re.search(rf"^\.Cm {ending}( ,)?$", (ROOT / "man" / "pop3gw.8").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_manual_page_is_clean(page: Path) -> None:
    lint = subprocess.run(["mandoc", "-Tlint", str(page)], capture_output=True, text=True, timeout=30)
    # Whether the pages that it refers to are installed is no matter of the page.
    complaints = [line for line in lint.stdout.splitlines() if "referenced manual not found" not in line]
    assert complaints == []
    man = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(page)],
        capture_output=True,
        text=True,
        timeout=30,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "80"},
    )
    assert (man.returncode, man.stderr) == (0, "")


def test_a_dump_is_a_configuration_that_means_the_same(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        """\
[main]
pid_file = "/run/with space, comma#.pid"
[workers]
max_spare = 3
[services]
  [[one]]
  listen = 127.0.0.1:1110, "[::1]:1110"
  server = "[2001:db8::1]:110"
  [[two]]
  listen = 127.0.0.1:1111
  server = mail.example.com:110
  max_spare = 4
""",
    )
    text = reference.dump(loaded)
    file = tmp_path / "pop3gw.conf"
    assert f"\n  max_spare = 3 # [workers] {file}:4\n" in text
    assert f"\n  max_spare = 4 # {file}:12\n" in text
    assert "\n  max_workers = 256 # default\n" in text
    assert f'\npid_file = "/run/with space, comma#.pid" # {file}:2\n' in text
    assert "\n# user: not set # default" in text
    again = load(tmp_path, text.replace("policy_path = /etc/pop3gw/policies", "policy_path = ."))
    assert (again.services, again.pid_file) == (loaded.services, loaded.pid_file)


def test_the_order_is_that_of_the_declaration() -> None:
    keys = [item.key for section in Section for item in of_section(section)]
    assert re.findall(r"^ *(?:# )?([a-z_]+) = ", reference.sample(), re.MULTILINE) == keys
