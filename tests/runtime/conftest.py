"""The runtime needs no torch, so most of its tests run where there is none."""

from importlib.util import find_spec

NEED_TORCH = ["test_chain.py", "test_vector_math.py"]
collect_ignore = [] if find_spec("torch") else NEED_TORCH


def pytest_report_header() -> str:
    return f"without torch, left out: {', '.join(collect_ignore)}" if collect_ignore else ""
