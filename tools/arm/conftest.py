"""At the end of a run: how far each library is from what the one for x86 gave, as a table."""

import os

TOLD = "library"  # the property in which test_libraries.py tells it


def pytest_terminal_summary(terminalreporter):
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    rows = [value for report in reports for name, value in report.user_properties if name == TOLD]
    if not rows:
        return
    terminalreporter.section(f"libraries for ARM64 on qemu's CPU {os.environ.get('HC_ARM_CPU', 'max')}")
    terminalreporter.line(
        "greatest difference from the library for x86, and its tolerance, relative to the largest output"
    )
    for library, size, difference, allowed in sorted(rows):
        terminalreporter.line(f"| {library} | {size / 1e6:.2f} MB | {told(difference)} | {told(allowed)} |")


def told(value):
    return f"{value:.1e}" if value else "0"
