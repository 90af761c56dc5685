import threading

from infra.system_metrics import SystemMetrics


def test_machine_is_sampled_again_and_again_until_stopped():
    points, three = [], threading.Event()

    def sampled(point):
        points.append(point)
        if len(points) == 3:
            three.set()

    metrics = SystemMetrics(sampled, interval=0.01)
    metrics.start()
    assert three.wait(60)
    metrics.stop()
    count = len(points)
    assert [point.step for point in points] == list(range(count))
    assert all(point.metrics.keys() == points[0].metrics.keys() for point in points)
    assert {name.partition("/")[0] for name in points[0].metrics} == {"system"}


def test_a_measurement_that_never_began_can_be_stopped():
    SystemMetrics(lambda point: None).stop()
