"""A recorder that goes through an outage loses nothing of what it was told to do again."""

from infra.lineage_outage import OutageProof, never_fails


class Recorder(OutageProof):
    """Writes to a list while the server is up."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9")
        self.up = True
        self.written: list[int] = []

    @never_fails
    def write(self, value: int) -> bool:
        if not self.up:
            raise OSError("connection refused")
        self.written.append(value)
        return True


def test_what_was_missed_is_kept_when_the_server_goes_away_again() -> None:
    recorder = Recorder()
    recorder.up = False
    for value in (1, 2, 3):
        recorder.write(value)
        recorder.missed(lambda value=value: recorder.write(value))
    recorder.resume_after_outage()
    assert recorder.degraded is not None and recorder.written == []

    recorder.up = True
    recorder.resume_after_outage()
    assert recorder.written == [1, 2, 3]
    recorder.resume_after_outage()
    assert recorder.written == [1, 2, 3]
