"""The stream under faults: real servers, real processes, and a comparison with batch over what the topics hold afterwards."""
