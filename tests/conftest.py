"""Marks that tests may carry."""


def pytest_configure(config): config.addinivalue_line("markers", "cuda: needs a GPU; skipped where there is none")
