"""An installation as its users reach it: Airflow below a path, behind a proxy with TLS, with users of several roles.

Its pipeline has an S3 server, a scripted speech service and some nights of calls, all on this machine.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import requests
import yaml

from benchmarks.database import free_port
from benchmarks.processes import Program
from benchmarks.processes import running as running_program
from callphases.starting.files import DAG, DAG_FILE
from media import Kind, encoded, tone
from night import CALL, CHAT
from servers import KEY, Box, running, s3_client
from tls_proxy import Proxy, tls_proxy

ROOT = Path(__file__).parents[1]
PATH = "/af"
"""Airflow is served below this path."""
DAG_ID = "call_phases_pages"
NIGHT, EARLIER = "2026-11-20", ("2026-11-18", "2026-11-19")
"""The night that Airflow has run; nights that the command line has run before."""
RUN_ID = "night+1"
"""Of the night's run; with a plus sign, as the ids of scheduled runs have."""
CALL_S = 12
AGENTS = ("ada", "grace")
ROLES = ("viewer", "user", "op", "admin")
"""Of SimpleAuthManager, each allowed more than the one before. The users have their names."""
BROKEN = "broken"
"""The recording that fails the first time it is transcribed, with a permanent failure."""
ORDINARY = "agent-ada/0"
"""A recording of the night in which nothing is unusual."""
MU_LAW = "agent-grace/1"
"""A recording as telephone systems write it, which no browser plays; it is streamed in spite of ``pages.audio``."""
HOSTILE = {
    "script": "<script>window.hostile = 1; alert(1)</script>",
    "handler": '<img src=x onerror="window.hostile = 1; alert(1)"> \'onmouseover=alert(1) "onfocus=alert(1) autofocus',
    "link": '<a href="javascript:alert(1)">javascript:alert(1)</a> <iframe src="javascript:alert(1)"></iframe>',
    "svg": "<svg onload=alert(1)><animate onbegin=alert(1) attributeName=x></svg><math><mi xlink:href='data:x,1'>",
    "template": "{{ 7 * 191 }} {% raw %} ${7 * 191} #{7 * 191} {{ self.__init__.__globals__ }} __${alert(1)}__",
    "end": "</script></style></textarea></title><script>window.hostile = 1; alert(1)</script>",
    "comment": "--><!--<script> ]]> \u2028 \u202e &lt;script&gt;alert(1)&lt;/script&gt; \\u003cscript\\u003e",
}
"""What callers say, by the name of the recording."""
SUMMARY = "Of {name}: <script>window.hostile = 1; alert(1)</script> <b>bold</b> javascript:alert(1)"
"""What the model answers as the summary of each phase."""
HOSTILE_NAME = "<img src=x onerror=alert(1)> & \"quoted' name"
"""The name of a recording."""
LONGEST_S = 300


def tone_wav(codec: str = "pcm_s16le") -> bytes:
    """A tone as long as a call; with 16 bits a sample, as in the default, every browser plays it."""
    kind = Kind("wav", codec, 8_000)
    return encoded(kind, tone(330.0, CALL_S, kind.rate_hz))


def said_in(text: str) -> list[dict[str, Any]]:
    """The sentences of an ordinary call, of which the second continues with ``text``."""
    return [{**one, "text": f"{one['text']} {text}"} if number == 1 else one for number, one in enumerate(CALL)]


