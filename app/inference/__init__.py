"""From images and options to answers: choose, decode, look up, ask the engine. No Flask, no torch."""
