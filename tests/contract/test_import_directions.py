"""Imports point one way. To change the picture, change this table and the code; docs/architecture.md draws it."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.config import ROOT
from tests import fakes

# Masks of objects.
MASKS = ("app.inference.mask_patches", "app.inference.rle")
# What each module may import of ours. A name stands for the module and all below it; None is everything.
# The first line that fits counts.
TABLE: list[tuple[str, set[str] | None]] = [
    ("app.texts", set()),
    ("app.plain_numbers", set()),
    ("app.model_code.schema_marks", set()),
    ("app.errors", set()),
    ("app.handover", set()),
    ("app.inference.results", set()),
    ("app.web.policy", set()),
    ("app.storage.file_locks", set()),
    ("app.storage.json_files", set()),
    ("app.host.machine", set()),
    ("app.host.permissions", set()),
    ("app.storage.circuit_breaker", set()),
    # The commands that show settings answer to `python -m app.config` too.
    ("app.config.__main__", {"app.cli.config"}),
    ("app.config", {"app.config", "app.errors", "app.inference.results", "app.storage.files"}),
    ("app.storage.sqlite", {"app.storage.file_locks", "app.errors"}),
    ("app.auth.stores", {"app.auth", "app.config"}),
    (
        "app.auth",
        {
            *("app.auth", "app.errors", "app.storage.circuit_breaker", "app.storage.redis_connections"),
            "app.storage.redis_state",
            *("app.storage.sqlite", "app.texts"),
        },
    ),
    ("app.storage.state_schema", {"app.errors", "app.jobs.disk_store", "app.auth.tokens"}),
    (
        "app.storage.state_files",
        {"app.config", "app.errors", "app.jobs.disk_store", "app.auth.tokens", "app.storage.state_schema"},
    ),
    (
        "app.backups",
        {
            *("app.auth.tokens", "app.backups", "app.config", "app.errors", "app.jobs.disk_store", "app.__version__"),
            "app.host.running",
            *("app.storage.json_files", "app.storage.sqlite", "app.storage.state_files", "app.storage.state_schema"),
        },
    ),
    ("app.host.certificates", set()),
    ("app.host.running", set()),
    ("app.host.time_limit", set()),
    ("app.storage.redis_connections", set()),
    (
        "app.storage.redis_state",
        {"app.errors", "app.storage.circuit_breaker", "app.storage.redis_connections", "app.texts"},
    ),
    (
        "app.ratelimit.counters",
        {"app.storage.circuit_breaker", "app.storage.sqlite", "app.errors", "app.storage.redis_connections"},
    ),
    ("app.host.sizing", {"app.config", "app.host.machine"}),
    ("app.host.networks", {"app.config", "app.host.machine"}),
    ("app.host.arrivals", {"app.config", "app.host.machine", "app.host.sizing"}),
    ("app.storage.files", {"app.host.machine"}),
    # The engine's half of a task is imported when the engine asks for it.
    # Tasks only when a manifest is read: see manifests._task_names.
    ("app.models.manifests", {"app.errors", "app.storage.files", "app.inference.results", "app.tasks"}),
    # The engine's half of a task whose network stands beside it.
    *(
        (
            f"app.tasks.{name}_model",
            {
                *("app.errors", "app.inference.images", "app.inference.results", "app.models.builds"),
                *("app.models.manifests", "app.tasks", "app.runtimes", *MASKS),
            },
        )
        for name in sorted(path.stem.removesuffix("_model") for path in (ROOT / "app" / "tasks").glob("*_model.py"))
    ),
    (
        "app.tasks.instances_network",
        {*MASKS, "app.inference.results", "app.models.manifests", "app.runtimes"},
    ),
    (
        "app.runtimes.mask_heads",
        {*MASKS, "app.errors", "app.inference.results", "app.models.manifests", "app.runtimes"},
    ),
    (
        "app.tasks",
        {"app.tasks", "app.models.manifests", "app.ensembles.fusion", "app.inference.results", "app.runtimes"}
        | {"app.texts", *MASKS},
    ),
    (
        "app.models.builds",
        {"app.config", "app.storage.file_locks", "app.storage.files", "app.storage.json_files", "app.models.manifests"},
    ),
    ("app.models.entries", {"app.errors", "app.models.manifests"}),
    ("app.models.roles", {"app.errors", "app.storage.files", "app.storage.json_files", "app.models.manifests"}),
    ("app.models.routing", {"app.errors", "app.storage.json_files", "app.models.manifests", "app.models.roles"}),
    ("app.inference.options", {"app.errors", "app.inference.results", "app.models.manifests", "app.tasks"}),
    (
        "app.inference.code_calls",
        {
            *("app.engine.client", "app.errors", "app.inference.code_images", "app.inference.code_items"),
            *("app.cache.entries", "app.cache.keys", "app.cache.predictions"),
            *("app.inference.images", "app.inference.memory_budget"),
            *("app.inference.pipeline", "app.models.manifests", "app.models.routing"),
            "app.telemetry.metrics",
        },
    ),
    (
        "app.inference.code_images",
        {"app.inference.code_items", "app.inference.images", "app.models.manifests"},
    ),
    ("app.inference.code_items", {"app.errors", "app.model_code.validation", "app.model_code.schema_marks"}),
    ("app.inference.resampling", set()),
    ("app.inference.rle", set()),
    ("app.inference.mask_patches", {"app.inference.results", "app.inference.rle"}),
    ("app.inference.overlays", {"app.inference.results"}),
    ("app.inference.memory_ledger", {"app.storage.file_locks", "app.host.machine"}),
    ("app.inference.memory_budget", {"app.errors", "app.inference.memory_ledger"}),
    ("app.inference.memory_ledger", {"app.storage.file_locks", "app.host.machine"}),
    ("app.inference.memory_budget", {"app.errors", "app.inference.memory_ledger"}),
    ("app.image_headers.inspection", {"app.image_headers", "app.errors"}),
    ("app.image_headers", {"app.image_headers"}),
    ("app.inference.colors", {"app.errors"}),
    ("app.decoding.child", {"app.errors", "app.image_headers", "app.inference.images", "app.models.manifests"}),
    (
        "app.decoding.children",
        {
            *("app.decoding", "app.errors", "app.host.machine", "app.image_headers", "app.inference.images"),
            "app.models.manifests",
        },
    ),
    (
        "app.decoding.decoder",
        {
            *(
                "app.decoding",
                "app.inference.memory_budget",
                "app.config",
                "app.errors",
                "app.inference.images",
                "app.models.manifests",
                "app.host.sizing",
            ),
        },
    ),
    ("app.decoding.slots", {"app.errors", "app.handover"}),
    ("app.decoding", set()),
    (
        "app.inference.images",
        {
            *("app.inference.colors", "app.image_headers"),
            *("app.errors", "app.inference.results", "app.models.manifests", "app.inference.resampling"),
        },
    ),
    ("app.telemetry", {"app.telemetry", "app.config", "app.storage.file_locks", "app.host.machine", "app.__version__"}),
    ("app.models.runtime_variant", {"app.models.builds", "app.storage.json_files"}),
    ("app.ensembles.fusion", {"app.inference.results"}),
    ("app.ensembles.upstream_answers", {"app.errors", "app.models.manifests", "app.inference.results", "app.tasks"}),
    (
        "app.ensembles.upstreams",
        {
            *("app.errors", "app.models.manifests", "app.ensembles.upstream_answers", "app.storage.circuit_breaker"),
            "app.host.time_limit",
        },
    ),
    (
        "app.ensembles.ensemble",
        {
            *("app.config", "app.errors", "app.inference.results", "app.host.sizing", "app.telemetry.logs"),
            *("app.ensembles.upstream_answers", "app.ensembles.upstreams"),
            *("app.supervision.pulse", "app.telemetry.metrics"),
        },
    ),
    ("app.cache.keys", {"app.inference.results", "app.__version__"}),
    (
        "app.cache",
        {
            *(
                "app.cache",
                "app.handover",
                "app.storage.circuit_breaker",
                "app.config",
                "app.storage.sqlite",
                "app.errors",
                "app.models.manifests",
            ),
            *(
                "app.storage.redis_connections",
                "app.inference.results",
                "app.host.sizing",
                "app.tasks",
                "app.telemetry",
            ),
        },
    ),
    ("app.engine.protocol", set()),
    ("app.engine.frame_sockets", {"app.engine.protocol"}),
    ("app.engine.tensors", {"app.engine.protocol"}),
    ("app.engine.batcher", {"app.errors"}),
    ("app.engine.calls", {"app.engine.batcher", "app.engine.protocol", "app.engine.worker"}),
    (
        "app.engine.client",
        {
            *("app.engine.protocol", "app.engine.tensors"),
            "app.errors",
            "app.models.manifests",
            "app.inference.results",
            "app.tasks",
            "app.telemetry.logs",
        },
    ),
    (
        "app.engine.worker",
        {
            *("app.engine.batcher", "app.engine.drift", "app.errors", "app.host.machine", "app.models.manifests"),
            "app.inference.results",
            "app.supervision.pulse",
            "app.tasks",
            "app.telemetry.metrics",
        },
    ),
    ("app.engine.drift", set()),
    (
        "app.engine.monitor",
        {
            *("app.engine.drift", "app.engine.worker", "app.errors", "app.storage.json_files", "app.models.manifests"),
            *("app.supervision.pulse", "app.tasks"),
        },
    ),
    (
        "app.engine.builder",
        {"app.models.builds", "app.config", "app.errors", "app.host.machine", "app.models.manifests"},
    ),
    ("app.engine.pace", set()),
    ("app.engine.current_change", {"app.errors"}),
    (
        "app.engine.code_shadows",
        {"app.engine.batcher", "app.engine.changes", "app.engine.shadows", "app.engine.worker"},
    ),
    (
        "app.engine.changes",
        {
            *(
                "app.engine.current_change",
                "app.engine.pace",
                "app.engine.worker",
                "app.errors",
                "app.host.machine",
                "app.models.manifests",
                "app.models.roles",
            ),
            "app.models.builds",
            "app.supervision.pulse",
        },
    ),
    (
        "app.engine.shadows",
        {
            *("app.engine.worker", "app.errors", "app.inference.results", "app.models.roles", "app.tasks"),
            "app.model_code.differences",
        },
    ),
    (
        "app.engine.server",
        {
            "app.engine.code_shadows",
            "app.engine.calls",
            "app.models.manifests",
            *(
                "app.engine.frame_sockets",
                "app.engine.protocol",
                "app.engine.tensors",
                "app.engine.batcher",
                "app.engine.worker",
                "app.engine.changes",
            ),
            "app.engine.shadows",
            "app.engine.builder",
            "app.engine.monitor",
            *("app.errors", "app.inference.results", "app.supervision.pulse", "app.tasks"),
        },
    ),
    (
        "app.engine.service",
        {
            "app.model_code.served",
            *("app.supervision.pulse", "app.supervision.supervision"),
            *(
                "app.models.builds",
                "app.config",
                "app.engine",
                "app.errors",
                *("app.host.first_start", "app.host.machine"),
                "app.models.manifests",
                "app.host.sizing",
            ),
            *(
                "app.runtimes.registry",
                "app.runtimes.tensor_model",
                "app.runtimes.build.samples",
                "app.telemetry.alerts",
                "app.telemetry.metrics",
                "app.models.runtime_variant",
            ),
        },
    ),
    ("app.supervision.standalone", {"app.config", "app.errors", "app.telemetry"}),
    ("app.engine.__main__", {"app.engine.service", "app.supervision.standalone"}),
    ("app.engine", set()),
    (
        "app.runtimes.build.samples",
        {
            "app.runtimes",
            "app.models.builds",
            "app.errors",
            "app.storage.files",
            "app.inference.images",
            "app.models.manifests",
            "app.inference.results",
            "app.tasks",
        },
    ),
    *(
        (
            f"app.runtimes.checks.{checked}",
            {
                "app.runtimes",
                "app.errors",
                "app.storage.files",
                "app.inference.images",
                "app.models.manifests",
                "app.inference.results",
                "app.tasks",
            },
        )
        for checked in ("geometry", "known_answers", "proof", "reference")
    ),
    (
        "app.runtimes",
        {
            *(
                "app.runtimes",
                "app.models.builds",
                "app.models.entries",
                "app.config",
                "app.errors",
                "app.storage.files",
                "app.host.machine",
                "app.models.manifests",
            ),
            *("app.inference.images", "app.inference.results", "app.tasks"),
        },
    ),
    (
        "app.models.shadowing",
        {
            "app.errors",
            "app.inference.images",
            "app.models.manifests",
            "app.inference.options",
            "app.inference.results",
            "app.supervision.pulse",
            "app.tasks",
            "app.telemetry",
        },
    ),
    (
        "app.inference.served_models",
        {
            *("app.cache.predictions", "app.config", "app.errors", "app.models.manifests", "app.models.roles"),
            "app.models.routing",
        },
    ),
    (
        "app.inference.pipeline",
        {
            "app.inference.served_models",
            *(
                "app.config",
                "app.engine.client",
                "app.errors",
                "app.inference.images",
                "app.models.manifests",
                "app.inference.options",
            ),
            *("app.inference.memory_budget", "app.cache", "app.decoding.decoder", "app.models.runtime_variant"),
            *("app.inference.results", "app.models.roles", "app.models.routing", "app.models.shadowing"),
            *("app.tasks", "app.telemetry"),
        },
    ),
    ("app.jobs.folder", set()),
    ("app.jobs.waiting", {"app.jobs.folder", "app.supervision.pulse", "app.telemetry.metrics", "app.telemetry.shards"}),
    ("app.jobs.jobs", {"app.config", "app.models.manifests"}),
    ("app.supervision.pulse", {"app.host.machine", "app.telemetry.metrics", "app.telemetry.shards"}),
    (
        "app.supervision",
        {
            "app.supervision",
            "app.config",
            "app.errors",
            "app.storage.file_locks",
            *("app.host.certificates", "app.host.machine"),
            *("app.telemetry.post_mortem", "app.telemetry.shards"),
        },
    ),
    ("app.jobs.image_packs", {"app.jobs.jobs", "app.errors"}),
    ("app.jobs.archives", {"app.jobs.image_packs", "app.errors"}),
    (
        "app.jobs.store",
        {
            *("app.jobs.folder", "app.jobs.jobs", "app.jobs.image_packs", "app.errors", "app.host.machine"),
            "app.storage.file_locks",
        },
    ),
    (
        "app.jobs.disk_store",
        {
            "app.jobs.folder",
            "app.jobs.jobs",
            "app.jobs.image_packs",
            "app.jobs.store",
            "app.storage.sqlite",
            "app.errors",
            "app.host.machine",
        },
    ),
    ("app.jobs.redis_link", {"app.errors", "app.storage.circuit_breaker", "app.storage.redis_state"}),
    (
        "app.jobs.redis_store",
        {"app.jobs.jobs", "app.jobs.image_packs", "app.jobs.redis_link", "app.jobs.store", "app.errors"},
    ),
    (
        "app.jobs.stores",
        {
            *("app.jobs.disk_store", "app.jobs.jobs", "app.jobs.redis_link", "app.jobs.redis_store", "app.jobs.store"),
            "app.config",
        },
    ),
    (
        "app.jobs.code_items",
        {
            *("app.errors", "app.inference.code_calls", "app.inference.code_items", "app.inference.pipeline"),
            "app.jobs.jobs",
        },
    ),
    (
        "app.jobs.worker",
        {
            "app.models.manifests",
            "app.jobs.jobs",
            "app.jobs.pauses",
            "app.jobs.store",
            "app.errors",
            "app.inference.pipeline",
            "app.inference.results",
            "app.supervision.pulse",
            "app.tasks",
            "app.telemetry",
        },
    ),
    (
        "app.jobs.webhooks",
        {
            *("app.jobs.jobs", "app.jobs.store", "app.config", "app.errors", "app.supervision.pulse", "app.telemetry"),
            "app.host.time_limit",
        },
    ),
    (
        "app.jobs.service",
        {"app.jobs", "app.config", "app.engine.client", "app.errors", "app.inference.pipeline", "app.telemetry"}
        | {"app.supervision.pulse"},
    ),
    ("app.jobs.__main__", {"app.jobs.service", "app.supervision.standalone"}),
    ("app.jobs", set()),
    (
        "app.models.versions",
        {"app.config", "app.engine.client", "app.errors", "app.models.manifests", "app.models.roles"},
    ),
    # The page of a failure is the one step back: see failures._page.
    (
        "app.web.middleware",
        {
            *(
                "app.web.middleware",
                "app.cache.predictions",
                "app.config",
                "app.errors",
                "app.handover",
                "app.host.sizing",
                "app.telemetry",
            ),
            *("app.storage.file_locks", "app.host.machine", "app.web.policy", "app.supervision"),
            "app.host.networks",
            *(
                "app.inference.memory_budget",
                "app.ratelimit.counters",
                "app.models.routing",
                *("app.auth.stores", "app.auth.tokens"),
            ),
        },
    ),
    ("app.web.openapi.__main__", {"app.web.openapi", "app.factory", "app.config"}),
    ("app.web.openapi.operations", {"app.errors", "app.web.policy"}),
    (
        "app.web.openapi",
        {
            *("app.inference.served_models", "app.model_code.example_bodies", "app.models.manifests"),
            *(
                "app.web.openapi",
                "app.web.middleware.authentication",
                "app.web.middleware.trusted_hosts",
                "app.web.middleware.origins",
            ),
            "app.web.middleware.rate_limits",
            *("app.config", "app.errors", "app.web.policy", "app.tasks", "app.__version__"),
        },
    ),
    # What it leaves out of Flask, it must ask for itself.
    (
        "app.web.api.light_path",
        {"app.auth.tokens", "app.cache.predictions", "app.config", "app.errors", "app.telemetry", "app.web"},
    ),
    (
        "app.web.api.fast_path",
        {
            *("app.auth.tokens", "app.cache.predictions", "app.config", "app.errors", "app.inference.options"),
            *("app.inference.pipeline", "app.models.routing", "app.tasks", "app.telemetry", "app.web.api"),
            *("app.web.middleware", "app.web.policy"),
        },
    ),
    (
        "app.web.api",
        {
            *("app.inference.code_calls", "app.inference.code_items", "app.model_code.example_bodies"),
            "app.jobs.code_items",
            *(
                "app.web.api",
                "app.web.middleware",
                "app.web.openapi.operations",
                "app.web.policy",
                "app.inference.pipeline",
                "app.inference.served_models",
            ),
            *(
                "app.models.builds",
                "app.errors",
                "app.models.manifests",
                "app.inference.options",
                "app.inference.results",
                "app.__version__",
            ),
            *(
                "app.inference.overlays",
                "app.models.roles",
                "app.models.routing",
                "app.jobs.jobs",
                "app.jobs.image_packs",
                "app.jobs.archives",
                "app.jobs.store",
            ),
            *("app.jobs.webhooks", "app.telemetry"),
            *("app.cache.predictions", "app.ensembles", "app.tasks"),
        },
    ),
    # The form of the page of jobs is the API's.
    (
        "app.web.pages.jobs",
        {
            *(
                "app.web.pages",
                "app.web.api.job_requests",
                "app.web.api.jobs",
                "app.web.middleware",
                "app.jobs",
                "app.web.openapi.operations",
            ),
            *("app.errors", "app.inference.pipeline", "app.inference.results", "app.tasks", "app.telemetry.shards"),
        },
    ),
    # The form of a model with code asks as the API does.
    (
        "app.web.pages.try_model",
        {
            *("app.errors", "app.inference.code_calls", "app.inference.pipeline", "app.models.manifests"),
            *("app.web.api.code_bodies", "app.web.middleware", "app.web.openapi.operations", "app.web.pages"),
            "app.web.policy",
        },
    ),
    (
        "app.web.pages",
        {
            *("app.inference.images", "app.model_code.example_bodies"),
            *(
                "app.web.pages",
                "app.web.middleware",
                "app.web.openapi.operations",
                "app.web.policy",
                "app.inference.pipeline",
                "app.inference.served_models",
                "app.web.capacity_card",
            ),
            "app.__version__",
            *(
                "app.models.builds",
                "app.decoding.decoder",
                "app.errors",
                "app.models.manifests",
                "app.inference.options",
                "app.inference.overlays",
            ),
            *("app.config", "app.inference.results", "app.tasks"),
        },
    ),
    (
        "app.web.ops",
        {
            *(
                "app.web.ops",
                "app.web.openapi.operations",
                "app.inference.served_models",
                "app.web.middleware.request_metrics",
                "app.telemetry",
            ),
            *("app.storage.file_locks", "app.web.middleware.internal_networks"),
            "app.web.policy",
            *("app.supervision.probe", "app.supervision.supervisor", "app.web.capacity_card"),
            "app.jobs.store",
            *("app.web.middleware.authentication", "app.web.middleware.error_handlers"),
            *("app.web.middleware.rate_limits", "app.web.middleware.request_ids"),
            *("app.config", "app.errors", "app.host.machine", "app.__version__"),
        },
    ),
    ("app.web.capacity_card", {"app.config", "app.web.capacity_fields"}),
    ("app.web.capacity_fields", set()),
    ("app.web.serving", {"app.config", "app.errors", "app.supervision.pulse", "app.telemetry"}),
    # Instead of the whole factory, for a process that needs little.
    (
        "app.ops_factory",
        {
            *("app.config", "app.engine.client", "app.errors", "app.factory", "app.host.sizing"),
            "app.inference.memory_budget",
            *("app.inference.served_models", "app.jobs.stores", "app.web.middleware", "app.web.ops", "app.web.serving"),
        },
    ),
    (
        "app.factory",
        {
            *(
                "app.web.api",
                "app.web.openapi",
                "app.web.pages",
                "app.web.ops",
                "app.web.middleware",
                "app.inference.pipeline",
                "app.engine.client",
            ),
            *("app.cache.predictions", "app.ensembles.ensemble", "app.web.policy", "app.web.serving"),
            "app.web.whole_answers",
            *("app.engine.service", "app.config", "app.jobs.stores", "app.plugins.mounting"),
        },
    ),
    # Other people's Flask code is put on the app from here; nothing of ours imports theirs.
    ("app.plugins.testing", {"app.config", "app.factory", "app.plugins.request_watch"}),
    (
        "app.plugins.development",
        {
            *("app.config", "app.errors", "app.factory", "app.storage.saves", "app.supervision.standalone"),
            *("app.plugins.mounting", "app.plugins.request_watch"),
        },
    ),
    (
        "app.plugins.replacement",
        {"app.config", "app.plugins.manifest", "app.plugins.trial", "app.web.ops.applications"},
    ),
    (
        "app.plugins.save_watch",
        {
            *("app.config", "app.errors", "app.plugins.manifest", "app.plugins.replacement", "app.storage.saves"),
            *("app.supervision.supervisor", "app.telemetry.shards", "app.web.ops.applications"),
        },
    ),
    ("app.plugins.request_watch", {"app.plugins.snapshot"}),
    ("app.plugins.trial", {"app.plugins.application_python", "app.plugins.applications"}),
    ("app.plugins.application_python", {"app.config", "app.host.machine", "app.plugins.applications"}),
    (
        "app.plugins",
        {
            *(
                "app.plugins",
                "app.config",
                "app.errors",
                "app.storage.json_files",
                "app.web.policy",
                "app.web.ops.plugins",
                "app.model_code.environments",
            ),
            *("app.web.middleware.rate_limits", "app.web.middleware.security_headers", "app.web.pages.navigation"),
        },
    ),
    # Run in a model's own process, under a Python that may have none of our libraries.
    (
        "app.model_code.child",
        {"app.engine.frame_sockets", "app.engine.protocol", "app.host.machine", "app.model_code", "cask"},
    ),
    (
        "app.model_code.signature",
        {"app.model_code.hint_advice", "app.model_code.kinds", "app.model_code.model_class", "cask"},
    ),
    ("app.model_code.model_class", {"app.model_code.sources", "cask"}),
    ("app.model_code.sources", set()),
    ("app.model_code.imports", set()),
    ("app.model_code.class_limits", {"app.model_code.model_class", "cask"}),
    ("app.model_code.family", set()),
    ("app.model_code.spawned", {"app.model_code.sources", "cask"}),
    ("app.model_code.kinds", {"app.model_code.hint_advice", "app.model_code.png", "cask"}),
    ("app.model_code.hint_advice", set()),
    ("app.model_code.png", set()),
    (
        "app.model_code.worker",
        {
            *("app.engine.frame_sockets", "app.engine.protocol", "app.errors", "app.host.machine"),
            *(
                "app.model_code.environments",
                "app.model_code.family",
                "app.model_code.last_words",
                "app.model_code.leftovers",
                "app.model_code.process",
                "app.supervision.pulse",
                "app.telemetry.metrics",
                "app.telemetry.post_mortem",
            ),
        },
    ),
    ("app.model_code.process", {"app.config", "app.host.machine", "app.model_code.leftovers"}),
    ("app.model_code.leftovers", {"app.host.machine"}),
    ("app.model_code.environments", {"app.config", "app.errors", "app.host.machine"}),
    ("app.model_code.last_words", set()),
    (
        "app.model_code.examples",
        {
            *("app.errors", "app.storage.files"),
            *("app.inference.code_images", "app.inference.code_items", "app.inference.images"),
            *("app.model_code.differences", "app.model_code.schema_marks"),
        },
    ),
    ("app.model_code.differences", set()),
    ("app.model_code.pickles", {"app.model_code.folder"}),
    ("app.model_code.example_bodies", {"app.models.manifests", "app.storage.files"}),
    (
        "app.model_code.served",
        {
            "app.engine.calls",
            "app.errors",
            "app.model_code.examples",
            "app.model_code.environments",
            "app.model_code.folder",
            "app.model_code.worker",
            "app.models.manifests",
        },
    ),
    (
        "app.model_code.adding",
        {"app.errors", "app.model_code", "app.models.entries", "app.models.manifests"},
    ),
    ("app.model_code", {"app.errors"}),
    # Tools for people who write one: above the web tier, known to commands only.
    (
        "app.model_making",
        {
            *("app.config", "app.engine.client", "app.engine.service", "app.errors", "app.factory", "app.model_code"),
            *("app.model_making", "app.models.manifests", "app.engine.server", "app.storage.saves"),
        },
    ),
    ("app.cli", None),
    ("app", set()),
    # The public surface: what models import stands alone.
    (
        "cask.web",
        {
            *("cask", "app.tasks", "app.inference.pipeline", "app.web.policy", "app.web.api.answers"),
            *("app.web.middleware.deadlines", "app.inference.code_calls", "app.models.manifests"),
            "app.telemetry.metrics",
        },
    ),
    ("cask", set()),
    # The one who sends load knows the settings and two leaves, and nothing else of the service.
    ("loadtest", {"app.config", "app.errors", "app.storage.file_locks", "app.storage.json_files"}),
    (
        "apache.jobs",
        {"app.config", "app.jobs.folder", "app.jobs.service", "app.jobs.waiting", "app.telemetry"},
    ),
    ("apache.engine", {"app.config", "app.engine.service", "app.telemetry"}),
    (
        "apache.reload",
        {
            *(
                "app.host.certificates",
                "app.config",
                "app.errors",
                "app.storage.file_locks",
                "app.host.permissions",
                "app.supervision",
            ),
            "app.telemetry.shards",
            *("app.plugins.manifest", "app.plugins.replacement"),
        },
    ),
    # Runs in the Python of somebody else's application.
    ("apache.application", set()),
    # The first prediction shows what a task of the store finds.
    (
        "apache.announce",
        {"app.auth.stores", "app.config", "app.errors", "app.tasks", "app.telemetry.logs"},
    ),
    (
        "apache",
        {
            "app.host.arrivals",
            *("app.backups.upgrades", "app.host.certificates", "app.storage.state_files"),
            *("app.factory", "app.ops_factory", "app.plugins", "app.web.ops.applications", "app.web.ops.guard"),
            "app.web.policy",
            "app.config",
            "app.errors",
            *("app.host.certificates", "app.host.first_start", "app.host.machine", "app.host.networks"),
            *("app.host.permissions", "app.host.running", "app.host.sizing", "app.jobs.folder", "app.storage.files"),
            *("app.storage.json_files", "app.telemetry"),
            *("app.web.ops.apache_log", "app.web.ops.known_routes", "app.web.ops.load"),
            "app.web.ops.status",
            *("app.supervision.pulse", "app.supervision.supervision"),
            *("app.ratelimit.counters", "app.auth"),
            "app.web.middleware.admission",
            "app.web.middleware.cors",
            "app.web.middleware.admission_controller",
            *("app.web.middleware.security_headers", "app.web.middleware.places"),
            "app.web.middleware.request_ids",
        },
    ),
]

WEB = (
    "app.factory",
    "app.ops_factory",
    "app.web.serving",
    "app.plugins",
    "cask.web",
    "app.web.api",
    "app.web.pages",
    "app.web.ops",
    "app.web.openapi",
    "app.web.middleware",
    "app.web.policy",
)

# Packages of others, and who may know them.
ONLY: dict[str, tuple[str, ...]] = {
    "flask": (
        *WEB,
        "app.inference.pipeline",
        "app.inference.served_models",
        "app.cache",
        "app.cli",
        # Where it is what the application of somebody else is made with.
        "apache.application",
        # What Locust's own page is made with.
        "loadtest.locustfile",
    ),
    "flask_caching": ("app.cache",),
    "cachelib": (),
    "werkzeug": (
        "app.model_making.development",
        *WEB,
        "app.cli",
    ),
    "torch": (
        *("app.tasks.embed_model", "app.tasks.segment_model", "app.tasks.segment_network"),
        *("app.tasks.instances_model", "app.tasks.instances_network"),
        *("app.runtimes", "app.engine.worker", "app.engine.service"),
    ),
    "torchvision": ("app.runtimes",),
    "safetensors": ("app.runtimes",),
    "openvino": ("app.runtimes",),
    "PIL": (
        "app.inference.code_images",
        "app.inference.colors",
        "app.model_code.differences",
        "app.inference.images",
        "app.inference.overlays",
        "app.inference.resampling",
        "app.web.pages.model_answer",
        "app.web.pages.previews",
        "app.runtimes",
    ),
    "cykooz_resizer": ("app.inference.resampling",),
    "pydantic": (
        "app.plain_numbers",
        "app.inference.options",
        "app.tasks.params",
        *(f"app.tasks.{path.stem}" for path in (ROOT / "app" / "tasks").glob("*_params.py")),
        "app.web.api",
        "app.web.openapi",
        "app.web.capacity_fields",
    ),
    "dotenv": (),
    "numpy": (
        "app.model_making.samples",
        *(
            "app.inference.colors",
            "app.inference.mask_patches",
            "app.inference.rle",
            "app.decoding",
            "app.inference.images",
            "app.ensembles.fusion",
            "app.tasks",
            "app.web.pages.model_answer",
            "app.web.api.code_elements",
            "app.web.api.code_tensors",
            "app.web.api.infer_requests",
            "app.web.api.inference",
            "app.web.api.tensors",
            "app.inference.pipeline",
            "app.engine",
            "app.runtimes",
        ),
        *("app.cache.keys", "app.inference.overlays", "app.models.shadowing", "loadtest"),
        *("app.inference.code_images", "app.model_code.differences", "app.model_code.kinds", "cask"),
    ),
    "socket": (
        *("app.decoding", "app.engine.client", "app.engine.frame_sockets", "app.engine.server"),
        *("app.backups.trial", "app.host.time_limit", "app.model_code"),
        *("apache.preflight", "app.cli", "app.jobs.webhooks", "loadtest"),
        *("app.plugins.development", "app.plugins.shared", "apache.application"),
    ),
    # gevent replaces parts of the standard library when Locust is imported: never in the service, nor in our driver.
    "locust": ("loadtest.locustfile", "loadtest.foreign_users"),
    "gevent": (
        "loadtest.locustfile",
        "loadtest.dispatcher",
        "loadtest.sender",
        "loadtest.precise_timer",
        "loadtest.connections",
        "loadtest.foreign_users",
        "loadtest.remote_workers",
    ),
    "geventhttpclient": ("loadtest.sender", "loadtest.connections"),
    "loadtest": ("loadtest",),
    # One way to hold a file; SQLite's transactions share one, and turns of a load test go by who removes the file. The
    # log's pipe is made larger by it.
    "fcntl": ("app.storage.file_locks", "app.storage.sqlite", "loadtest.target_lock", "apache.json_lines"),
    "scipy": ("loadtest.statistics",),
    # For the name of an error only: see test_nothing_is_unpickled.
    "sqlite3": ("app.jobs.folder", "app.storage.sqlite", "app.storage.state_files"),
    "click": ("app.cli",),
    "rich": ("app.cli.terminal",),
    "pickle": ("app.runtimes.importing.weight_files",),
    "marshal": (),
    "shelve": (),
}
# The batcher is told the time and is locked by its owner.
BATCHER_KNOWS = {"__future__", "collections", "collections.abc", "dataclasses", "typing", "app.errors"}


def module_files() -> dict[str, Path]:
    """Module name → file, of app, apache, cask and loadtest."""
    files = [path for room in ("app", "apache", "cask", "loadtest") for path in sorted((ROOT / room).rglob("*.py"))]
    named = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}
    return {**named, "apache.ops_wsgi": ROOT / "apache" / "ops.wsgi", "flask_wsgi": ROOT / "flask.wsgi"}


MODULES = module_files()


@functools.cache
def imports(path: Path) -> set[str]:
    """Every module that a file imports anywhere; a module of ours by its full name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {_full(str(node.module), alias.name) for alias in node.names}
    return found


