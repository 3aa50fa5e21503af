"""Flask lives here and nowhere else: views, pages, middleware and their descriptions."""
