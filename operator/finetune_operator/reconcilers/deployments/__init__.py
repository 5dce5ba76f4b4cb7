"""ModelDeployment: servers on this cluster, deployments at providers, and stopping what nobody uses."""
