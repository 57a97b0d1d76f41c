"""What a loader does wrong must fail a test, and not bring down the machine."""

from pathlib import Path

import pytest

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

SPARE = 6 * 2**30
SECONDS = 120


def pytest_collection_modifyitems(items):
    """Give every test of this folder an end, should something wait for ever."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SECONDS))


@pytest.fixture(autouse=True)
def bounded_memory():
    """Let a test take a few GB beyond what the process has, then fail with MemoryError."""
    status = Path("/proc/self/status")
    if resource is None or not status.exists():
        yield
        return
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = int(lines["VmSize"].split()[0]) * 1024 + SPARE
    if soft != resource.RLIM_INFINITY:
        most = min(most, soft)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
