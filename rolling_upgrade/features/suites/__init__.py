"""Run the application's own test suites."""
