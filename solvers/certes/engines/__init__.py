"""Numerical workhorses behind the conditions. Nothing here is trusted."""
