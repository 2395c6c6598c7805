"""The service over HTTP: application, routes and protection."""
