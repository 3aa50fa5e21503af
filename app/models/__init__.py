"""Models as files and versions: manifests, roles, routing, shadow copies, builds. No Flask, no torch."""
