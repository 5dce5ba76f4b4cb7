"""The HTTPS server for pods: accepts reports, passes uploads and questions on to providers. Knows no kinds."""
