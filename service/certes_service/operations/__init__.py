"""What an operator looks at: health, metrics, logs, settings."""
