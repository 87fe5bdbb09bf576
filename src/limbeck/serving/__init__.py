"""Serving students: dynamic batching, many models and versions, REST and gRPC."""
