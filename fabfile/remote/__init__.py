"""Effects on hosts: connections, observation, execution, the rollout over many hosts. Fabric is imported here alone."""
