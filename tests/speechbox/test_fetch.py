"""Tests of downloads and uploads."""

import asyncio
from pathlib import Path

import pytest

from speechbox.engines import JobError
from speechbox.fetch import AudioSource, connect


def fetch(source: AudioSource, url: str) -> bytes:
    async def read() -> bytes:
        async with source.open(url) as path:
            return path.read_bytes()

    return asyncio.run(read())


@pytest.mark.parametrize(
    "target",
    [
        "/bucket/a%20b.wav?X-Amz-Signature=abc%2F%2B%3D&x=1+2",
        "/bucket//leading/a.wav",
        "//bucket/a.wav",
        "/bucket/it's%20(1)+1%2B1.wav",
        "/bucket/%F0%9F%93%9E%E2%80%9Cquoted%E2%80%9D.wav",
        "/bucket/100%25.wav",
        "/bucket/a/../b/./c.wav",
        "/bucket/a%2Fb~c!*;:@&=,$.wav?",
    ],
)
def test_request_target_is_sent_exactly_as_in_the_url(files, tmp_path: Path, target: str) -> None:
    files.content[target] = b"audio"
    assert fetch(AudioSource(tmp_path), files.url + target) == b"audio"
    assert files.requested == [target]


def test_only_characters_not_allowed_by_http_are_encoded() -> None:
    _, target = connect("http://localhost/a b/é\U0001f4de%20+.wav#part")
    assert target == "/a%20b/%C3%A9%F0%9F%93%9E%20+.wav"


def test_redirects_are_followed(files, tmp_path: Path) -> None:
    files.redirects["/old"] = "/new?x=%2B"
    files.content["/new?x=%2B"] = b"audio"
    assert fetch(AudioSource(tmp_path), files.url + "/old") == b"audio"


def test_redirect_loop_is_a_download_error(files, tmp_path: Path) -> None:
    files.redirects["/a"] = "/a"
    with pytest.raises(JobError, match="Download error"):
        fetch(AudioSource(tmp_path), files.url + "/a")


@pytest.mark.parametrize(
    "url", ["ftp://localhost/a.wav", "file:///etc/passwd", "http:///a.wav", "http://localhost:1/a.wav"]
)
def test_unreachable_or_unsupported_url_is_a_download_error(tmp_path: Path, url: str) -> None:
    with pytest.raises(JobError, match="Download error, unable to download"):
        fetch(AudioSource(tmp_path), url)


def test_redirect_to_another_scheme_is_refused(files, tmp_path: Path) -> None:
    files.redirects["/a"] = "file:///etc/passwd"
    with pytest.raises(JobError, match="Download error"):
        fetch(AudioSource(tmp_path), files.url + "/a")


def test_download_error_does_not_contain_the_signature(files, tmp_path: Path) -> None:
    with pytest.raises(JobError) as caught:
        fetch(AudioSource(tmp_path), files.url + "/gone.wav?X-Amz-Signature=secret")
    assert f"unable to download {files.url}/gone.wav." in str(caught.value)
    assert "secret" not in str(caught.value)


def test_too_large_file_is_a_download_error(files, tmp_path: Path) -> None:
    files.content["/a"] = bytes(1000)
    with pytest.raises(JobError, match="Download error"):
        fetch(AudioSource(tmp_path, max_bytes=999), files.url + "/a")


def test_fetch_leaves_no_file_behind(files, tmp_path: Path) -> None:
    files.content["/a"] = b"audio"
    source = AudioSource(tmp_path)
    fetch(source, files.url + "/a")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_check_downloads_the_file_and_keeps_nothing(files, tmp_path: Path) -> None:
    files.content["/a"] = bytes(1000)
    files.redirects["/old"] = "/a"
    asyncio.run(AudioSource(tmp_path).check(files.url + "/old"))
    assert files.requested == ["/old", "/a"]
    for url, max_bytes in ((files.url + "/a", 999), (files.url + "/gone.wav", 1000)):
        with pytest.raises(JobError, match="Download error"):
            asyncio.run(AudioSource(tmp_path, max_bytes).check(url))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_check_of_an_upload_needs_no_request(tmp_path: Path) -> None:
    source = AudioSource(tmp_path)
    upload_id = "0" * 32
    (source.uploads / upload_id).write_bytes(b"audio")
    asyncio.run(source.check(f"http://localhost:1/upload/{upload_id}"))
    with pytest.raises(JobError, match="Download error"):
        asyncio.run(source.check(f"http://localhost:1/upload/{'1' * 32}"))
