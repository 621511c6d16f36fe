"""Prometheus, Alertmanager, blackbox-exporter and Grafana files of an environment: render or install them."""
