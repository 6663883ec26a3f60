"""Speed benchmarks, which compare methods in one process. They are no tests."""
