"""Tests of the routes with the scripted engine."""

import time

import pytest
import requests

URL = "https://recordings.example/calls/a.wav"

pytestmark = pytest.mark.integration


def test_health_needs_no_key(scripted) -> None:
    response = scripted.get("/health", headers={})
    assert response.status_code == 200
    assert response.json()["status"] == "ok"
    assert response.json()["engine"] == "scripted"


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": ""}, {"Authorization": "wrong"}, {"Authorization": "Bearer "}]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/upload"),
        ("POST", "/v2/transcript"),
        ("GET", "/v2/transcript"),
        ("GET", "/v2/transcript/x"),
        ("DELETE", "/v2/transcript/x"),
        ("GET", "/v2/transcript/x/vtt"),
        ("GET", "/v2/transcript/x/sentences"),
    ],
)
def test_all_other_routes_require_a_key(scripted, method: str, path: str, headers: dict[str, str]) -> None:
    response = scripted.request(method, path, headers=headers)
    assert response.status_code == 401
    assert response.json() == {"error": "Authentication error, API token missing/invalid"}


def test_key_is_accepted_as_a_bearer_token(scripted) -> None:
    headers = {"Authorization": f"Bearer {scripted.key}"}
    assert scripted.get("/v2/transcript", headers=headers).status_code == 200


def test_server_without_a_key_accepts_any_key(start) -> None:
    box = start("--engine", "scripted", SPEECHBOX_API_KEY="")
    assert box.get("/v2/transcript", headers={"Authorization": "whatever"}).status_code == 200
    assert box.get("/v2/transcript", headers={}).status_code == 401


def test_transcript_is_queued_and_then_completed(scripted) -> None:
    queued = scripted.submit(URL, speaker_labels=True, keyterms_prompt=["invoice"])
    assert queued["status"] == "queued"
    assert queued["text"] is None
    done = scripted.wait(queued["id"])
    assert done["status"] == "completed"
    assert done["audio_url"] == URL
    assert done["audio_duration"] == 10
    assert done["keyterms_prompt"] == ["invoice"]
    assert done["speech_model_used"] == "universal-3-5-pro"
    assert [utterance["speaker"] for utterance in done["utterances"]] == ["A", "B", "A", "B"]
    assert done["text"] == " ".join(utterance["text"] for utterance in done["utterances"])
    assert done["words"][0] == {"text": "Hello,", "start": 400, "end": 730, "confidence": 0.99, "speaker": "A"}


def test_speakers_and_channels_are_returned_only_if_requested(scripted) -> None:
    plain = scripted.transcribe(URL)
    assert plain["utterances"] is None
    assert {word["speaker"] for word in plain["words"]} == {None}
    channels = scripted.transcribe(URL, multichannel=True)
    assert [(u["channel"], u["speaker"]) for u in channels["utterances"]][:2] == [("1", "1"), ("2", "2")]
    assert channels["audio_channels"] == 2
    both = scripted.transcribe(URL, multichannel=True, speaker_labels=True)
    assert [(u["channel"], u["speaker"]) for u in both["utterances"]][:2] == [("1", "1A"), ("2", "2A")]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"speaker_labels": true}'])
def test_invalid_body_is_refused(scripted, body: bytes) -> None:
    response = scripted.post("/v2/transcript", data=body)
    assert response.status_code == 400
    assert set(response.json()) == {"error"}


@pytest.mark.parametrize("path", ["", "/vtt", "/sentences", "/paragraphs", "/word-search?words=a", "/redacted-audio"])
def test_unknown_transcript_is_a_400(scripted, path: str) -> None:
    response = scripted.get("/v2/transcript/00000000-0000-0000-0000-000000000000" + path)
    assert response.status_code == 400
    assert response.json() == {"error": "Transcript lookup error, transcript id not found"}


def test_chat_models_are_listed_in_the_format_of_openai(scripted) -> None:
    listed = scripted.get("/v1/models")
    assert listed.status_code == 200
    assert listed.json()["object"] == "list"
    assert "claude-sonnet-4-6" in [model["id"] for model in listed.json()["data"]]


def test_unknown_route_is_a_404_in_json(scripted) -> None:
    response = scripted.get("/v3/transcript")
    assert (response.status_code, response.json()) == (404, {"error": "Not found"})


def test_unknown_subtitle_format_is_the_vendors_html_404(scripted) -> None:
    done = scripted.transcribe(URL)
    response = scripted.get(f"/v2/transcript/{done['id']}/ttml")
    assert (response.status_code, response.text) == (404, "404: Not Found")


