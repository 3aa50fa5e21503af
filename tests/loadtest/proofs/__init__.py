"""What the load test claims, shown on the real service; minutes each, so not part of `make test`.

make loadtest-proof PART=loadgen      or: .venv/bin/python -m tests.loadtest.proofs loadgen
"""
