"""The page at /: rendered here, without a build step, without the internet."""