@dataclass
class Site:
    """A running installation.

    Attributes:
        recordings, warehouse: buckets, of this installation alone.
        url: of Airflow through the proxy, without a slash at its end.
        direct: of the API server itself.
    """

    folder: Path
    s3: Any
    recordings: str
    warehouse: str
    box: Box
    proxy: Proxy
    port: int
    environment: dict[str, str]
    programs: dict[str, Program] = field(default_factory=dict)
    _tokens: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"{self.proxy.url}{PATH}"

    @property
    def direct(self) -> str:
        return f"http://127.0.0.1:{self.port}{PATH}"

    def page(self, path: str) -> str:
        """The address of a page, by its path below where Airflow mounts the app."""
        return f"{self.url}/callphases/dags/{DAG_ID}{path}"

    def token(self, user: str) -> str:
        """A token of the user, whose password is ``password_of(user)``."""
        if user not in self._tokens:
            login = {"username": user, "password": password_of(user)}
            answer = requests.post(f"{self.direct}/auth/token", json=login, timeout=60)
            assert answer.status_code == 201, answer.text
            self._tokens[user] = answer.json()["access_token"]
        return self._tokens[user]

    def request(self, method: str, url: str, user: str | None = None, **more: Any) -> requests.Response:
        """A request through the proxy or to the API server, with the user's token; without a user, with none."""
        headers = {"Authorization": f"Bearer {self.token(user)}"} if user else {}
        headers |= more.pop("headers", {})
        return requests.request(
            method, url, headers=headers, verify=str(self.proxy.authority), timeout=120, allow_redirects=False, **more
        )

    def api(self, method: str, path: str, **more: Any) -> Any:
        """What Airflow's API answers to the administrator."""
        answer = self.request(method, f"{self.direct}/api/v2{path}", "admin", **more)
        assert answer.ok, answer.text
        return answer.json()

    def runs(self) -> list[dict[str, Any]]:
        """The Dag's runs, oldest first."""
        return list(self.api("GET", f"/dags/{DAG_ID}/dagRuns?order_by=run_after")["dag_runs"])

    def rows(self, table: str, day: str = NIGHT) -> list[dict[str, Any]]:
        """The published rows of a day."""
        key = f"tables/{table}/dt={day}/{table}.parquet"
        body = self.s3.get_object(Bucket=self.warehouse, Key=key)["Body"].read()
        return pq.read_table(io.BytesIO(body)).to_pylist()

    def call(self, name: str) -> dict[str, Any]:
        """The row of the night's call whose recording has this name, without its suffix."""
        [row] = [row for row in self.rows("calls") if row["recording_uri"].endswith(f"/{name}.wav")]
        return row

    def call_page(self, name: str) -> str:
        """The address of the page of the night's call whose recording has this name."""
        return self.page(f"/days/{NIGHT}/calls/{self.call(name)['call_id']}")

    def pages(self) -> dict[str, str]:
        """An address of each kind of page."""
        return {
            "run": self.page(f"/runs/{requests.utils.quote(RUN_ID, safe='')}"),
            "day": self.page(f"/days/{NIGHT}"),
            "call": self.call_page(ORDINARY),
            "failed call": self.call_page(BROKEN),
            "pipeline": self.page(""),
        }

    def run(self, run_id: str, **conf: Any) -> None:
        """Trigger a run and wait for its end."""
        document = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
        self.api("POST", f"/dags/{DAG_ID}/dagRuns", json=document)
        assert self.ended(run_id) == "success", self.logs()

    def ended(self, run_id: str) -> str:
        """The state of a run, once it has ended."""
        path = f"/dags/{DAG_ID}/dagRuns/{requests.utils.quote(run_id, safe='')}"
        self.wait(lambda: self.api("GET", path)["state"] in ("success", "failed"), f"the run {run_id} ends")
        return str(self.api("GET", path)["state"])

    def command(self, *command: str) -> str:
        """What a command of the installation prints."""
        done = subprocess.run(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-5000:]
        return done.stdout

    def wait(self, done: Callable[[], bool], what: str) -> None:
        give_up = time.monotonic() + LONGEST_S
        while not done():
            assert time.monotonic() < give_up, f"{what}: not within {LONGEST_S} s\n{self.logs()}"
            time.sleep(0.3)

    def logs(self) -> str:
        """The end of each process's log."""
        return "\n".join(f"== {path.name}\n{path.read_text()[-2000:]}" for path in sorted(self.folder.glob("*.log")))


def password_of(user: str) -> str:
    return f"of-{user}"


@contextmanager
def site(folder: Path, s3_url: str, **settings: str) -> Iterator[Site]:
    """Run an installation with its nights while the block lasts.

    Args:
        folder: for everything.
        s3_url: of an S3 server, which several installations may share.
        settings: more environment variables of all of Airflow's processes.
    """
    s3 = s3_client(s3_url)
    port = free_port()
    recordings, warehouse = f"pages-recordings-{port}", f"pages-warehouse-{port}"
    for bucket in (recordings, warehouse):
        s3.create_bucket(Bucket=bucket)
    _write_files(folder, recordings, warehouse)
    with ExitStack() as stack:
        box = stack.enter_context(
            running(folder / "box", "--engine", "scripted", "--script", str(folder / "script.yaml"))
        )
        proxy = stack.enter_context(tls_proxy(folder, port))
        made = Site(
            folder,
            s3,
            recordings,
            warehouse,
            box,
            proxy,
            port,
            _environment(folder, s3_url, box, proxy, port, settings),
        )
        _put_calls(made)
        made.command("airflow", "db", "migrate")
        for name, arguments in {
            "api-server": ("--proxy-headers", "--workers", "1"),
            "scheduler": (),
            "dag-processor": (),
        }.items():
            command, log = ["airflow", name, *arguments], folder / f"{name}.log"
            made.programs[name], _ = stack.enter_context(running_program(command, log, made.environment))
        for day in EARLIER:
            made.command("callphases", "run", str(folder / "dags" / "pipelines" / "pages.yaml"), "--date", day)
        made.wait(lambda: _knows_dag(made), "Airflow has read the Dag")
        yield made


