"""A real S3 server for the tests: SeaweedFS with credentials, on free ports of 127.0.0.1.

It dies with the test session: stopped by its process group at the end, and killed by the kernel (Linux) when the
session itself is killed.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from infra.seaweedfs import BUCKET as BUCKET
from infra.seaweedfs import PORTS, REGION, command, free_ports, takes_writes, write_identities

ACCESS_KEY = "test-access-key"
SECRET_KEY = "test-secret-key"
START_SECONDS = 60


class SeaweedFS:
    """One running server with the bucket `BUCKET`; `folder` holds its data and its log.

    `policies` is a further user by name, whose secret is the name, with the IAM policy that it is bound to.
    """

    def __init__(
        self,
        folder: Path,
        access_key: str = ACCESS_KEY,
        secret_key: str = SECRET_KEY,
        policies: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.folder = folder
        self.access_key = access_key
        self.secret_key = secret_key
        self.policies = policies
        self.endpoint_url = ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it answers. Raises `RuntimeError` with the end of its log."""
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        identities = self.folder / "s3.json"
        write_identities(identities, self.access_key, self.secret_key)
        self._add_users(identities)
        ports = free_ports(len(PORTS))
        self.endpoint_url = f"http://127.0.0.1:{ports[0]}"
        log = self.folder / "weed.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command(data, identities, ports),
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        deadline = time.monotonic() + START_SECONDS
        while not takes_writes(self.endpoint_url, self.access_key, self.secret_key):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"SeaweedFS did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.05)

    def _add_users(self, identities: Path) -> None:
        document = json.loads(identities.read_text())
        for name, policy in self.policies.items():
            keys = [{"accessKey": name, "secretKey": name}]
            document["identities"].append({"name": name, "credentials": keys, "policyNames": [name]})
            document.setdefault("policies", []).append({"name": name, "content": json.dumps(policy)})
        identities.write_text(json.dumps(document))

    def _command(self, data: Path, identities: Path, ports: list[int]) -> list[str]:
        return command(data, identities, ports)

    def stop(self) -> None:
        """Kill the server and wait until it is gone; its data stays."""
        if self._process is not None:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def environment(self, user: str | None = None) -> dict[str, str]:
        """The standard AWS variables of a client of this server: the owner, or a user of `policies`."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": user or self.access_key,
            "AWS_SECRET_ACCESS_KEY": user or self.secret_key,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG
