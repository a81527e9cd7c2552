"""A team's policy: which networks must keep which guarantees, and whether they do (``certes check``)."""
