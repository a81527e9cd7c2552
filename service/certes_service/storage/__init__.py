"""What is kept: tables (SQLAlchemy) and blobs (fsspec), each tenant apart."""
