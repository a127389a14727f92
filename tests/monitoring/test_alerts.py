"""The alarms, as Prometheus' own tool reads and tries them."""

import re
import subprocess
from pathlib import Path

import yaml

from tests.monitoring.files import ALERTS, alerts
from tests.support import DOCUMENTS, ROOT, program

CASES = Path(__file__).with_name("alerts.yaml")


def _promtool(*arguments: str | Path) -> None:
    run = subprocess.run([program("promtool"), *arguments], capture_output=True, check=False, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_prometheus_takes_the_rules() -> None:
    _promtool("check", "rules", "--lint=all", "--lint-fatal", ALERTS)


def test_each_alarm_goes_off_when_it_should_and_not_at_zero_nor_after_a_restart() -> None:
    _promtool("test", "rules", CASES)


def test_no_alarm_is_left_untried() -> None:
    went_off = [
        re.findall('alertname="(.+?)"', sample["labels"])
        for case in yaml.safe_load(CASES.read_text())["tests"]
        for question in case["promql_expr_test"]
        for sample in question["exp_samples"]
    ]
    assert {name for names in went_off for name in names} == alerts().keys()


def test_the_documentation_lists_the_alarms() -> None:
    documentation = "".join(path.read_text() for path in DOCUMENTS)
    listed = re.findall(r"^\| `(Temperature\w+)` \| (\w+) \|", documentation, re.MULTILINE)
    assert dict(listed) == {name: alert["labels"]["severity"] for name, alert in alerts().items()}


def test_each_alarm_says_how_bad_it_is_what_it_means_and_what_to_do() -> None:
    for alert in alerts().values():
        assert alert["labels"]["severity"] in {"critical", "warning"}
        assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert re.fullmatch(r"docs/reliability\.md#[a-z-]+", alert["annotations"]["runbook_url"])


def test_each_alarm_has_its_section_in_the_runbook() -> None:
    for alert in alerts().values():
        document, anchor = alert["annotations"]["runbook_url"].split("#")
        headings = re.findall(r"^#+ (.+)$", (ROOT / document).read_text(), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
