"""Load tests: send load, judge it with confidence bounds, report. The service never imports this package."""
