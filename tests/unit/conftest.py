"""Its folder is where tests find the modules that several of them share."""
