"""Other people's Flask code: finding, checking, mounting."""
