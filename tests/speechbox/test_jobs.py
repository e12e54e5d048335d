"""Tests of jobs when the server dies, and of deletion during a job."""

import pytest

pytestmark = pytest.mark.integration

URL = "https://recordings.example/a.wav"


def test_unfinished_jobs_are_resumed_after_a_crash(start) -> None:
    script = {"files": [{"match": "*/slow.wav", "latency_s": 60}]}
    box = start("--jobs", "1", script=script)
    completed = box.transcribe(URL, speaker_labels=True)
    processing = box.submit("https://recordings.example/slow.wav")["id"]
    queued = box.submit(URL)["id"]
    box.process.kill()
    box.process.wait()

    box = start("--jobs", "1", script={"latency_s": 0.0})
    assert box.get(f"/v2/transcript/{completed['id']}").json() == completed
    assert box.wait(processing)["status"] == "completed"
    assert box.wait(queued)["status"] == "completed"
    listed = box.get("/v2/transcript").json()["transcripts"]
    assert [item["id"] for item in listed] == [queued, processing, completed["id"]]


def test_warnings_about_the_file_are_in_the_transcript_also_after_a_restart(start) -> None:
    warnings = ["decoded 61.5 s of 90.0 s stated"]
    script = {"files": [{"match": "*/cut.wav", "warnings": warnings, "sentences": []}]}
    box = start(script=script)
    done = box.transcribe("https://recordings.example/cut.wav", multichannel=True)
    assert done["metadata"] == {"warnings": [{"message": message} for message in warnings]}
    assert "metadata" not in box.transcribe(URL)
    box.process.kill()
    box.process.wait()
    assert start(script=script).get(f"/v2/transcript/{done['id']}").json() == done


def test_job_fails_after_the_server_died_three_times_during_it(start) -> None:
    for _ in range(3):
        box = start(script={"latency_s": 60})
        if not box.get("/v2/transcript").json()["transcripts"]:
            box.submit(URL)
        transcript_id = box.get("/v2/transcript").json()["transcripts"][0]["id"]
        while box.get(f"/v2/transcript/{transcript_id}").json()["status"] != "processing":
            pass
        box.process.kill()
        box.process.wait()
    box = start(script={"latency_s": 60})
    done = box.wait(transcript_id)
    assert (done["status"], done["error"]) == ("error", "Server error, developers have been alerted.")


def test_transcript_can_be_deleted_while_its_job_runs(start) -> None:
    box = start(script={"latency_s": 0.3})
    transcript_id = box.submit(URL)["id"]
    assert box.request("DELETE", f"/v2/transcript/{transcript_id}").status_code == 200
    assert box.transcribe(URL)["status"] == "completed"
    deleted = box.get(f"/v2/transcript/{transcript_id}").json()
    assert (deleted["audio_url"], deleted["words"]) == ("http://deleted_by_user", None)
