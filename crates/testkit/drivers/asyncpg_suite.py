"""Runs asyncpg's own tests (argument 1: where they are; further ones: only names that contain one of these) and prints what became
of each. Left out are those that make servers of their own and those that check asyncpg's sources."""

import sys
import unittest

LEFT_OUT = ["test_connect", "test__environment", "test__sourcecode"]


class Outcomes(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.outcomes = {}

    def note(self, test, outcome):
        # The worst of a test with parts stands.
        name = test.id()
        if self.outcomes.get(name, "ok") == "ok":
            self.outcomes[name] = outcome

    def addSuccess(self, test):
        self.note(test, "ok")

    def addExpectedFailure(self, test, error):
        self.note(test, "ok")

    def addSkip(self, test, reason):
        self.note(test, "skipped")

    def addFailure(self, test, error):
        self.note(test, "failed")
        sys.stderr.write(f"{test.id()}: {self._exc_info_to_string(error, test)}\n")

    def addError(self, test, error):
        self.addFailure(test, error)

    def addUnexpectedSuccess(self, test):
        self.note(test, "failed")

    def addSubTest(self, test, part, error):
        if error is not None:
            self.addFailure(test, error)


def tests(suite):
    for one in suite:
        if isinstance(one, unittest.TestSuite):
            yield from tests(one)
        elif not any(f".{name}." in one.id() or one.id().endswith(f".{name}") for name in LEFT_OUT):
            yield one


place, *only = sys.argv[1:]
sys.path.insert(0, place)
found = unittest.defaultTestLoader.discover(f"{place}/tests", top_level_dir=place)
outcomes = Outcomes()
unittest.TestSuite(one for one in tests(found) if not only or any(part in one.id() for part in only)).run(outcomes)
for name, outcome in outcomes.outcomes.items():
    print("@@", name, outcome, sep="\t")
