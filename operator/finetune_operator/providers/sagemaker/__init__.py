"""AWS SageMaker."""
