"""What a step's computation finds in its environment."""

import pytest

from infra.child_environment import allowed


@pytest.mark.security("secrets in the environment of processes")
def test_a_computation_finds_its_libraries_settings_and_no_keys() -> None:
    kept = {
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "3",
        "HF_HOME": "/models",
        "OMP_NUM_THREADS": "2",
        "LC_ALL": "C",
    }
    dropped = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "MLFLOW_TRACKING_PASSWORD": "password",
        "PREFECT_API_KEY": "key",
        "DATABASE_URL": "postgresql://user:password@host",
        "ACCELERATE_MIXED_PRECISION": "bf16",
    }
    assert allowed({**kept, **dropped}) == kept
