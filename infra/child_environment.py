"""Which environment variables a step's computation sees: an allow-list, so that no credentials of stores get there.

A computation reads and writes local files; what it may need beside them is the machine, the libraries' own
settings, and the way to the model hub for benchmarks that are loaded from there.
"""

import os
import re
from collections.abc import Mapping

_NAMES = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "COLUMNS"),
    *("TMPDIR", "TEMP", "TMP", "DO_NOT_TRACK", "VIRTUAL_ENV"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
_FAMILIES = (
    *("LC_", "XDG_", "LD_", "MALLOC_", "PYTHON", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_"),
    *("CUDA_", "CUBLAS_", "CUDNN_", "NVIDIA_", "NCCL_", "GLOO_", "UCX_", "TORCH", "PYTORCH_", "TRITON_"),
    *("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "TOKENIZERS_", "DATASETS_", "SAFETENSORS_"),
)
_ALLOWED = re.compile("|".join([*map(re.escape, _NAMES), *(f"{re.escape(family)}.*" for family in _FAMILIES)]))


def allowed(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of `environment` that a computation may see."""
    return {name: value for name, value in environment.items() if _ALLOWED.fullmatch(name)}


def restrict() -> None:
    """Take everything else out of this process's environment."""
    for name in os.environ.keys() - allowed(os.environ).keys():
        del os.environ[name]
