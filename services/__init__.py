"""Six independent services that talk only through Kafka: registry, prompts, evaluator, deployer, router, policy."""
