"""Apache Kafka: the log of payments and labels that several processes share. Importing the package loads no client."""
