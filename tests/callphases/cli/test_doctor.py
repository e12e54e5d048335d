"""``callphases doctor``: its lines and exit codes; the checks are tested in inspection/."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from commands import Run
from doubles import KEY, Speech, Store, answer


@pytest.mark.integration
def test_doctor_prints_a_line_per_check_and_exits_with_0(
    run: Run, aws: Store, services: Speech, pipeline_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without arguments the files of this folder are checked.
    monkeypatch.setenv("CALLPHASES_PIPELINES", str(pipeline_file.parent))
    missing = answer({"error": "audio_url is required"}, 400)
    services.refuse = lambda request: missing if request.method == "POST" else None
    code, out, err = run("doctor")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "✓ pipeline support: Its file is valid."
    assert lines[1] == f"✓ speech service: {services.web.url} answers and accepts the key."
    assert all(line.startswith(("✓ ", "– ")) for line in lines)
    assert "– table phases: No day is published yet." in lines
    assert aws.keys() == []


@pytest.mark.integration
def test_doctor_exits_with_1_if_any_finding_is_bad(run: Run, aws: Store, services: Speech, pipeline_file: Path) -> None:
    aws.tables.put("calls/a [red].txt", b"")
    wrong = pipeline_file.with_name("wrong.yaml")
    wrong.write_text("pipeline: [x")
    services.refuse = lambda request: answer({"error": "Authentication error, API token missing/invalid"}, 401)
    code, out, _ = run("doctor", pipeline_file, wrong)
    assert code == 1
    bad = [line.partition(": ")[0] for line in out.splitlines() if line.startswith("✗")]
    assert bad == ["✗ pipeline file", "✗ speech service", f"✗ {aws.tables.uri}"]
    assert "a [red].txt" in out
    assert KEY not in out


@pytest.mark.integration
def test_doctor_checks_the_store_without_an_api_key(
    run: Run, aws: Store, pipeline_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("callphases.airflow", "callphases.airflow.hook"):
        monkeypatch.setitem(sys.modules, name, None)
    code, out, _ = run("doctor", pipeline_file)
    assert code == 1
    assert "✗ connection assemblyai: Set ASSEMBLYAI_API_KEY, or install Airflow" in out
    assert f"✓ {aws.state.uri}: " in out


@pytest.mark.integration
@pytest.mark.parametrize(("tables", "is_mixed"), [("/", True), ("/inside/", True), ("-other/", False)])
def test_doctor_reports_pipelines_that_share_their_tables(
    run: Run, aws: Store, services: Speech, pipeline_file: Path, tables: str, is_mixed: bool
) -> None:
    document = yaml.safe_load(pipeline_file.read_text())
    name, document["pipeline"] = document["pipeline"], "other"
    document["output"]["tables"] = document["output"]["tables"].rstrip("/") + tables
    (other := pipeline_file.with_name("other.yaml")).write_text(yaml.safe_dump(document))
    _, out, _ = run("doctor", pipeline_file, other)
    assert (f"✗ pipeline other: {name} publishes below" in out) is is_mixed


def test_doctor_reports_a_folder_without_pipeline_files(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLPHASES_PIPELINES", str(tmp_path))
    code, out, _ = run("doctor")
    assert code == 1
    assert "has no pipeline file" in out
