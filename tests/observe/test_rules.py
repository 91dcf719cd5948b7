"""promtool says that what is in deploy/ is well-formed, and that alerts fire when they should and not otherwise."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from benchmarks.harness.report import REPOSITORY
from benchmarks.service.prometheus import DEPLOY, RULES

CASES = Path(__file__).with_name("alerts.test.yml")
OPERATIONS = REPOSITORY / "docs" / "operations.md"


def promtool(*arguments: str) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("there is no `promtool`: tests/install_packages.sh installs Debian's `prometheus`")
    run = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr


def alerts() -> list[dict[str, dict[str, str]]]:
    return [rule for group in yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"] for rule in group["rules"]]


def names() -> list[str]:
    return [str(alert["alert"]) for alert in alerts()]


def test_the_configuration_is_well_formed() -> None:
    promtool("check", "config", str(DEPLOY / "prometheus.yml"))


@pytest.mark.parametrize("file", RULES)
def test_the_rules_are_well_formed(file: str) -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", str(DEPLOY / file))


def test_alerts_fire_when_they_should() -> None:
    promtool("test", "rules", str(CASES))


def test_every_alert_is_among_those_that_are_tried() -> None:
    tried = CASES.read_text()
    assert [name for name in names() if f'"{name}"' not in tried and f"alertname: {name}" not in tried] == []


@pytest.mark.parametrize("alert", alerts(), ids=names())
def test_an_alert_says_what_to_do(alert: dict[str, dict[str, str]]) -> None:
    name = str(alert["alert"])
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["runbook"].endswith(f". docs/operations.md#{name.lower()}")


def test_the_guide_has_every_alert_and_no_other() -> None:
    text = OPERATIONS.read_text()
    section = text[text.index("\n## Alarm by alarm") :]
    section = section[: section.find("\n## ", 1)] if "\n## " in section[1:] else section
    assert re.findall(r"^### (\w+)$", section, re.MULTILINE) == names()