def _write_files(folder: Path, recordings: str, warehouse: str) -> None:
    (folder / "dags" / "pipelines").mkdir(parents=True)
    (folder / "dags" / DAG_FILE).write_text(DAG)
    pipeline = {
        "pipeline": "pages",
        "schedule": None,
        "timezone": "Europe/Berlin",
        "recordings": {
            "bucket": recordings,
            "prefix": "calls/{date:%Y-%m-%d}/",
            "columns": {"agent": {"key_pattern": "/agent-(?P<agent>[^/]+)/"}},
            "look_back_days": 0,
        },
        "output": {"tables": f"s3://{warehouse}/tables/", "state": f"s3://{warehouse}/state/"},
        "limits": {"ramp": False, "max_failed_ratio": 1.0},
        "budget": {"usd_per_run": 20},
    }
    (folder / "dags" / "pipelines" / "pages.yaml").write_text(yaml.safe_dump(pipeline))
    files = [
        {"match": f"*/{name}.wav", "sentences": said_in(text), "audio_duration_s": CALL_S}
        for name, text in HOSTILE.items()
    ]
    script = {
        "files": [*files, {"match": "*/silent.wav", "no_speech": True, "audio_duration_s": CALL_S}],
        "default": {"sentences": CALL, "audio_duration_s": CALL_S},
        "chat": {**CHAT, "summary": SUMMARY},
    }
    (folder / "script.yaml").write_text(yaml.safe_dump(script))
    (folder / "passwords.json").write_text(json.dumps({user: password_of(user) for user in ROLES}))


def _put_calls(made: Site) -> None:
    for day in EARLIER:
        for number, agent in enumerate(AGENTS):
            _put(made, day, f"agent-{agent}/{number}")
    for number in range(8):
        _put(made, NIGHT, f"agent-{AGENTS[number % 2]}/{number}")
    for name in (*HOSTILE, HOSTILE_NAME, "silent", BROKEN):
        _put(made, NIGHT, f"agent-hostile/{name}")
    rule = {"fault": "job_error", "match": f"*/{BROKEN}.wav", "times": 1, "message": f"Transcoding failed. {_HTML}"}
    answer = made.box.request("PUT", "/faults", json={"rules": [rule]})
    assert answer.ok, answer.text


_HTML = "<script>window.hostile = 1</script>"


def _put(made: Site, day: str, name: str) -> None:
    made.s3.put_object(
        Bucket=made.recordings,
        Key=f"calls/{day}/{name}.wav",
        Body=tone_wav("pcm_mulaw" if name == MU_LAW else "pcm_s16le"),
    )


def _environment(
    folder: Path, s3_url: str, box: Box, proxy: Proxy, port: int, settings: Mapping[str, str]
) -> dict[str, str]:
    aws = {"conn_type": "aws", "login": "x", "password": "x"}
    aws["extra"] = {"endpoint_url": s3_url, "region_name": "us-east-1"}  # type: ignore[assignment]
    speech = {"conn_type": "assemblyai", "host": box.url, "password": KEY}
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "AWS_", "CALLPHASES"))
    }
    return {
        **inherited,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "include"), str(ROOT)]),
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{role}:{role}" for role in ROLES),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(folder / "passwords.json"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}{PATH}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"{proxy.url}{PATH}",
        "AIRFLOW__API__SECRET_KEY": "of-the-pages",
        "AIRFLOW__API_AUTH__JWT_SECRET": "of-the-pages-with-as-many-letters-as-its-algorithm-asks-for-0123456789",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder / 'airflow'}/airflow.db",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS": "demo.sqlite.CONNECT_ARGS",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(aws),
        "AIRFLOW_CONN_ASSEMBLYAI_DEFAULT": json.dumps(speech),
        **settings,
    }


def _knows_dag(made: Site) -> bool:
    try:
        return made.request("GET", f"{made.direct}/api/v2/dags/{DAG_ID}", "admin").ok
    except requests.RequestException:
        return False
