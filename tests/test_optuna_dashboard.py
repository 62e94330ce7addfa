"""A study with the threshold sampler opens in optuna-dashboard."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import optuna_dashboard
import pytest

from orchestrator.optuna_sampler import ThresholdSampler
from tests.surface_study import journal, objective, study_of

optuna.logging.set_verbosity(optuna.logging.ERROR)


def get(app: Any, path: str) -> tuple[str, bytes]:
    """What the dashboard answers."""
    said: list[str] = []
    request = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
    }
    body = app(request, lambda status, headers, error=None: said.append(status))
    answer = b"".join(body)
    getattr(body, "close", lambda: None)()
    return said[0], answer


@pytest.mark.parametrize("place", ["sqlite", "journal"])
def test_the_dashboard_serves_the_study(place: str, tmp_path: Path) -> None:
    """Its page, its trials with parameters and values, and the thresholds that were put beside them."""
    storages: dict[str, Callable[[], Any]] = {
        "sqlite": lambda: f"sqlite:///{tmp_path / 'study.db'}",
        "journal": lambda: journal(tmp_path / "study.log"),
    }
    study = study_of(storages[place](), trials=6)
    study.optimize(objective)
    assert isinstance(study.sampler, ThresholdSampler)
    table = study.sampler.thresholds(study).to_dicts()
    study.set_user_attr("thresholds", table)
    app = optuna_dashboard.wsgi(storages[place]())
    status, page = get(app, "/dashboard")
    assert ("200 OK", True) == (status, b"<html" in page.lower())
    status, answer = get(app, f"/api/studies/{study._study_id}")
    served = json.loads(answer)
    assert ("200 OK", "s", ["maximize"]) == (status, served["name"], served["directions"])
    assert table == json.loads(served["user_attrs"][0]["value"])
    assert [trial.params for trial in study.trials] == [
        {param["name"]: int(param["param_external_value"]) for param in trial["params"]}
        for trial in served["trials"]
    ]
    assert [trial.values for trial in study.trials] == [trial["values"] for trial in served["trials"]]
    assert {"Complete"} == {trial["state"] for trial in served["trials"]}
