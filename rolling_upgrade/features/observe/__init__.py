"""Monitoring of an environment from outside: Prometheus, alerts, probes of the site, a Grafana dashboard."""
