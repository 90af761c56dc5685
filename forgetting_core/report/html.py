"""What the HTML pages have in common: where their templates are, and how numbers look in them."""

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from forgetting_core.report.token_text import visible


def templates(*packages: str) -> Environment:
    """The templates beside the code of `packages`; all is escaped, and a name that is not given is an error."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, ".") for package in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "visible": visible,
        "share": _share,
        "metric": _metric,
        "difference": _difference,
        "nats": _nats,
        "seconds": _seconds,
    }
    return environment


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _metric(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _nats(value: float) -> str:
    return f"{value:.3f} nats".replace("-", "−")


def _seconds(value: float) -> str:
    if value < 60:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {seconds} s"


def _difference(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")
