"""The loop, closed on the real stack: drift, verdict, retraining, gates, promotion, swap, sabotage and rollback, while nobody watches."""
