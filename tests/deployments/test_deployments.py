"""The deployments on a real server with a real worker: a scheduled run appears, one on demand completes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.shell import Shell
from tests.prefect_server import poll, standing_server
from tests.worker.test_worker import faulty_spec
from wan22core.recipes import RECIPES
from wan22core.specs import Weights
from wan22core.worker.processes import kill_group, spawn

ROOT = Path(__file__).resolve().parents[2]
PREFECT = Path(sys.executable).with_name("prefect")


class Prefect:
    """A server, its worker and the command line, in an environment of their own."""

    def __init__(self, folder: Path, weights: Path, environment: dict[str, str]) -> None:
        self.url = environment["PREFECT_API_URL"]
        self.shell = Shell(folder / "data")
        self.weights = weights
        self.environment = {**environment, "WAN22_HOME": str(ROOT), "WAN22_DATA_DIR": str(folder / "data")}

    def command(self, *arguments: str) -> str:
        done = subprocess.run(
            [str(PREFECT), *arguments], capture_output=True, text=True, cwd=ROOT, env=self.environment, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def api(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """A server says 503 while its SQLite is locked; Prefect's own client then asks again, and so do we."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, {"Content-Type": "application/json"})
        until = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return json.loads(answer.read())
            except urllib.error.HTTPError as error:
                if error.code != 503 or time.monotonic() > until:
                    raise
                time.sleep(0.5)


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[Prefect]:
    folder = tmp_path_factory.mktemp("prefect")
    with standing_server(folder) as environment, (folder / "worker.log").open("ab") as log:
        prefect = Prefect(folder, tiny_checkpoint, environment)
        prefect.command("work-pool", "create", "gpu", "--type", "process")
        prefect.command("--no-prompt", "deploy", "--all", "--prefect-file", "deployments/prefect.yaml")
        worker = spawn(
            [str(PREFECT), "worker", "start", "--pool", "gpu", "--limit", "1"], prefect.environment, log, pipes=False
        )
        try:
            yield prefect
        finally:
            kill_group(worker)


@pytest.mark.timeout(240)
def test_the_nightly_run_is_scheduled(prefect: Prefect) -> None:
    """The server itself creates runs from the cron schedule, in the deployment's time zone."""
    nightly = prefect.api("/deployments/name/benchmark/nightly")
    assert nightly["schedules"][0]["schedule"]["cron"] == "30 2 * * *"

    def scheduled() -> list[dict[str, Any]]:
        runs: list[dict[str, Any]] = prefect.api(
            "/flow_runs/filter", {"deployments": {"id": {"any_": [nightly["id"]]}}}
        )
        return [run for run in runs if run["auto_scheduled"]]

    assert poll(scheduled, 90)[0]["state_type"] == "SCHEDULED"


@pytest.mark.timeout(240)
def test_the_form_offers_what_there_is(prefect: Prefect) -> None:
    """The UI's form has the workloads and recipes as choices, and limits on numbers."""
    schema = prefect.api("/deployments/name/benchmark/on-demand")["parameter_openapi_schema"]
    definitions = schema["definitions"]
    assert "2s-720p" in definitions["WorkloadName"]["enum"]
    assert definitions["RecipeName"]["enum"] == list(RECIPES)
    assert definitions["BenchmarkRequest"]["properties"]["repeats"]["minimum"] == 1


@pytest.mark.timeout(240)
def test_a_run_on_demand_completes(prefect: Prefect) -> None:
    """The worker picks it up; its state is named by the verdict, and the report is an artifact."""
    deployment = prefect.api("/deployments/name/benchmark/on-demand")
    asked = {"model": str(prefect.weights), "workload": "smoke", "frames": 5, "steps": 1, "repeats": 1, "warmups": 0}
    run = prefect.api(f"/deployments/{deployment['id']}/create_flow_run", {"parameters": {"request": asked}})

    def ended() -> dict[str, Any] | None:
        state: dict[str, Any] = prefect.api(f"/flow_runs/{run['id']}")["state"]
        return state if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

    state = poll(ended, 180)
    assert state is not None
    assert (state["type"], state["name"]) == ("COMPLETED", "NotMeasured"), state["message"]
    artifacts = prefect.api("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
    assert {artifact["key"] for artifact in artifacts} == {"targets", "report", "report-file", "progress"}
    assert [artifact["data"] for artifact in artifacts if artifact["key"] == "progress"] == [100.0]


@pytest.mark.timeout(240)
def test_a_cancelled_run_leaves_no_worker_process(prefect: Prefect) -> None:
    """Cancelled in the UI while the model's process hangs in a C call: the run ends, and that process with it."""
    spec = faulty_spec("hang:encode", repeats=1).model_copy(update={"weights": Weights(model=str(prefect.weights))})
    deployment = prefect.api("/deployments/name/benchmark/on-demand")
    asked = {"request": {"spec": spec.model_dump(mode="json")}}
    run = prefect.api(f"/deployments/{deployment['id']}/create_flow_run", {"parameters": asked})

    def encoding() -> bool:
        tasks = prefect.api("/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
        return any(task["name"].startswith("generate-video") and task["state_type"] == "RUNNING" for task in tasks)

    poll(encoding, 120)
    assert prefect.shell.processes_with("wan22core.worker.server") != []
    prefect.api(f"/flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    poll(lambda: prefect.api(f"/flow_runs/{run['id']}")["state"]["type"] == "CANCELLED", 60)
    poll(lambda: prefect.shell.processes_with("wan22core.worker.server") == [], 1)
