import pytest

from infra.settings import SettingError, Settings


@pytest.mark.parametrize(("text", "seconds"), [("", 60.0), ("0", 0.0), ("2.5", 2.5)])
def test_the_time_to_live_of_leases_comes_from_the_environment(
    text: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGETTING_LEASE_TTL", text)
    assert Settings.from_environment().lease_ttl == seconds


@pytest.mark.parametrize("text", ["-1", "soon", "nan", "inf"])
def test_a_time_to_live_that_makes_no_sense_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGETTING_LEASE_TTL", text)
    with pytest.raises(SettingError, match=f"FORGETTING_LEASE_TTL is '{text}'; expected seconds"):
        Settings.from_environment()


@pytest.mark.parametrize(
    "store", ["s3://KEY:hunter2@bucket/x", "s3://KEY:hun/ter2@bucket", "s3://bucket/x?k=hunter2"]
)
def test_a_store_address_with_credentials_is_refused_without_repeating_it(store: str) -> None:
    with pytest.raises(SettingError, match="AWS_") as refused:
        Settings.from_environment(store=store)
    assert "hunter2" not in str(refused.value) and "ter2" not in str(refused.value)
