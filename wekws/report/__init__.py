"""Pages made from result files: report, diagnosis, comparison."""
