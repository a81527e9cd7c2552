"""Who asks: tenants, API keys, sessions of the page, and what each may do."""
