"""``callphases init``: files for buckets of all kinds, without a terminal; prompts; files that are there."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from callphases.pipeline import load
from callphases.starting.files import DAG
from commands import Run
from doubles import Store, Web, answer, phases_answer

pytestmark = pytest.mark.integration


@pytest.mark.usefixtures("services")
def test_init_writes_files_that_run(run: Run, aws: Store, models: Web, tmp_path: Path) -> None:
    models.respond = lambda request: (
        phases_answer(("Introduction", 1))
        if request.body and request.json["messages"]
        else answer({"error": "no"}, 400)
    )
    for key in ("20/091405-a.mp3", "20/101500-b.mp3", "19/120000-c.mp3"):
        aws.put(f"support/2026/11/{key}")
    aws.put("support/2026/11/20/091405-a.json")
    code, out, err = run("init", tmp_path, "--bucket", aws.recordings, "--yes", "--name", "support")
    assert code == 0
    file = tmp_path / "pipelines" / "support.yaml"
    assert out.splitlines() == [
        "support: recordings.prefix is 'support/{date:%Y/%m/%d}/'",
        "  support/2026/11/20/091405-a.mp3 → day 2026-11-20, 09:14:05 UTC",
        "  support/2026/11/20/101500-b.mp3 → day 2026-11-20, 10:15:00 UTC",
        "  support/2026/11/19/120000-c.mp3 → day 2026-11-19, 12:00:00 UTC",
        "  3 of 3 recordings that were looked at would be listed, on 2 days from 2026-11-19 to 2026-11-20.",
        f"Written: {tmp_path / 'call_phases.py'}",
        f"Written: {file}",
    ]
    assert f"callphases run {file} --date" in err
    assert (tmp_path / "call_phases.py").read_text() == DAG
    pipeline = load(file)
    assert pipeline.output.tables == f"s3://{aws.recordings}/call_phases/support/"
    assert pipeline.output.state == f"s3://{aws.recordings}/_callphases/support/"
    code, out, _ = run("plan", file, "--date", "2026-11-20")
    assert (code, out.splitlines()[0]) == (0, "2026-11-20: 2 recordings, 2 to do (0.0 MB), 0 done before")
    code, out, _ = run("run", file, "--date", "2026-11-20")
    assert (code, out.splitlines()[0]) == (0, "2026-11-20: 2 completed")


def test_each_tenant_has_a_pipeline_unless_it_is_named(run: Run, aws: Store, tmp_path: Path) -> None:
    for tenant in ("acme", "globex"):
        for name in ("20/091405-a.mp3", "21/101500-b.mp3"):
            aws.put(f"{tenant}/2026/11/{name}")
    code, _, err = run(
        "init", tmp_path / "a", "--bucket", aws.recordings, "-y", "--tables", "s3://warehouse/call_phases/"
    )
    assert code == 0
    assert "The dates are below 2 folders: acme/" in err
    pipelines = [load(path) for path in sorted((tmp_path / "a" / "pipelines").iterdir())]
    assert [one.recordings.prefix for one in pipelines] == ["acme/{date:%Y/%m/%d}/", "globex/{date:%Y/%m/%d}/"]
    assert len({one.output.tables for one in pipelines}) == 2
    code, out, _ = run("init", tmp_path / "b", "--bucket", aws.recordings, "-y", "--name", "all")
    (path,) = (tmp_path / "b" / "pipelines").iterdir()
    pipeline = load(path)
    assert (path.name, pipeline.recordings.prefix) == ("all.yaml", "")
    assert "4 of 4 recordings" in out
    assert "tenant=acme" in out


VENDORS = {
    "amazon_connect": (
        "connect/acme/CallRecordings/2026/11/20/c-{}_20261120T09:0{}_UTC.wav",
        "day 2026-11-20, 09:00:00",
    ),
    "genesys_cloud": (
        "org/year=2026/month=11/day=20/hour=9/conversation_id=c-{}/r-{}.opus",
        "day 2026-11-20, 09:00:00",
    ),
    "twilio": (f"rec/AC{'0' * 32}/RE{{}}{{:031}}", ", the upload"),
}


@pytest.mark.parametrize("vendor", VENDORS)
def test_layout_of_a_vendor_is_recognized(run: Run, aws: Store, tmp_path: Path, vendor: str) -> None:
    template, read = VENDORS[vendor]
    for number in range(3):
        aws.put(template.format(number, number))
        aws.put(f"{template.format(number, number)}_metadata.json")
    aws.put("notes.txt")
    code, out, err = run("init", tmp_path, "--bucket", aws.recordings, "--yes", "--name", "calls")
    assert code == 0
    assert f"3 of the keys are as {vendor} names recordings" in err
    assert read in out
    assert "3 of 3 recordings that were looked at would be listed" in out
    text = (tmp_path / "pipelines" / "calls.yaml").read_text()
    assert f"  layout: {vendor}\n" in text
    assert "prefix:" not in text
    assert load(tmp_path / "pipelines" / "calls.yaml").recordings.layout == vendor


def test_layout_below_a_prefix_keeps_the_prefix(run: Run, aws: Store, tmp_path: Path) -> None:
    aws.put(VENDORS["twilio"][0].format(1, 1))
    aws.put(VENDORS["amazon_connect"][0].format(1, 1))
    code, _, _ = run("init", tmp_path, "--bucket", aws.recordings, "-y", "--name", "t", "--prefix", "rec/")
    assert code == 0
    assert "  layout: twilio\n  prefix: rec/\n" in (tmp_path / "pipelines" / "t.yaml").read_text()
    code, out, _ = run("init", tmp_path, "--bucket", aws.recordings, "-y", "--name", "c", "--prefix", "connect/acme/")
    assert code == 0
    assert "c: recordings.prefix is 'connect/acme/CallRecordings/{date:%Y/%m/%d}/'" in out


def test_options_decide_without_questions(run: Run, aws: Store, tmp_path: Path) -> None:
    aws.put("x/agent-7/in/1763629445.gsm.wma")
    options = ["--prefix", "x/", "--call-time", "last_modified", "--no-columns", "--timezone", "Europe/Berlin"]
    options += ["--tables", "s3://w/t", "--state", "s3://w/s/", "--name", "n"]
    code, _, _ = run("init", tmp_path, "--bucket", f"s3://{aws.recordings}", "--yes", *options)
    assert code == 0
    pipeline = load(tmp_path / "pipelines" / "n.yaml")
    assert pipeline.recordings.call_time == "last_modified"
    assert ".wma" in pipeline.recordings.suffixes
    assert (pipeline.recordings.columns, pipeline.timezone) == ({}, "Europe/Berlin")
    assert (pipeline.output.tables, pipeline.output.state) == ("s3://w/t/", "s3://w/s/")


def test_prefix_with_a_date_is_taken_as_it_is(run: Run, aws: Store, tmp_path: Path) -> None:
    aws.put("in/2026-11-20/a.mp3")
    code, out, _ = run("init", tmp_path, "--bucket", aws.recordings, "-y", "--prefix", "in/{date:%Y-%m-%d}/")
    assert code == 0
    assert "'in/{date:%Y-%m-%d}/'" in out
    code, _, err = run("init", tmp_path, "--bucket", aws.recordings, "-y", "--prefix", "in/{date:%d-%m-%Y}/", "--force")
    assert code == 1
    assert "none of the 1 recordings that were looked at would be listed" in err


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ([], "has no object: upload a recording, or check --bucket and --prefix."),
        (["a.pdf", "b.pdf", "c.csv"], "They have: .pdf (2), .csv (1). Name the suffix of the recordings with --suffix"),
    ],
)
def test_bucket_without_recordings_is_explained(
    run: Run, aws: Store, tmp_path: Path, keys: list[str], words: str
) -> None:
    for key in keys:
        aws.put(key)
    code, out, err = run("init", tmp_path / "dags", "--bucket", aws.recordings, "--yes")
    assert (code, out) == (1, "")
    assert words in err
    assert not (tmp_path / "dags").exists()


def test_missing_bucket_is_a_one_line_error(run: Run, aws: Store, tmp_path: Path) -> None:
    code, _, err = run("init", tmp_path, "--bucket", "nowhere", "--yes")
    assert code == 1
    assert err.startswith("error: There is no bucket 'nowhere'")


def test_files_that_are_there_are_not_overwritten_without_force(run: Run, aws: Store, tmp_path: Path) -> None:
    aws.put("in/2026-11-20/a.mp3")
    command = ("init", tmp_path, "--bucket", aws.recordings, "--yes", "--name", "x")
    assert run(*command)[0] == 0
    file = tmp_path / "pipelines" / "x.yaml"
    file.write_text("mine")
    (tmp_path / "pipelines" / "y.yaml").write_text("mine too")
    code, _, err = run(*command)
    assert (code, file.read_text()) == (1, "mine")
    assert f"error: {file}: there already, with other content; --force overwrites." in err
    assert run(*command, "--force")[0] == 0
    assert load(file).pipeline == "x"
    assert sorted(path.name for path in (tmp_path / "pipelines").iterdir()) == ["x.yaml", "y.yaml"]


def test_nobody_to_ask_is_a_usage_error(run: Run, tmp_path: Path) -> None:
    code, _, err = run("init", tmp_path, "--bucket", "b")
    assert code == 2
    assert "--yes" in err
    assert run("init", tmp_path, "--yes")[0] == 2


class Terminal(io.StringIO):
    """Answers, as if someone typed them."""

    def isatty(self) -> bool:
        return True


def test_user_confirms_or_edits_each_proposal(
    run: Run, aws: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for agent in "12":
        aws.put(f"c/05-06-2026/agent-{agent}/queue=q/{agent}.mp3")
    answers = [
        "Europe/Berlin",  # time zone
        "n",  # 05-06-2026 is not the 5th of June
        "",  # prefix
        "last_modified",  # call_time
        "y",  # queue
        "n",  # agent
        "mine",  # name
        "s3://w/tables/",
        "",  # state
        "y",  # write
    ]
    monkeypatch.setattr(sys, "stdin", Terminal("\n".join(answers) + "\n"))
    code, out, err = run("init", tmp_path, "--bucket", aws.recordings)
    assert code == 0, err
    pipeline = load(tmp_path / "pipelines" / "mine.yaml")
    assert pipeline.recordings.prefix == "c/{date:%m-%d-%Y}/"
    assert list(pipeline.recordings.columns) == ["queue"]
    assert (pipeline.timezone, pipeline.output.tables) == ("Europe/Berlin", "s3://w/tables/")
    assert "queue=q" in out
    assert "Time zone" not in out, "questions are no answer"
