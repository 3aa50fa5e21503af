"""How much does it bear: load, a verdict with confidence, a report. The service never imports it."""
