"""No secret that a run is given is in anything that it leaves behind: all of it is searched, whatever its form."""

import base64
import json
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, quote_plus

import boto3
import pytest

from tests.cli import Cli
from tests.mlflow_server import MlflowServer
from tests.seaweedfs import BUCKET, SeaweedFS

ACCESS_KEY = "AKIAPLANTEDACCESSKEY"
SECRET_KEY = "pl4nted/s3+secret/Zx81Qw"
WRONG_KEY = "wr0ng/s3+secret/Kj27Lm"
HUB_TOKEN = "hf_pl4ntedHubTokenVb93"
MLFLOW_PASSWORD = "pl4ntedMlflowPassTr56"
URL_PASSWORD = "pl4ntedUrlPassNm48"
SECRETS = (ACCESS_KEY, SECRET_KEY, WRONG_KEY, HUB_TOKEN, MLFLOW_PASSWORD, URL_PASSWORD)


def forms(secret: str) -> list[bytes]:
    """The secret as it may be written: plain, in a URL, in JSON, in base64 at any offset."""
    plain = {
        secret,
        quote(secret, safe=""),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        secret.replace("/", "\\/"),
    }
    # what precedes it in a base64 text shifts it; cut the characters that depend on the neighbours
    encoded = {base64.b64encode(b"\0" * n + secret.encode())[-(-8 * n // 6) : -4].decode() for n in range(3)}
    return [text.encode() for text in plain | encoded]


def found_in(texts: Iterable[tuple[str, bytes]]) -> list[str]:
    """Which secrets are where."""
    needles = {secret: forms(secret) for secret in SECRETS}
    return [
        f"{secret} in {place}"
        for place, text in texts
        for secret, shapes in needles.items()
        if any(shape in text for shape in shapes)
    ]


def files_of(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below, databases with their journals included."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield str(path), path.read_bytes()


def objects_of(s3: SeaweedFS) -> Iterator[tuple[str, bytes]]:
    """Every object of the bucket."""
    bucket = boto3.resource(
        "s3",
        endpoint_url=s3.endpoint_url,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
    ).Bucket(BUCKET)
    for item in bucket.objects.all():
        yield f"s3://{BUCKET}/{item.key}", item.get()["Body"].read()


@dataclass
class Watched:
    """The command line, with everything it prints and the command lines of all its processes on record."""

    cli: Cli
    texts: list[tuple[str, bytes]] = field(default_factory=list)

    def run(self, *arguments: str, status: int = 0) -> str:
        """What it printed."""
        process = self.cli.start(*arguments)
        seen: set[bytes] = set()
        over = threading.Event()
        watcher = threading.Thread(target=_watch, args=(process, seen, over))
        watcher.start()
        out, err = process.communicate(timeout=540)
        over.set()
        watcher.join()
        assert process.returncode == status, f"{arguments}: {process.returncode}\n{out}\n{err}"
        name = " ".join(arguments[:2])
        assert seen or arguments[0] != "run", "no process was seen"
        # what the user types is the user's to keep; its children are ours
        typed = {line for line in seen if all(word.encode() in line for word in arguments)}
        self.texts += [(f"process of {name}", line) for line in seen - typed]
        self.texts.append((f"output of {name}", f"{out}\n{err}".encode()))
        return out + err


def _watch(process: "subprocess.Popen[str]", seen: set[bytes], over: threading.Event) -> None:
    """Note the command lines of `process` and its descendants until it is over."""
    family = {process.pid}
    while not over.is_set():
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if int(entry.name) in family or parent in family:
                    family.add(int(entry.name))
                    seen.add((entry / "cmdline").read_bytes())
            except OSError:
                continue  # it has ended meanwhile
        time.sleep(0.05)


@dataclass
class Planted:
    """A run, a failing run and refused ones, on servers with passwords; all that is left of them."""

    left: list[tuple[str, bytes]]
    messages: str


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    folder = tmp_path_factory.mktemp("planted")
    s3 = SeaweedFS(folder / "seaweedfs", ACCESS_KEY, SECRET_KEY)
    s3.start()
    server = MlflowServer(folder / "mlflow").start()
    environment = {
        **s3.environment(),
        "FORGETTING_STORE": f"s3://{BUCKET}/planted",
        "HF_TOKEN": HUB_TOKEN,
        "MLFLOW_TRACKING_URI": server.uri.replace("//", f"//auditor:{MLFLOW_PASSWORD}@"),
        "PREFECT_LOGGING_LEVEL": "DEBUG",
    }
    try:
        good = Watched(Cli(folder / "good", environment))
        good.run("run", "nano", "--set", "baselines=[]")
        good.run("plan", "nano", "--json")
        good.run("lineage", "nano")

        dead = server.uri.rpartition(":")[0].replace("//", f"//auditor:{MLFLOW_PASSWORD}@") + ":9"
        wrong = environment | {"AWS_SECRET_ACCESS_KEY": WRONG_KEY, "MLFLOW_TRACKING_URI": dead}
        bad = Watched(Cli(folder / "bad", wrong))
        messages = bad.run("run", "nano", status=1)

        refused = Watched(Cli(folder / "refused", environment))
        address = f"://reader:{URL_PASSWORD}@127.0.0.1"
        messages += refused.run("run", "nano", "--store", f"s3{address}/store", status=2)
        messages += refused.run("run", "smollm2", "--set", f"data.train=[https{address}/rows.jsonl]", status=2)
        messages += refused.run("run", "smollm2", "--set", f"model.path=s3{address}/model", status=2)

        left = [*good.texts, *bad.texts, *refused.texts, *objects_of(s3)]
        for name in ("good", "bad", "refused", "mlflow"):
            left += files_of(folder / name)
    finally:
        server.kill()
        s3.stop()
    yield Planted(left, messages)


@pytest.mark.security("secrets where others read")
@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_would_be_found_in_any_form(secret: str, tmp_path: Path) -> None:
    for number, form in enumerate(
        [
            secret.encode(),
            f"https://user:{quote(secret, safe='')}@host".encode(),
            base64.b64encode(f"auditor:{secret}@x".encode()),
            base64.b64encode(f"user:{secret}!!".encode()),
            base64.b64encode(f"u:{secret}....".encode()),
            json.dumps({"uri": f"s3://{secret}@bucket"}).encode(),
        ]
    ):
        (tmp_path / f"decoy-{number}").write_bytes(b"before " + form + b" after")
    places = [line.rpartition("-")[2] for line in found_in(files_of(tmp_path))]
    assert places == ["0", "1", "2", "3", "4", "5"]


@pytest.mark.security("secrets where others read")
@pytest.mark.slow
def test_no_secret_is_in_anything_that_runs_leave_behind(planted: Planted) -> None:
    places = " ".join(place for place, _ in planted.left)
    for expected in ("mlflow.db", "prefect.db", "/v1/commits/", "/v1/runs/", "report.html", "lineage.json"):
        assert expected in places, expected
    assert found_in(planted.left) == []


@pytest.mark.slow
def test_what_was_wrong_is_said_all_the_same(planted: Planted) -> None:
    assert "AWS_SECRET_ACCESS_KEY" in planted.messages or "denied" in planted.messages.lower()
    assert "the store's address" in planted.messages
    assert "--set data.train: an address with a user, a password" in planted.messages
