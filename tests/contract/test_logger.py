"""What every logger promises, built in or of a plug-in: it opens, records, and continues its own run."""

from __future__ import annotations

from pathlib import Path

import pytest

from decathlete.training.reporting.loggers import LOGGERS, LoggerContext

pytestmark = pytest.mark.parametrize("name", LOGGERS.names())


@pytest.mark.filterwarnings("ignore")
def test_it_records_and_resumes(name: str, tmp_path: Path) -> None:
    component = LOGGERS.resolve(name)
    if not component.cls.is_installed():
        pytest.skip(f"{name} is not installed")
    logger = LOGGERS.build(component.settings())
    context = LoggerContext(folder=tmp_path, run_name="3d fold_0", dataset="Task01_Two")
    opened, run_id = logger.open(context, None)
    logger.describe(opened, {"plan": {"batch_size": 2}, "config": {"epochs": 3}})
    opened.log_metrics({"loss/train": 0.5}, 3)
    opened.save()
    logger.close(opened, complete=False)
    assert any(tmp_path.rglob("*"))
    again, same = logger.open(LoggerContext(folder=tmp_path, run_name="3d fold_0", dataset="x", again_from=4), run_id)
    again.log_metrics({"loss/train": 0.4}, 4)
    logger.close(again, complete=True)
    assert same == run_id
