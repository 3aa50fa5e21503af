"""The real container, asked over HTTP. Nothing here imports the app."""
