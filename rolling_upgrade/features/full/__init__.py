"""The whole pipeline: build, test, push, deploy, check, watch."""
