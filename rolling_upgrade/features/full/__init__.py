"""The full pipeline: build, test, push, deploy, health check, monitor."""