def test_subtitles_are_exported_as_vtt_and_srt(scripted) -> None:
    done = scripted.transcribe(URL)
    vtt = scripted.get(f"/v2/transcript/{done['id']}/vtt")
    assert vtt.headers["content-type"].startswith("text/vtt")
    assert vtt.text.startswith(
        "WEBVTT\n\n"
        "00:00.400 --> 00:02.600\nHello, thank you for calling, how can I help you?\n\n"
        "00:03.000 --> 00:05.200\n"
    )
    assert vtt.text.count("-->") == 4
    short = scripted.get(f"/v2/transcript/{done['id']}/srt", params={"chars_per_caption": 20}).text
    assert short.startswith("1\n00:00:00,400 --> ")
    assert short.count("-->") > 4
    assert scripted.get(f"/v2/transcript/{done['id']}/vtt", params={"chars_per_caption": 0}).status_code == 400


def test_word_search_finds_words_and_phrases(scripted) -> None:
    done = scripted.transcribe(URL)
    found = scripted.get(
        f"/v2/transcript/{done['id']}/word-search", params={"words": "Charged twice,you,absent"}
    ).json()
    assert {match["text"]: match["count"] for match in found["matches"]} == {"Charged twice": 1, "you": 4}
    assert found["total_count"] == 5
    assert done["words"][found["matches"][0]["indexes"][0]]["text"] == "charged"


def test_file_without_speech_has_an_empty_transcript_and_no_subtitles(scripted) -> None:
    done = scripted.transcribe("https://recordings.example/silent.wav")
    assert (done["status"], done["text"], done["words"], done["audio_duration"]) == ("completed", "", [], 12)
    assert scripted.get(f"/v2/transcript/{done['id']}/vtt").status_code == 400


def test_failed_transcript_has_an_error_and_no_subtitles(scripted) -> None:
    done = scripted.transcribe("https://recordings.example/broken.wav")
    assert (done["status"], done["error"]) == ("error", "Transcoding failed. File type application/octet-stream")
    assert scripted.get(f"/v2/transcript/{done['id']}/vtt").status_code == 400


def test_empty_upload_is_refused_in_plain_text(scripted) -> None:
    response = scripted.post("/v2/upload", data=b"")
    assert response.status_code == 422
    assert response.headers["content-type"].startswith("text/plain")


def test_chunked_upload_is_accepted(scripted) -> None:
    response = scripted.post("/v2/upload", data=(part for part in (b"one", b"two")))
    assert response.json()["upload_url"].startswith(scripted.url + "/upload/")


def test_delete_removes_the_transcripts_data_and_its_upload(start, tmp_path) -> None:
    box = start("--engine", "scripted")
    done = box.transcribe(box.upload(b"audio"))
    assert len(list((tmp_path / "uploads").iterdir())) == 1
    deleted = box.request("DELETE", f"/v2/transcript/{done['id']}").json()
    assert deleted == box.get(f"/v2/transcript/{done['id']}").json()
    assert deleted["status"] == "completed"
    assert deleted["audio_url"] == "http://deleted_by_user"
    assert deleted["words"] is None
    assert deleted["text"] == "Deleted by user."
    assert list((tmp_path / "uploads").iterdir()) == []
    assert box.get("/v2/transcript").json()["transcripts"][0]["audio_url"] == "http://deleted_by_user"
    assert box.get(f"/v2/transcript/{done['id']}/vtt").status_code == 400
    assert b"charged" not in b"".join(path.read_bytes() for path in tmp_path.glob("speechbox.sqlite*"))


def test_list_is_newest_first_and_its_links_reach_both_ends(start) -> None:
    box = start("--engine", "scripted")
    ids = [box.transcribe(f"{URL}?n={number}")["id"] for number in range(5)]
    newest = box.get("/v2/transcript?limit=2").json()
    assert [item["id"] for item in newest["transcripts"]] == [ids[4], ids[3]]
    assert newest["page_details"]["next_url"] is None
    middle = box.get(newest["page_details"]["prev_url"].removeprefix(box.url)).json()
    assert [item["id"] for item in middle["transcripts"]] == [ids[2], ids[1]]
    oldest = box.get(middle["page_details"]["prev_url"].removeprefix(box.url)).json()
    assert [item["id"] for item in oldest["transcripts"]] == [ids[0]]
    assert oldest["page_details"]["prev_url"] is None
    assert oldest["page_details"]["result_count"] == 1
    back = box.get(middle["page_details"]["next_url"].removeprefix(box.url)).json()
    assert back["transcripts"] == newest["transcripts"]