def _full(module: str, name: str) -> str:
    """``from app.inference import images`` and ``from app.inference.images import read`` mean one module."""
    return f"{module}.{name}" if f"{module}.{name}" in MODULES or module == "app" else module


def is_below(module: str, parent: str) -> bool:
    return module == parent or module.startswith(parent + ".")


def allowed(module: str) -> set[str] | None:
    if module == "flask_wsgi":
        return {"app.factory"}
    targets = next(targets for name, targets in TABLE if is_below(module, name))
    # What is said to people is a value like a string; whoever may fail may say why.
    return targets if targets is None else targets | {"app.texts", "app.plain_numbers", "app.model_code.schema_marks"}


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_what_stands_below_it(module: str) -> None:
    targets = allowed(module)
    ours = {name for name in imports(MODULES[module]) if is_below(name, "app") and not is_below(module, name)}

    assert targets is None or not {name for name in ours if not any(is_below(name, target) for target in targets)}


@pytest.mark.parametrize("package", ONLY)
def test_package_is_known_only_where_it_belongs(package: str) -> None:
    knowing = {module for module, path in MODULES.items() if any(is_below(name, package) for name in imports(path))}

    assert {module for module in knowing if not any(is_below(module, name) for name in ONLY[package])} == set()


def test_app_itself_imports_nothing() -> None:
    assert imports(MODULES["app"]) == set()


