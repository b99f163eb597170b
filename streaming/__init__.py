"""The stream: processes around the log in Kafka."""
