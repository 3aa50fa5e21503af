"""What every address promises, as an OpenAPI 3.1 document made from the types that validate, and pages to read it."""

from __future__ import annotations
