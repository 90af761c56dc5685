"""`forgetting doctor`: the probes of `infra.doctor`, and the device."""

from infra.doctor import Finding, check, probe_mlflow, probe_prefect
from infra.doctor_store import probe_clock, probe_credentials, probe_store
from infra.settings import Settings


def examine(settings: Settings) -> list[Finding]:
    """All checks, in the order in which a run would need them."""
    return [
        check("store", lambda: probe_store(settings)),
        check("store credentials", lambda: probe_credentials(settings)),
        check("store clock", lambda: probe_clock(settings)),
        check("mlflow", lambda: probe_mlflow(settings)),
        check("prefect", probe_prefect),
        check("device", probe_device),
    ]


def probe_device() -> str:
    """Compute something on the device that `execution.device: auto` picks."""
    import torch

    from forgetting_core.models import resolve_device

    device = resolve_device("auto")
    product = torch.ones(8, 8, device=device, dtype=torch.bfloat16) @ torch.ones(8, 8, device=device).bfloat16()
    assert float(product.sum()) == 512
    name = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    return f"{device} ({name}), torch {torch.__version__}"
