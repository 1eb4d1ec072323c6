"""What MLflow's client speaks, translated: its routes, its JSON, its errors. No SQL and no rule of ours stands here."""
