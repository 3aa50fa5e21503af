import gc

# Nothing that is made here ever goes. To look for what could takes a seventh of the start; later, 40 ms each full time.
gc.disable()

from app.factory import create_app  # noqa: E402 - the line above is to come first

application = create_app()

gc.enable()
gc.freeze()
