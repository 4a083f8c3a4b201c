"""Pictures of results: everything is drawn from result files alone."""