def test_list_is_filtered_by_status_date_and_position(start) -> None:
    box = start(script={"files": [{"match": "*/bad", "error": "Transcoding failed."}]})
    good, bad = box.transcribe("http://host/good"), box.transcribe("http://host/bad")
    failed = box.get("/v2/transcript?status=error").json()["transcripts"]
    assert [(item["id"], item["error"], item["completed"]) for item in failed] == [
        (bad["id"], "Transcoding failed.", None)
    ]
    today = box.get("/v2/transcript").json()["transcripts"][0]["created"][:10]
    assert len(box.get(f"/v2/transcript?created_on={today}").json()["transcripts"]) == 2
    assert box.get("/v2/transcript?created_on=2001-01-01").json()["transcripts"] == []
    assert box.get(f"/v2/transcript?after_id={good['id']}").json()["transcripts"][0]["id"] == bad["id"]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=ten", "limit=-1", "status=done", "created_on=today", "before_id=unknown"]
)
def test_invalid_list_query_is_refused(scripted, query: str) -> None:
    response = scripted.get(f"/v2/transcript?{query}")
    assert response.status_code == 400
    assert set(response.json()) == {"error"}


def test_list_page_has_at_most_200_items(scripted) -> None:
    assert scripted.get("/v2/transcript?limit=200").json()["page_details"]["limit"] == 200


def test_links_use_the_public_url(start) -> None:
    box = start("--engine", "scripted", "--public-url", "http://speechbox:8008/")
    assert box.upload(b"audio").startswith("http://speechbox:8008/upload/")
    # An upload is found by its ID, even if this machine cannot reach itself under that URL.
    assert box.transcribe(box.upload(b"audio"))["status"] == "completed"


def test_webhook_is_called_with_its_secret(start, files) -> None:
    box = start("--engine", "scripted")
    done = box.transcribe(
        URL,
        webhook_url=files.url + "/done?x=1",
        webhook_auth_header_name="X-Token",
        webhook_auth_header_value="secret",
    )
    deadline = time.monotonic() + 5
    while not files.posted and time.monotonic() < deadline:
        time.sleep(0.02)
    ((path, headers, body),) = files.posted
    assert path == "/done?x=1"
    assert headers["X-Token"] == "secret"
    assert body == b'{"transcript_id": "%s", "status": "completed"}' % done["id"].encode()
    while box.get(f"/v2/transcript/{done['id']}").json()["webhook_status_code"] != 200 and time.monotonic() < deadline:
        time.sleep(0.02)
    after = box.get(f"/v2/transcript/{done['id']}").json()
    assert (after["webhook_status_code"], after["webhook_auth"]) == (200, True)
    assert "secret" not in str(after)


def test_scripted_engine_fetches_the_audio_if_told_to(start, files) -> None:
    box = start(script={"fetch": True})
    files.content["/a%20b.wav?sig=1"] = b"audio"
    assert box.transcribe(files.url + "/a%20b.wav?sig=1")["status"] == "completed"
    gone = box.transcribe(files.url + "/gone.wav?sig=secret")
    assert gone["status"] == "error"
    assert gone["error"].startswith(f"Download error, unable to download {files.url}/gone.wav.")


def test_file_pattern_matches_the_decoded_path(start) -> None:
    box = start(script={"files": [{"match": "/calls/caf\u00e9 *.wav", "no_speech": True}]})
    assert box.transcribe("http://host/calls/caf%C3%A9%201.wav?x=y")["text"] == ""
    assert box.transcribe("http://host/calls/other.wav")["text"] != ""


def test_many_jobs_run_at_the_same_time(start) -> None:
    box = start(script={"latency_s": 0.5})
    began = time.monotonic()
    ids = [box.submit(f"{URL}?n={number}")["id"] for number in range(100)]
    for transcript_id in ids:
        assert box.wait(transcript_id)["status"] == "completed"
    assert time.monotonic() - began < 5


def test_job_is_queued_while_another_one_runs(start) -> None:
    box = start("--jobs", "1", script={"latency_s": 0.4})
    first, second = box.submit(URL)["id"], box.submit(URL)["id"]
    time.sleep(0.2)
    assert [box.get(f"/v2/transcript/{i}").json()["status"] for i in (first, second)] == ["processing", "queued"]
    assert box.wait(second)["status"] == "completed"


def test_sigterm_stops_the_server_with_exit_code_0(start) -> None:
    box = start("--engine", "scripted")
    box.submit("https://recordings.example/slow.wav")
    box.process.terminate()
    assert box.process.wait(10) == 0
    with pytest.raises(requests.ConnectionError):
        box.get("/health")
