"""Built-in network architectures. Each module has the name of the architecture that it registers."""
