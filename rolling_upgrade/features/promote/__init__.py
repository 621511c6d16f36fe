"""Deploy to one environment what another one runs."""
