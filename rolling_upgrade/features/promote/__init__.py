"""Deploy the images that run in one environment to another."""
