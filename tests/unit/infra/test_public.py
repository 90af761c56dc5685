"""What of an address may be recorded and shown."""

import pytest

from infra.public import public_data, public_text, public_uri


@pytest.mark.parametrize(
    ("given", "public"),
    [
        ("s3://bucket/v1/data/score[base]/x", "s3://bucket/v1/data/score[base]/x"),
        ("https://user:p@host:8080/a/b?x=1#f", "https://host:8080/a/b"),
        ("s3://AK:se/cr+et@bucket/key", "s3://bucket/key"),
        ("https://host:8080/a?mail=a@b", "https://host:8080/a"),
        ("http://[::1]:5000/a@b", "http://[::1]:5000/a@b"),
        ("s3://bucket/model@rev", "s3://bucket/model@rev"),
        ("/data/a#b?c", "/data/a#b?c"),
    ],
)
def test_public_uri_keeps_the_place_and_drops_the_rest(given, public):
    assert public_uri(given) == public
    assert public_text(f"from {given} on") == (f"from {public} on")
    assert public_data({"a": [given, 1]}) == {"a": [public, 1]}
