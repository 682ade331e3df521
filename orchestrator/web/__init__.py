"""The web process: API, notifications of the provider, pages. It asks and shows; it moves nothing."""
