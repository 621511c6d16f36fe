"""From the env file to what counts as unwell and what the watchdog does about it."""

from __future__ import annotations

from fabfile import model
from fabfile.config import forms
from fabfile.config.settings import Settings
from fabfile.model.watch import WatchRules


def thresholds(settings: Settings) -> model.Thresholds:
    """Beyond which values a host is not well."""
    return model.Thresholds(
        free_percent=settings.min_free_percent,
        memory_percent=settings.max_memory_percent,
        certificate_days=settings.min_certificate_days,
        clock_seconds=settings.max_clock_offset,
        backup_age_seconds=settings.max_backup_age,
    )


def metrics_dir(settings: Settings) -> str:
    """Where the watchdog leaves its metrics, '' for nowhere."""
    return "" if settings.metrics_dir == forms.NONE else settings.metrics_dir


def rules(settings: Settings) -> WatchRules:
    """When the watchdog acts."""
    return WatchRules(
        enabled=settings.auto_recovery_enabled,
        interval_seconds=settings.health_check_interval,
        failures=settings.health_check_retries,
        limit=settings.recovery_limit,
        window_seconds=settings.recovery_window,
        fresh_seconds=settings.fresh_release,
    )
