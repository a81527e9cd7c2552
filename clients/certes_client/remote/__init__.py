"""The client of the service: what is sent, and sent again, is written once for blocking and for async code."""
