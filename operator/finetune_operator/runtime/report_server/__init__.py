"""The HTTPS server for pods: takes reports, passes uploads and questions on to providers. Knows no kinds."""