def test_batcher_knows_no_socket_no_torch_no_clock_and_no_thread() -> None:
    assert imports(MODULES["app.engine.batcher"]) <= BATCHER_KNOWS


def test_engine_service_imports_vision_and_torch_only_when_it_loads() -> None:
    top = {
        name.name
        for node in ast.parse(MODULES["app.engine.service"].read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }

    assert not top & {"torch", "load_model", "registry", "runtimes"}


def test_nothing_is_unpickled() -> None:
    for module, path in MODULES.items():
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            called = ast.unparse(call.func)
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}

            assert not re.fullmatch(r"(pickle|marshal)\.\w+|torch\.hub\.load\w*", called), (module, called)
            assert called != "torch.load" or keywords.get("weights_only") == "True", module


def test_apache_has_no_package_of_its_own() -> None:
    """mod_wsgi has a module of that name."""
    assert not (ROOT / "apache" / "__init__.py").exists()


def test_every_line_of_the_table_fits_a_module() -> None:
    unused = [name for name, _ in TABLE if not any(is_below(module, name) for module in MODULES)]

    assert [name for name in unused if name not in ("app.cli",)] == []


def run(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_web_tier_loads_neither_torch_nor_vision_nor_the_engines_side(tmp_path: Path) -> None:
    fakes.write_model(tmp_path / "models")
    code = (
        "import sys; from pathlib import Path; from app import config; from app.factory import create_app;"
        "folder = Path(sys.argv[1]);"
        "settings = config.describe('test').model_copy(update={'state_dir': folder, 'models_dir': folder / 'models',"
        "'engine_socket': folder / 'engine.sock', 'engine_mode': 'service'});"
        "app = create_app(settings); app.test_client().get('/readyz');"
        "print(*(name for name in sys.modules if name.split('.')[0] in ('torch', 'torchvision', 'openvino')"
        " or name.startswith(('app.runtimes', 'app.engine.server', 'app.engine.worker'))))"
    )

    assert run(code, str(tmp_path)) == ""


def test_ops_loads_nothing_that_decodes_draws_or_validates(tmp_path: Path) -> None:
    fakes.write_model(tmp_path / "models")
    code = (
        "import sys; from pathlib import Path; from app import config, ops_factory;"
        "from app.web.ops import known_routes;"
        "folder = Path(sys.argv[1]);"
        "settings = config.describe('test').model_copy(update={'state_dir': folder, 'models_dir': folder / 'models',"
        "'engine_socket': folder / 'engine.sock'});"
        "(folder / 'run' / 'httpd').mkdir(parents=True);"
        "(folder / 'run' / 'httpd' / known_routes.FILE_NAME).write_text('[]');"
        "app = ops_factory.create_app(settings);"
        "[app.test_client().get(path) for path in ('/readyz', '/metrics', '/status', '/version')];"
        "print(*(name for name in ('numpy', 'PIL', 'babel', 'pydantic', 'app.factory', 'app.web.pages', 'app.web.api')"
        " if name in sys.modules))"
    )

    assert run(code, str(tmp_path)) == ""


def test_engines_side_loads_nothing_that_serves_or_reads_callers() -> None:
    code = (
        "import sys; from app.engine import client, service, __main__;"
        "from app.model_code import served; from app.runtimes import registry;"
        "print(*(name for name in ('flask', 'werkzeug', 'PIL', 'torch', 'pydantic', 'ssl', 'email', 'app.factory')"
        " if name in sys.modules))"
    )

    assert run(code) == ""
