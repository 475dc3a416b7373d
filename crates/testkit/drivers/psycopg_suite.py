"""Runs psycopg's own tests (argument 1: where they are; further ones: only names that contain one of these) against the server of
PGHOST and PGPORT, and prints what became of each. Left out are those that measure time or are slow, check types by mypy, count
references, ask name servers or start processes, and those of the pool, which is another package."""

import os
import sys

import pytest

LEFT_OUT = ["slow", "timing", "mypy", "refcount", "dns", "subprocess"]


class Outcomes:
    def __init__(self, only):
        self.only = only
        self.outcomes = {}

    def pytest_collection_modifyitems(self, items):
        if self.only:
            items[:] = [item for item in items if any(part in item.nodeid for part in self.only)]

    def pytest_runtest_logreport(self, report):
        # The worst of what comes before a test, the test itself and what comes after it stands.
        if self.outcomes.get(report.nodeid, "passed") == "passed":
            self.outcomes[report.nodeid] = report.outcome


place, *only = sys.argv[1:]
dsn = f"host={os.environ['PGHOST']} port={os.environ['PGPORT']} user=postgres dbname=postgres"
outcomes = Outcomes(only)
os.chdir(place)
pytest.main(
    [
        "tests",
        "-q",
        f"--test-dsn={dsn}",
        "-m",
        " and ".join(f"not {mark}" for mark in LEFT_OUT),
        "--ignore=tests/pool",
        "--ignore=tests/crdb",
        "-o",
        f"cache_dir={os.environ['PGTEAL_SUITE_CACHE']}",
    ],
    plugins=[outcomes],
)
for name, outcome in outcomes.outcomes.items():
    print("@@", name.encode("ascii", "backslashreplace").decode(), outcome, sep="\t")
