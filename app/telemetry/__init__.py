"""What the service tells about itself: logs; later metrics, traces and alerts."""
