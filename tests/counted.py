"""What the metrics of a function count."""

from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient


class Counted:
    """What a function counts from now on; one process counts for all tests."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.before = self.now()

    def now(self) -> dict[str, float]:
        response = self.client.get("/metrics")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/plain; version=")
        samples: Any = [family.samples for family in text_string_to_metric_families(response.text)]
        return {
            # For Prometheus, an empty label is none.
            f"{sample.name}{sorted(filter(None, sample.labels.values()))}": sample.value
            for family in samples
            for sample in family
        }

    def __call__(self, name: str, *labels: str) -> float:
        key = f"{name}{sorted(labels)}"
        return self.now().get(key, 0) - self.before.get(key, 0)
