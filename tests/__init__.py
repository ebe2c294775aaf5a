"""The tests. A package, so that a test says ``from tests.support import ...`` however pytest was started."""
