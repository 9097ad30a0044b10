"""The webhook edge: verified requests become durable deliveries, bucket notifications become hints."""
